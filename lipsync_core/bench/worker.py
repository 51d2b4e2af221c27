"""One measurement in a process of its own: `python -m lipsync_core.bench.worker TASK.json ANSWER.json`.

A fresh process, so that peak memory, loaded models and warm caches of one say nothing about another.
"""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_AFFINITY: Final = "sched_setaffinity"


@dataclass(frozen=True, slots=True)
class Task:
    """What to measure.

    profiles, overrides: as a contender has them. stage: to be measured alone; None for the whole job. folder: an empty
    one. probe: nothing is timed; the output is kept and looked at. cores: how many to run on, where the system lets a
    process choose; None for all. spawned: when the process was started, s of `time.monotonic`.
    """

    profiles: tuple[str, ...]
    overrides: tuple[str, ...]
    stage: str | None
    video: str
    audio: str
    folder: str
    probe: bool = False
    cores: int | None = None
    spawned: float = 0.0


def main(given: Path, answer: Path) -> None:
    """Do the task; a `LipsyncError` becomes part of the answer."""
    table = json.loads(given.read_text(encoding="utf-8"))
    task = Task(**table | {key: tuple(table[key]) for key in ("profiles", "overrides")})
    if task.cores is not None and hasattr(os, _AFFINITY):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: task.cores])
    from lipsync_core.bench import measure  # noqa: PLC0415 - after the cores are chosen; and its time counts
    from lipsync_core.errors import LipsyncError  # noqa: PLC0415 - the same

    import_s = time.monotonic() - task.spawned
    try:
        found = measure.probe(task) if task.probe else measure.measure(task) | {"import_s": import_s}
    except LipsyncError as error:
        found = {"error": [error.cause, error.cure]}
    answer.write_text(json.dumps(found, default=str), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
