"""Every audio encoder by itself, on the whole sound: `pytest benchmarks/bench_audio.py`."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.work import backends, measure_stage
from lipsync_core.backends import StageKind


@pytest.mark.parametrize("name", backends(StageKind.AUDIO))
def test_audio(benchmark: Any, name: str) -> None:
    """Warm, after one run that is not counted."""
    measure_stage(benchmark, StageKind.AUDIO, name)
