"""What the commands show while they work: a Rich bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from lipsync_core.progress import Progress, Silent

_LINE_INTERVAL_S = 10.0


@contextlib.contextmanager
def progress_to(stream: TextIO | None, *, quiet: bool) -> Iterator[Progress]:
    """Yield a listener that draws to `stream` in the way that fits it."""
    if quiet or stream is None:  # a closed standard output is none
        yield Silent()
    elif stream.isatty():
        columns = (TextColumn("{task.description:<28}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Bars(*columns, console=Console(file=stream)) as bars:
            yield _Drawn(bars)
    else:
        yield _Lines(stream)


class _Drawn:
    def __init__(self, bars: Bars) -> None:
        self._bars = bars
        self._task: TaskID | None = None

    def start(self, title: str, total: int | None) -> None:
        self._task = self._bars.add_task(title, total=total)

    def advance(self, frames: int) -> None:
        if self._task is not None:
            self._bars.advance(self._task, frames)


class _Lines:
    """One line as a pass begins and one every few seconds with the time left."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._title = ""
        self._total: int | None = None
        self._done = 0
        self._began = self._last = 0.0

    def start(self, title: str, total: int | None) -> None:
        self._title, self._total, self._done = title, total, 0
        self._began = self._last = time.monotonic()
        self._say(f"{title}: {total} frames" if total else title)

    def advance(self, frames: int) -> None:
        self._done += frames
        now = time.monotonic()
        if now - self._last < _LINE_INTERVAL_S:
            return
        self._last = now
        if self._total:
            left = (now - self._began) / self._done * (self._total - self._done)
            self._say(f"{self._title}: {self._done} of {self._total} frames, {max(0.0, left):.0f} s left")
        else:
            self._say(f"{self._title}: {self._done} frames")

    def _say(self, line: str) -> None:
        self._stream.write(line + "\n")
        self._stream.flush()


def warnings_to_stderr() -> None:
    """Show warnings as plain lines on stderr."""
    logging.basicConfig(level=logging.WARNING, format="lipsync: %(levelname)s: %(message)s")
