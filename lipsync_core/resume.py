"""The folder a job works in, beside its output: finished segments, so that an interrupted job can go on.

It is named `.<output>.lipsync` and holds `job.json`, which says what the segments depend on. A folder that says
anything else is another job's and is cleared; a folder without our `job.json` is never touched.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from lipsync_core.errors import OutputError
from lipsync_core.media.writer import SEGMENT_SUFFIX

_JOB_FILE = "job.json"


class WorkFolder:
    """The segments of one job."""

    def __init__(self, output: Path) -> None:
        self.path = output.with_name(f".{output.name}.lipsync")

    def open(self, facts: Mapping[str, object], *, resume: bool) -> None:
        """Make the folder ready for the job that `facts` describe; keeps its segments only if `resume` and they fit.

        Raises `OutputError` where something else has that name or the folder cannot be written to.
        """
        wanted = json.dumps(dict(facts), sort_keys=True, indent=1)
        if self.path.exists():
            if not (self.path / _JOB_FILE).is_file():
                raise OutputError(f"{self.path} is in the way and is not a lipsync job.", "Move it elsewhere.")
            if not resume or (self.path / _JOB_FILE).read_text(encoding="utf-8") != wanted:
                self.remove()
        try:
            self.path.mkdir(exist_ok=True)
            (self.path / _JOB_FILE).write_text(wanted, encoding="utf-8")
        except OSError as error:
            raise OutputError(
                f"The folder {self.path.parent} cannot be written to: {error.strerror}.", "Choose another output."
            ) from error

    def segment(self, number: int) -> Path:
        """Return the file of a segment."""
        return self.path / f"{number:06d}{SEGMENT_SUFFIX}"

    def finished(self) -> int:
        """Return how many segments from the first on are there without a gap."""
        count = 0
        while self.segment(count).is_file():
            count += 1
        return count

    def remove(self) -> None:
        """Delete the folder; it has been checked to be ours."""
        shutil.rmtree(self.path)
