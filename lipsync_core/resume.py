"""The folder a job works in, beside its output: finished segments, so that an interrupted job can go on.

It is named `.<output>.lipsync` and holds `job.json`, which says what the segments depend on. A folder that says
anything else is another job's and is cleared; a folder with anything in it but no `job.json` is never touched. While a
job runs it holds a lock on the folder, which the system lets go of however the process ends.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from lipsync_core.errors import OutputError
from lipsync_core.media.writer import SEGMENT_SUFFIX

_JOB_FILE = "job.json"
_LOCK_FILE = "lock"
_PARTIAL = ".partial"
_TRIES = 20  # to lock a folder that other jobs are deleting; each takes microseconds

_OPEN: set[WorkFolder] = set()
"""Folders this process has locked, for `tidy_all`: a lock is the process's own, whichever thread took it."""


class WorkFolder:
    """The segments of one job."""

    def __init__(self, output: Path) -> None:
        self.path = output.with_name(f".{output.name}.lipsync")

    @contextlib.contextmanager
    def opened(self, facts: Mapping[str, object], *, resume: bool) -> Iterator[None]:
        """Hold the folder ready for the job that `facts` describe; keeps segments from before if `resume` and they fit.

        It is gone when the job is done. After an error whole segments stay if `resume`; without any, it goes.
        Raises `OutputError` where something else has that name, the folder cannot be written to, or a job is at it.
        """
        wanted = json.dumps(dict(facts), sort_keys=True, indent=1)
        with self._locked():
            self._fit(wanted, resume=resume)
            try:
                yield
            except BaseException:
                self.tidy(keep=resume)
                raise
            self._clear()

    def segment(self, number: int) -> Path:
        """Return the file of a segment."""
        return self.path / f"{number:06d}{SEGMENT_SUFFIX}"

    def finished(self) -> int:
        """Return how many segments from the first on are there without a gap."""
        count = 0
        while self.segment(count).is_file():
            count += 1
        return count

    def tidy(self, *, keep: bool = True) -> None:
        """Leave whole segments, if there are any and `keep`; else nothing."""
        if not keep or self.finished() == 0:
            self._clear()
            return
        for file in self.path.iterdir():
            if _PARTIAL in file.name:
                file.unlink(missing_ok=True)

    def _fit(self, wanted: str, *, resume: bool) -> None:
        job = self.path / _JOB_FILE
        if job.is_file() and resume and job.read_text(encoding="utf-8", errors="replace") == wanted:
            return
        try:
            self._clear()
            partial = job.with_name(_JOB_FILE + _PARTIAL)
            partial.write_text(wanted, encoding="utf-8")
            partial.replace(job)  # whole or absent, whenever the process ends
        except OSError as error:
            with contextlib.suppress(OSError):
                self._clear()
            raise self._unusable(error) from error

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        file = self._lock()
        _OPEN.add(self)
        try:
            yield
        finally:
            _OPEN.discard(self)
            if os.name == "nt":  # where an open file cannot be deleted
                os.close(file)
            with contextlib.suppress(OSError):
                (self.path / _LOCK_FILE).unlink(missing_ok=True)
                self.path.rmdir()  # it stays if anything is in it
            if os.name != "nt":
                os.close(file)

    def _lock(self) -> int:
        """Make the folder and return the locked file in it."""
        lock = self.path / _LOCK_FILE
        problem: OSError | None = None
        for _ in range(_TRIES):
            self._check_ours()
            try:
                self.path.mkdir(exist_ok=True)
                file = os.open(lock, os.O_RDWR | os.O_CREAT, 0o644)
            except FileNotFoundError as error:  # the job before this one may just be deleting the folder
                problem = error
                continue
            except OSError as error:
                raise self._unusable(error) from error
            if not _take(file):
                os.close(file)
                raise OutputError(
                    f"Another job is writing {self._output_name()!r}.", "Wait for it, or choose another output."
                )
            try:
                if os.path.samestat(os.fstat(file), lock.stat()):
                    return file
            except OSError as error:
                problem = error
            os.close(file)  # what was locked is gone: try the new one
        raise self._unusable(problem or OSError("its lock is deleted again and again"))

    def _check_ours(self) -> None:
        ours = {_LOCK_FILE, _JOB_FILE + _PARTIAL}
        if not self.path.exists() and not self.path.is_symlink():
            return
        in_the_way = not self.path.is_dir() or (
            not (self.path / _JOB_FILE).is_file() and any(file.name not in ours for file in self.path.iterdir())
        )
        if in_the_way:
            raise OutputError(f"{self.path} is in the way and is not a lipsync job.", "Move it elsewhere.")

    def _output_name(self) -> str:
        return self.path.name.removeprefix(".").removesuffix(".lipsync")

    def _unusable(self, error: OSError) -> OutputError:
        return OutputError(
            f"The folder {str(self.path.parent)!r} cannot be written to: {error.strerror or error}.",
            "Choose another output.",
        )

    def _clear(self) -> None:
        """Delete everything but the lock, which `_locked` deletes; the folder has been checked to be ours."""
        # job.json last: without it what is left would not be ours.
        for file in sorted(self.path.iterdir(), key=lambda file: file.name == _JOB_FILE):
            if file.is_dir():
                shutil.rmtree(file)
            elif file.name != _LOCK_FILE:
                file.unlink(missing_ok=True)


def tidy_all() -> None:
    """Tidy the folders this process has open, for a process that is about to end without unwinding."""
    for folder in list(_OPEN):
        with contextlib.suppress(OSError):
            folder.tidy()
            (folder.path / _LOCK_FILE).unlink(missing_ok=True)
            folder.path.rmdir()


def _take(file: int) -> bool:
    """Lock an open file for this process; False where another open file holds the lock."""
    if sys.platform == "win32":
        msvcrt = importlib.import_module("msvcrt")
        try:
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True
    import fcntl  # noqa: PLC0415 - not on Windows

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True  # a file system without locks
    return True
