"""Every row of docs/formats.md is a job that is run here; the page says what came of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from . import table
from .case import Case, run


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIPSYNC_CACHE", str(tmp_path / "cache"))


@pytest.fixture(autouse=True)
def _ordinary_priority() -> Iterator[None]:
    """SVT-AV1, which writes the AV1 inputs, makes a process that may a real-time one, and leaves it so."""
    yield
    if hasattr(os, "sched_getscheduler") and os.sched_getscheduler(0) != os.SCHED_OTHER:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


@pytest.fixture(scope="module")
def documented() -> dict[str, str]:
    return table.documented()


@pytest.mark.parametrize(
    "case",
    [pytest.param(c, id=c.id, marks=pytest.mark.slow if c.slow else ()) for c in table.cases()],
)
def test_row(case: Case, tmp_path: Path, documented: dict[str, str]) -> None:
    assert run(case, tmp_path) == documented.get(case.id), f"not what docs/formats.md says: {table.RENEW}"


def test_the_page_has_these_rows_and_no_others(documented: dict[str, str]) -> None:
    assert list(documented) == [case.id for case in table.cases()]
