"""Explanations of parameters in a docstring become a list on the page."""

from __future__ import annotations

import pytest

pytest.importorskip("griffe", reason="reading docstrings needs griffelib (extra dev)")

from doctools.docstrings import with_lists


def test_names_become_items() -> None:
    text = "Write it.\n\nvideo: any video. audio: any file: a video too.\nbefore, after: the two.\n\nRaises: nothing."
    assert with_lists(text, ["video", "audio", "before", "after"]) == (
        "Write it.\n\n\n\n- `video`: any video. \n\n- `audio`: any file: a video too.\n"
        "\n\n- `before`, `after`: the two.\n\nRaises: nothing."
    )


def test_other_words_stay() -> None:
    text = "Two ways: this one.\n\nThe video: it is long."
    assert with_lists(text, ["video"]) == text
    assert with_lists(text, []) == text
