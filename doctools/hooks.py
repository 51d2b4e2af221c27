"""What mkdocs calls: the tables that pages ask for are made as they are built."""

from __future__ import annotations

from typing import Any

from doctools.tables import fill


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Return the page with its tables."""
    return fill(markdown)
