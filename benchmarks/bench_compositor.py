"""Every compositor by itself, putting discoloured crops back: `pytest benchmarks/bench_compositor.py`."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.work import backends, measure_stage
from lipsync_core.backends import StageKind


@pytest.mark.parametrize("name", backends(StageKind.COMPOSITOR))
def test_compositor(benchmark: Any, name: str) -> None:
    """Warm, after one run that is not counted."""
    measure_stage(benchmark, StageKind.COMPOSITOR, name)
