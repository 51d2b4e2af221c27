"""Whole jobs with every profile that can be used here, warm: `pytest benchmarks/bench_end_to_end.py`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks.work import clip, facts
from lipsync_core.api import Dubber, DubResult
from lipsync_core.cache import bypassed
from lipsync_core.errors import LipsyncError
from lipsync_core.registry import discover
from lipsync_core.settings import available_profiles


@pytest.mark.parametrize("profile", sorted(available_profiles(discover())))
def test_whole_job(benchmark: Any, profile: str, tmp_path: Path) -> None:
    """The face analysed anew each time."""
    work, output = clip(), tmp_path / "out.mp4"
    done: list[DubResult] = []
    cpu_s: list[float] = []
    try:
        with Dubber(profile=profile) as dubber, bypassed():

            def job() -> None:
                began = time.process_time()
                done.append(dubber.dub(work.video, work.audio, output, overwrite=True, resume=False))
                cpu_s.append(time.process_time() - began)

            benchmark.group = "end to end"
            benchmark.pedantic(job, rounds=3, warmup_rounds=1)
    except LipsyncError as error:
        pytest.skip(str(error))  # a profile whose model or packages are not here says so in its own words
    last = done[-1]
    about = {"width": last.width, "height": last.height, "fps": last.fps, "frames": last.frames}
    benchmark.extra_info.update(
        facts(about),
        profile=profile,
        model=last.model,
        dubbed=last.dubbed,
        cpu_ms_a_frame=[round(1000 * spent / last.frames, 4) for spent in cpu_s[1:]],
        realtime_factor=[round(result.realtime_factor, 3) for result in done[1:]],
    )
