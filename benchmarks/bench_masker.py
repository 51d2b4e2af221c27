"""Every masker by itself: `pytest benchmarks/bench_masker.py`."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.work import backends, measure_stage
from lipsync_core.backends import StageKind


@pytest.mark.parametrize("name", backends(StageKind.MASKER))
def test_masker(benchmark: Any, name: str) -> None:
    """Warm, after one run that is not counted."""
    measure_stage(benchmark, StageKind.MASKER, name)
