"""The pytest benchmarks take part by the registry alone, and a row says what was measured."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from lipsync_core.backends import StageKind
from lipsync_core.bench import results
from lipsync_core.registry import discover
from lipsync_core.settings import available_profiles

pytest.importorskip("pytest_benchmark", reason="needs pytest-benchmark (extra dev)")

from benchmarks import report, work
from benchmarks.report import _row
from benchmarks.work import backends

ROOT = Path(report.__file__).resolve().parents[1]


@pytest.mark.parametrize("kind", list(StageKind))
def test_every_backend_the_registry_finds_is_there(kind: StageKind) -> None:
    names = [entry.spec.name for entry in discover().entries if entry.spec.kind is kind]
    assert names
    assert [parameter.values[0] for parameter in backends(kind)] == names


def test_a_row() -> None:
    info = {"frames": 50, "backend": "mine", "model": None, "cpu_ms_a_frame": [1.0, 3.0, 2.0]}
    entry = {"extra_info": info, "stats": {"median": 0.1, "q1": 0.05, "q3": 0.2, "rounds": 3}}
    assert _row(entry) == "| mine | 2 | 2 | 1–4 | - | 50 | 3 |"


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
    monkeypatch.setattr(report, "_small", lambda repeats: iter([f"## Rounds\n\n{repeats} rounds"]))
    monkeypatch.setattr(report, "_full", lambda: iter(["networks", "ten minutes"]))
    assert report.main(arguments) == 0
    assert [path.name for path in tmp_path.iterdir()] == [written]
    text = (tmp_path / written).read_text(encoding="utf-8")
    parts = ["networks", "ten minutes"] if arguments else ["## Rounds\n\n3 rounds"]
    assert text.endswith("\n\n".join(["", *parts]) + "\n")
    assert re.search(
        r"took \d+ s: " + ("networks \\d+ s; ten minutes" if arguments else "Rounds") + r" \d+ s\.\n", text
    )
    assert capsys.readouterr().err == "".join(f"{part}\n\n" for part in parts)  # shown as they are done


def test_whole_jobs_are_measured_once() -> None:
    """Every profile is either head to head or a benchmark of its own, none both; what pytest would run says so."""
    run = subprocess.run(
        [*report.pytest_command("end_to_end"), "--collect-only"], capture_output=True, text=True, check=True, cwd=ROOT
    )
    alone = set(re.findall(r"test_whole_job\[([^]]+)\]", run.stdout))
    assert alone == set(available_profiles(discover())) - set(report.PROFILES)
    assert alone > {"torch", "onnx"}


@pytest.mark.parametrize(("seconds", "rounds"), [(0.1, work.ROUNDS), (1.5, work.SLOW_ROUNDS)])
def test_slow_stages_run_less_often(seconds: float, rounds: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run that warms up is not among those reported."""
    made: list[results.Run] = []

    class Planted:
        frames = 10

        def run(self) -> results.Run:
            made.append(results.Run(seconds, seconds, 0.0, self.frames, 1.0))
            return made[-1]

        def facts(self) -> dict[str, float]:
            return {"frames": self.frames}

    class Pedantic:
        def __init__(self) -> None:
            self.extra_info: dict[str, object] = {}
            self.group = ""

        def pedantic(self, call: Callable[[], None], rounds: int) -> None:
            for _ in range(rounds):
                call()

    settings = SimpleNamespace(job=SimpleNamespace(model=None))
    monkeypatch.setattr(work, "stage_work", lambda task: (Planted(), 0.0, settings))
    benchmark = Pedantic()
    work.measure_stage(benchmark, StageKind.MASKER, "mouth-mask")
    assert len(made) == rounds + 1
    assert benchmark.extra_info["cpu_ms_a_frame"] == [round(100 * seconds, 4)] * rounds


def test_the_full_size_cases_exist() -> None:
    pytest.importorskip("torch", reason="needs torch (extra torch)")
    from benchmarks.bench_latentsync_torch import CASES

    assert set(report.FULL_SIZE) <= set(CASES)
