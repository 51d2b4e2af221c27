"""Ratios say no more than the measurements do."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lipsync_core.bench.stats import Spread, exponent, paired_ratio, slope, unpaired_ratio


def test_the_spread() -> None:
    spread = Spread.of([4.0, 1.0, 3.0, 2.0, 100.0])
    assert (spread.n, spread.median, spread.quartiles, spread.range) == (5, 3.0, (2.0, 4.0), (1.0, 100.0))
    assert spread.relative == pytest.approx(2 / 3)
    with pytest.raises(ValueError, match="no measurement"):
        Spread.of([])


def test_twice_as_much_is_found_in_few_rounds() -> None:
    ratio = paired_ratio([2.0, 2.1, 1.9, 2.05, 2.02], [1.0, 1.02, 0.99, 1.01, 1.0])
    assert not ratio.equal
    assert ratio.value == pytest.approx(2.02, abs=0.05)
    assert 1.7 < ratio.low < 2 < ratio.high < 2.4


def test_what_slows_a_whole_round_falls_out() -> None:
    load = np.array([1.0, 5.0, 2.0, 9.0, 1.5])
    ratio = paired_ratio((1.2 * load).tolist(), load.tolist())
    assert ratio.value == pytest.approx(1.2)
    assert ratio.low == pytest.approx(1.2)
    assert unpaired_ratio((1.2 * load).tolist(), load.tolist()).equal


def test_a_single_round_tells_nothing() -> None:
    ratio = paired_ratio([5.0], [1.0])
    assert (ratio.low, ratio.high, ratio.equal) == (0.0, math.inf, True)
    assert ratio.value == pytest.approx(5)


def test_less_than_the_floor_is_equal_however_well_it_repeats() -> None:
    assert paired_ratio([1.005] * 9, [1.0] * 9).equal
    assert not paired_ratio([1.02] * 9, [1.0] * 9).equal
    assert paired_ratio([1.02] * 9, [1.0] * 9, floor=0.05).equal


@pytest.mark.parametrize("rounds", [3, 5, 9, 20])
def test_twins_are_called_different_about_as_seldom_as_promised(rounds: int) -> None:
    rng = np.random.default_rng(3)
    wrong = 0
    for _ in range(300):
        mine, theirs = np.exp(rng.normal(0, 0.1, (2, rounds))).tolist()
        wrong += not paired_ratio(mine, theirs).equal
    assert wrong / 300 < 0.1  # .08 with three rounds, .05 and less with more


@pytest.mark.parametrize(("mine", "theirs"), [([], []), ([1.0], [1.0, 2.0]), ([0.0], [1.0]), ([1.0], [-1.0])])
def test_what_is_no_ratio(mine: list[float], theirs: list[float]) -> None:
    with pytest.raises(ValueError, match="ratio needs"):
        paired_ratio(mine, theirs)


def test_slopes() -> None:
    assert slope([10, 60, 600], [5, 30, 300]) == pytest.approx((0, 0.5))
    assert exponent([1, 2, 4], [3, 12, 48]) == pytest.approx(2)
    assert exponent([1, 2, 4], [7, 7, 7]) == pytest.approx(0)
    with pytest.raises(ValueError, match="two sizes"):
        slope([3, 3], [1, 2])
