"""Every row of docs/formats.md is a job that is run here; the page says what came of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from . import table
from .case import Case, run


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIPSYNC_CACHE", str(tmp_path / "cache"))


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
