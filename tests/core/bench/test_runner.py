"""The bench finds out what was planted, in real processes at a tiny size."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lipsync_core.backends import StageKind
from lipsync_core.bench import figures, runner, stats, table
from lipsync_core.bench.contenders import Contender, of_backends
from lipsync_core.bench.results import load
from lipsync_core.bench.runner import Plan
from lipsync_core.errors import BackendError
from lipsync_core.registry import Registry

PLANTED = "planted.toml"


def plan(video: Path, sound: Path, names: list[str], *, stage: str | None, repeats: int) -> Plan:
    contenders = [Contender(name, (PLANTED,), (f"denoiser.backend={name}",)) for name in names]
    return Plan(contenders, {}, stage, video, sound, None, repeats, names[0])


def test_slow_wrong_and_alike(registry: Registry, video: Path, sound: Path, tmp_path: Path) -> None:
    """One stage alone: four contenders, three rounds."""
    said: list[str] = []
    names = ["twin-a", "twin-b", "slow", "wrong"]
    work = plan(video, sound, names, stage="denoiser", repeats=3)
    results = runner.run(work, tmp_path / "out", registry, said.append)

    rounds = [(sample.round, sample.contender) for sample in results.samples]
    assert rounds == [(number, name) for number in range(3) for name in names]
    slow = figures.ratio(results, "slow", figures.WALL)
    assert slow is not None
    assert slow.low > 1
    assert not slow.equal
    assert "as much as twin-a" in figures.verdict(slow, "twin-a")
    times = [results.of(name, figures.WALL.of) for name in ("twin-b", "twin-a")]
    alike = stats.paired_ratio(*times, floor=0.5)
    assert alike.equal
    assert "no difference" in figures.verdict(alike, "twin-a")

    apart = {name: results.quality[name]["reference"] for name in ("twin-b", "slow", "wrong")}
    assert (apart["twin-b"]["max"], apart["slow"]["max"]) == (0, 0)
    assert apart["twin-b"]["psnr"] == float("inf")
    assert apart["wrong"]["psnr"] is not None
    assert 10 < apart["wrong"]["psnr"] < 20  # σ .2 is 14 dB, less what clipping takes away

    sample = results.samples[0]
    assert sample.warm.frames == 12
    assert len(sample.warm.call_ms) == 3  # chunks of four frames
    assert sample.warm.seconds >= 12 * 0.005
    assert sample.memory_bytes is None or sample.memory_bytes < 100e6
    again = load(tmp_path / "out")
    assert again.samples == results.samples
    assert again.work == results.work


def test_whole_jobs(registry: Registry, video: Path, sound: Path, tmp_path: Path) -> None:
    work = plan(video, sound, ["twin-a", "wrong"], stage=None, repeats=1)
    results = runner.run(work, tmp_path / "out", registry, lambda _: None)
    stored = json.loads((tmp_path / "out" / "results.json").read_text())
    assert stored["machine"]["cores"]
    assert stored["versions"]["lipsync-core"]
    for sample in results.samples:
        for run in (sample.cold, sample.warm):
            assert set(StageKind) | {"decode", "encode", "mux", "sound", "scenes", "framework"} == set(run.accounts)
            assert all(spent["cpu"] >= 0 for spent in run.accounts.values())
            assert sum(spent["cpu"] for spent in run.accounts.values()) <= run.cpu_s * 1.05 + 0.02
            assert 0 < run.first_s <= run.seconds
            assert run.accounts["denoiser"]["wall"] >= 12 * 0.005
            assert run.overhead is not None
            assert 0 < run.overhead < 1
            assert {"Analysing faces", "Rendering"} <= set(run.passes)
        assert sample.first_frame_s > sample.import_s > 0
    assert [entrant.changed_outside for entrant in results.entrants] == [0, 0]
    assert {entrant.settings["denoiser.backend"] for entrant in results.entrants} == {"twin-a", "wrong"}
    assert all((tmp_path / "out" / "outputs" / entrant.output).is_file() for entrant in results.entrants)
    text = table.text(results)
    assert "framework's share" in text
    assert "Fewer than three rounds" in text
    assert "| twin-a |" in table.markdown(results)


def test_nobody_is_left(registry: Registry, video: Path, sound: Path, tmp_path: Path) -> None:
    work = plan(video, sound, ["breaks"], stage="denoiser", repeats=1)
    with pytest.raises(BackendError, match=r"No contender can be measured\. breaks: .*planted"):
        runner.run(work, tmp_path / "out", registry, lambda _: None)


def test_a_process_that_ends_early_is_named(registry: Registry, video: Path, sound: Path, tmp_path: Path) -> None:
    work = plan(video, sound, ["dies"], stage="denoiser", repeats=1)
    with pytest.raises(BackendError, match="measures dies ended early: planted end"):
        runner.run(work, tmp_path / "out", registry, lambda _: None)


def test_who_dies_while_measured_is_left_out(registry: Registry, video: Path, sound: Path, tmp_path: Path) -> None:
    said: list[str] = []
    work = plan(video, sound, ["killed", "twin-a"], stage="denoiser", repeats=2)
    results = runner.run(work, tmp_path / "out", registry, said.append)
    assert "The process that measures killed ended early: SIGTERM." in results.left_out["killed"]
    assert sum("killed: left out" in line for line in said) == 1
    assert [entrant.name for entrant in results.entrants] == [results.reference] == ["twin-a"]
    assert [sample.contender for sample in results.samples] == ["twin-a", "twin-a"]
    assert results.left_out["killed"] in (tmp_path / "out" / "report.md").read_text()


def test_what_is_missing_is_named_with_its_pip_line(registry: Registry) -> None:
    chosen, left_out = of_backends(registry, StageKind.DENOISER, ["slow", "absent"], profile=PLANTED)
    assert [contender.name for contender in chosen] == ["slow"]
    assert "pip install no-such-module" in left_out["absent"]


def test_the_reports_lie_beside_the_results(registry: Registry, video: Path, sound: Path, tmp_path: Path) -> None:
    work = plan(video, sound, ["twin-a", "breaks"], stage="denoiser", repeats=1)
    results = runner.run(work, tmp_path / "out", registry, lambda _: None)
    assert "FloatingPointError: planted" in results.left_out["breaks"]
    assert results.left_out["breaks"] in table.text(results)
    assert "data:image/jpeg" in (tmp_path / "out" / "report.html").read_text()
    assert "| twin-a |" in (tmp_path / "out" / "report.md").read_text()
