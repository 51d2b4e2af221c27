"""Before and after: what got slower, and only that."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from lipsync_core.bench import compare
from lipsync_core.bench.results import Entrant, Results, Run, Sample, Work, load
from lipsync_core.errors import InputError

WORK = Work("masker", "talk.mp4", "say.wav", None, 64, 48, 25.0, 50, False, False)


def bench(seconds: float, aligner_s: float = 0.5, psnr: float = 30.0) -> Results:
    """Five rounds about `seconds` long, with one percent of noise."""
    rng = np.random.default_rng(round(1000 * seconds))
    samples = []
    for number in range(5):
        noise = 1 + 0.01 * float(rng.standard_normal())
        accounts = {"aligner": {"wall": 1.0, "cpu": aligner_s * noise, "calls": 3.0}}
        run = Run(seconds * noise, 2 * seconds * noise, 0.1, 50, 2 / seconds, accounts)
        samples.append(Sample("mine", number, 0.2, 0.1, run, run, 100_000_000, None))
    entrant = Entrant("mine", "draft", None, {}, "mine.npz")
    options = {"repeats": 5, "reference": "mine", "cores": None}
    return Results(WORK, options, [entrant], {}, samples, {"mine": {"source": {"psnr": psnr}}})


def test_what_got_slower_is_said_with_its_interval() -> None:
    changes = {change.figure.title: change for change in compare.compare(bench(1.0), bench(1.3))}
    warm = changes["warm"]
    assert warm.slower
    assert (warm.old, warm.new) == pytest.approx((1.0, 1.3), rel=0.02)
    assert 1.2 < warm.ratio.low < 1.3 < warm.ratio.high < 1.4
    assert str(warm).endswith("more")
    assert not changes["aligner CPU"].slower
    assert "inside the noise" in str(changes["memory"])


def test_what_got_faster_is_not_slower() -> None:
    changes = compare.compare(bench(1.0, 0.5), bench(0.5, 0.1))
    assert not any(change.slower for change in changes)
    assert str(next(c for c in changes if c.figure.title == "aligner CPU")).endswith("less")


def test_quality_that_changed_is_said() -> None:
    assert list(compare.quality_changes(bench(1.0), bench(1.0))) == []
    (line,) = compare.quality_changes(bench(1.0), bench(1.0, psnr=29.0))
    assert "30 → 29" in line


def test_cautions() -> None:
    old = dataclasses.replace(bench(1.0), machine={"processor": "A", "cores": 2}, versions={"numpy": "2.0"})
    new = dataclasses.replace(bench(1.0), machine={"processor": "B", "cores": 2}, versions={"numpy": "2.1"})
    assert compare.cautions(old, old) == []
    assert compare.cautions(old, new) == ["the processor differs: A and B", "numpy differs: 2.0 and 2.1"]


def test_other_work_is_not_compared() -> None:
    other = dataclasses.replace(bench(1.0), work=dataclasses.replace(WORK, frames=51))
    with pytest.raises(InputError, match="did not do the same work"):
        compare.compare(bench(1.0), other)
    stranger = dataclasses.replace(bench(1.0), entrants=[Entrant("other", "draft", None, {}, "o.npz")])
    with pytest.raises(InputError, match="no contender in common"):
        compare.compare(bench(1.0), stranger)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"format": 99}', "not json"])
def test_files_that_are_no_results(tmp_path: Path, text: str) -> None:
    (tmp_path / "results.json").write_text(text)
    with pytest.raises(InputError, match=r"results\.json"):
        load(tmp_path)


def test_results_come_back_as_they_were_but_for_what_json_lacks(tmp_path: Path) -> None:
    before = dataclasses.replace(bench(1.0), quality={"mine": {"reference": {"psnr": float("inf"), "max": 0.0}}})
    before.save(tmp_path)
    json.loads((tmp_path / "results.json").read_text(), parse_constant=pytest.fail)
    again = load(tmp_path)
    assert again.quality == {"mine": {"reference": {"psnr": None, "max": 0.0}}}
    assert again.samples == before.samples
    with pytest.raises(InputError, match="cannot be read"):
        load(tmp_path / "nowhere")
