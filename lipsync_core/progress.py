"""How a job tells what it is doing; the command line draws it."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Listens to a job. Calls come from one thread, in order: start, advance…, then the next start."""

    def start(self, title: str, total: int | None) -> None:
        """Begin a pass of `total` frames (None where unknown)."""

    def advance(self, frames: int) -> None:
        """Report that many more frames done."""


class Silent:
    """Says nothing."""

    def start(self, title: str, total: int | None) -> None:
        """Ignore it."""

    def advance(self, frames: int) -> None:
        """Ignore it."""
