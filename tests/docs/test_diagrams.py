"""The diagrams in docs/images are those that the script draws."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from doctools import diagrams


@pytest.mark.parametrize("name", list(diagrams.DIAGRAMS))
def test_it_is_the_one_committed(name: str) -> None:
    drawn = str(diagrams.DIAGRAMS[name]())
    assert ElementTree.fromstring(drawn)[0].text, "a diagram has a title, which is read aloud"
    committed = (diagrams.FOLDER / f"{name}.svg").read_text(encoding="utf-8")
    assert committed == drawn, f"run `{diagrams.RENEW}` and commit docs/images"


def test_each_is_shown_on_a_page() -> None:
    pages = "\n".join(page.read_text(encoding="utf-8") for page in diagrams.FOLDER.parent.rglob("*.md"))
    for name in diagrams.DIAGRAMS:
        assert f"images/{name}.svg)" in pages, f"no page shows {name}.svg"
