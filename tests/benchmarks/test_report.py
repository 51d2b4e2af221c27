"""The pytest benchmarks take part by the registry alone, and a row says what was measured."""

from __future__ import annotations

import pytest

from lipsync_core.backends import StageKind
from lipsync_core.registry import discover

pytest.importorskip("pytest_benchmark", reason="needs pytest-benchmark (extra dev)")

from benchmarks.report import _row
from benchmarks.work import backends


@pytest.mark.parametrize("kind", list(StageKind))
def test_every_backend_the_registry_finds_is_there(kind: StageKind) -> None:
    names = [entry.spec.name for entry in discover().entries if entry.spec.kind is kind]
    assert names
    assert [parameter.values[0] for parameter in backends(kind)] == names


def test_a_row() -> None:
    info = {"frames": 50, "backend": "mine", "model": None, "cpu_ms_a_frame": [1.0, 3.0, 2.0]}
    entry = {"extra_info": info, "stats": {"median": 0.1, "q1": 0.05, "q3": 0.2}}
    assert _row(entry) == "| mine | 2 | 2 | 1–4 | - | 50 |"
