"""The pytest benchmarks take part by the registry alone, and a row says what was measured."""

from __future__ import annotations

from pathlib import Path

import pytest

from lipsync_core.backends import StageKind
from lipsync_core.registry import discover

pytest.importorskip("pytest_benchmark", reason="needs pytest-benchmark (extra dev)")

from benchmarks import report
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


@pytest.mark.parametrize(("arguments", "written"), [([], "OUT"), (["--full"], "FULL_OUT")])
def test_each_set_has_its_file(
    arguments: list[str],
    written: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in ("OUT", "FULL_OUT"):
        monkeypatch.setattr(report, name, tmp_path / name)
    monkeypatch.setattr(report, "_small", lambda repeats: iter([f"{repeats} rounds"]))
    monkeypatch.setattr(report, "_full", lambda: iter(["networks", "ten minutes"]))
    assert report.main(arguments) == 0
    assert [path.name for path in tmp_path.iterdir()] == [written]
    text = (tmp_path / written).read_text(encoding="utf-8")
    parts = ["networks", "ten minutes"] if arguments else ["3 rounds"]
    assert text.endswith("\n\n".join(["", *parts]) + "\n")
    assert capsys.readouterr().err.split("\n\n")[: len(parts)] == parts  # shown as they are done


def test_the_full_size_cases_exist() -> None:
    pytest.importorskip("torch", reason="needs torch (extra torch)")
    from benchmarks.bench_latentsync_torch import CASES

    assert set(report.FULL_SIZE) <= set(CASES)
