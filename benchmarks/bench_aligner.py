"""Every face aligner by itself: following the face, and cutting the crops: `pytest benchmarks/bench_aligner.py`."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.work import backends, measure_stage
from lipsync_core.backends import StageKind


@pytest.mark.parametrize("name", backends(StageKind.ALIGNER))
def test_aligner(benchmark: Any, name: str) -> None:
    """Warm, after one run that is not counted."""
    measure_stage(benchmark, StageKind.ALIGNER, name)
