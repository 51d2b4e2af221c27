"""Every denoiser by itself: seeing the source, and generating: `pytest benchmarks/bench_denoiser.py`."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.work import backends, measure_stage
from lipsync_core.backends import StageKind


@pytest.mark.parametrize("name", backends(StageKind.DENOISER))
def test_denoiser(benchmark: Any, name: str) -> None:
    """Warm, after one run that is not counted."""
    measure_stage(benchmark, StageKind.DENOISER, name)
