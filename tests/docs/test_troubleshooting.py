"""The messages that troubleshooting explains are those the code gives, and every class of error is explained."""

from __future__ import annotations

import re

import pytest

from doctools.tables import error_classes
from tests.docs.blocks import ROOT

PAGE = ROOT / "docs" / "troubleshooting.md"
HEADINGS = re.findall(r"^### `(.+)`$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
SOURCES = [*(ROOT / "lipsync_core").rglob("*.py"), *(ROOT / "plugins").glob("*/lipsync_*/**/*.py")]


def test_there_are_many() -> None:
    assert len(HEADINGS) >= 25


@pytest.mark.parametrize("message", HEADINGS)
def test_the_message_is_one_of_the_code(message: str) -> None:
    """Its fixed parts stand in one file; what varies is … on the page and {…} in the code."""
    parts = [part.strip() for part in message.split("…") if len(part.strip(" .:,()'")) > 1]
    assert parts, f"{message!r} has no words of its own"
    for file in SOURCES:
        text = re.sub(r'"\s*\n\s*f?"', "", file.read_text(encoding="utf-8"))  # a text over several lines
        if all(part in text for part in parts):
            return
    pytest.fail(f"no source file says {message!r}: correct the heading in docs/troubleshooting.md")


def test_every_class_is_explained() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for found in error_classes():
        assert f"`{found.__name__}`" in text, f"docs/troubleshooting.md does not mention {found.__name__}"
