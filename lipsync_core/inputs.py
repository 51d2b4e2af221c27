"""Input files that must stay what they are while a job reads them several times."""

from __future__ import annotations

from pathlib import Path

from lipsync_core.cache import content_hash
from lipsync_core.errors import InputError


class WatchedFile:
    """A file and the hash of its content when the job began."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._facts = _facts(path)  # before the hash: what changes during it counts as changed
        self.hash = content_hash(path)

    def check(self) -> None:
        """Raise `InputError` if the content is another now; it is read only where the file system says it may be."""
        facts = _facts(self.path)
        if facts == self._facts:
            return
        if facts is None or content_hash(self.path) != self.hash:
            raise InputError(
                f"{str(self.path)!r} was changed while it was dubbed.", "Leave it alone meanwhile, and start again."
            )
        self._facts = facts


def _facts(path: Path) -> tuple[int, ...] | None:
    try:
        now = path.stat()
    except OSError:
        return None
    return now.st_dev, now.st_ino, now.st_size, now.st_mtime_ns, now.st_ctime_ns
