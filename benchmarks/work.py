"""What the pytest benchmarks work on: a real clip where `../shared/data` is, else the drawn face; who takes part."""

from __future__ import annotations

import resource
import tempfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import pytest

from benchmarks.pairs import DATA
from lipsync_core.backends import StageKind
from lipsync_core.bench import contenders, results
from lipsync_core.bench.measure import stage_work
from lipsync_core.bench.runner import SYNTHETIC_FRAMES, synthetic
from lipsync_core.bench.worker import Task
from lipsync_core.errors import LipsyncError
from lipsync_core.registry import State, discover

# Of speakers that the packaged audio model never saw, and the words are another's: nothing leaks.
VIDEO: Final = "grid_rz_sbwe5n.mpg"
AUDIO: Final = "grid_dp_s30_bwwy5n.mpg"
ROUNDS: Final = 5
SLOW_ROUNDS: Final = 3  # of a stage whose run takes longer than
SLOW_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Clip:
    """What is dubbed, and with what."""

    video: Path
    audio: Path


@lru_cache
def clip() -> Clip:
    """Return the real clip, or write the drawn one to a folder that lasts as long as this process."""
    if (DATA / VIDEO).is_file():
        return Clip(DATA / VIDEO, DATA / AUDIO)
    folder = tempfile.mkdtemp(prefix="lipsync-bench-")
    video, audio, _ = synthetic(Path(folder), SYNTHETIC_FRAMES)
    return Clip(video, audio)


def backends(kind: StageKind) -> list[Any]:
    """Return every backend of a stage the registry finds, as pytest parameters; one that is not ready is skipped."""
    # A backend that lacks its packages is named with what it lacks, as `lipsync backends` says it.
    entries = [entry for entry in discover().entries if entry.spec.kind is kind]
    return [
        pytest.param(
            entry.spec.name,
            marks=[] if entry.state is State.READY else [pytest.mark.skip(reason=f"{entry.state}. {entry.detail}")],
        )
        for entry in entries
    ]


def measure_stage(benchmark: Any, kind: StageKind, name: str) -> None:
    """Run one backend by itself, warm; skips where no profile it fits can be used."""
    registry = discover()
    (contender,), _ = contenders.of_backends(registry, kind, [name])
    source = clip()
    reasons = []
    for profile in contender.profiles:
        task = Task((profile,), contender.overrides, kind, str(source.video), str(source.audio), "")
        try:
            work, load_s, settings = stage_work(task)
            break
        except LipsyncError as error:
            reasons.append(str(error))
    else:
        pytest.skip(reasons[0])  # what the first profile it fits lacks: a model, most often
    runs: list[results.Run] = []
    benchmark.group = str(kind)
    runs.append(work.run())  # warms up
    rounds = SLOW_ROUNDS if runs[0].seconds > SLOW_S else ROUNDS
    benchmark.pedantic(lambda: runs.append(work.run()), rounds=rounds)
    warm = runs[1:]
    per_frame = 1000 / work.frames
    benchmark.extra_info.update(
        facts(work.facts()),
        backend=name,
        profile=profile,
        model=settings.job.model,
        load_s=round(load_s, 4),
        cpu_ms_a_frame=[round(run.cpu_s * per_frame, 4) for run in warm],
        ms_a_frame=[round(run.seconds * per_frame, 4) for run in warm],
        first_output_s=round(warm[0].first_s, 4),
    )


def facts(work: dict[str, Any]) -> dict[str, Any]:
    """Return what every benchmark says of its work and of this program; the machine pytest-benchmark notes itself.

    peak_rss_bytes: of this process so far, so of the costliest until here.
    """
    return {
        **work,
        "video": clip().video.name,
        "audio": clip().audio.name,
        "versions": results.versions(),
        "commit": results.commit(),
        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }
