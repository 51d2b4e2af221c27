"""Medians, spreads and ratios of few, noisy measurements."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

CONFIDENCE: Final = 0.95
NOISE_FLOOR: Final = 0.01  # ratios nearer to 1 than this are called equal however well they repeat
_RESAMPLES: Final = 4000
_SEED: Final = 20250601  # the same samples always give the same interval
_Z: Final = 1.959964  # normal quantile at (1 + CONFIDENCE) / 2
# Student's t at the same level for 1…10 degrees of freedom; further ones from the expansion in `_student`.
_T: Final = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)


@dataclass(frozen=True, slots=True)
class Spread:
    """Of n measurements: the median, the quartiles and the extremes, in the measurements' unit."""

    n: int
    median: float
    quartiles: tuple[float, float]
    range: tuple[float, float]

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Raises `ValueError` where there is none."""
        if not values:
            raise ValueError("there is no measurement")
        low, middle, high = np.percentile(values, [25, 50, 75])
        return cls(len(values), float(middle), (float(low), float(high)), (float(min(values)), float(max(values))))

    @property
    def relative(self) -> float:
        """Interquartile range over the median, 0 where the median is 0."""
        return (self.quartiles[1] - self.quartiles[0]) / self.median if self.median else 0.0


@dataclass(frozen=True, slots=True)
class Ratio:
    """How many times as much `value` one contender needed as another, with the interval at `CONFIDENCE`.

    low, high: infinite where a single round was measured. equal: the difference is inside the noise.
    """

    value: float
    low: float
    high: float
    floor: float = NOISE_FLOOR

    @property
    def equal(self) -> bool:
        """The interval holds 1, or the ratio is nearer to 1 than the floor."""
        return self.low <= 1 <= self.high or abs(math.log(self.value)) < math.log1p(self.floor)


def paired_ratio(mine: Sequence[float], theirs: Sequence[float], floor: float = NOISE_FLOOR) -> Ratio:
    """Return the ratio of two contenders measured in the same rounds: the median over rounds of mine ÷ theirs.

    What slows a whole round (another program, heat) falls out of each quotient. Both positive and of one length;
    else `ValueError`.
    """
    if len(mine) != len(theirs) or not mine or min(*mine, *theirs) <= 0:
        raise ValueError("a ratio needs positive measurements of the same rounds")
    logs = np.log(np.asarray(mine, np.float64) / np.asarray(theirs, np.float64))
    draws = np.random.default_rng(_SEED).integers(0, len(logs), (_RESAMPLES, len(logs)))
    return _interval(float(np.median(logs)), np.median(logs[draws], axis=1), len(logs), floor)


def unpaired_ratio(mine: Sequence[float], theirs: Sequence[float], floor: float = NOISE_FLOOR) -> Ratio:
    """Return the ratio of medians of measurements made apart, as of two runs of the bench; `ValueError` as above."""
    if not mine or not theirs or min(*mine, *theirs) <= 0:
        raise ValueError("a ratio needs positive measurements")
    rng = np.random.default_rng(_SEED)
    logs = [np.log(np.asarray(values, np.float64)) for values in (mine, theirs)]
    medians = [np.median(log[rng.integers(0, len(log), (_RESAMPLES, len(log)))], axis=1) for log in logs]
    centre = float(np.median(logs[0]) - np.median(logs[1]))
    return _interval(centre, medians[0] - medians[1], min(map(len, logs)), floor)


def _interval(centre: float, resampled: NDArray[Any], n: int, floor: float) -> Ratio:
    """Percentile bootstrap interval (Efron 1979), widened about its centre for small samples.

    The plain one is too narrow: it lacks the factor √(n / (n − 1)) and Student's t (Hesterberg, "What teachers should
    know about the bootstrap", 2015, §4.1).
    """
    if n == 1:
        return Ratio(math.exp(centre), 0.0, math.inf, floor)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(resampled, [tail, 1 - tail])
    wider = _student(n - 1) / _Z * math.sqrt(n / (n - 1))
    ends = centre - wider * (centre - low), centre + wider * (high - centre)
    return Ratio(math.exp(centre), math.exp(ends[0]), math.exp(ends[1]), floor)


def _student(freedom: int) -> float:
    if freedom <= len(_T):
        return _T[freedom - 1]
    return _Z + (_Z**3 + _Z) / (4 * freedom) + (5 * _Z**5 + 16 * _Z**3 + 3 * _Z) / (96 * freedom**2)


def slope(sizes: Sequence[float], values: Sequence[float]) -> tuple[float, float]:
    """Return a and b of the least-squares line a + b · size; raises `ValueError` for fewer than two sizes."""
    if len(set(sizes)) < 2:
        raise ValueError("a slope needs two sizes")
    b, a = np.polyfit(np.asarray(sizes, np.float64), np.asarray(values, np.float64), 1)
    return float(a), float(b)


def exponent(sizes: Sequence[float], values: Sequence[float]) -> float:
    """Return the k of the best fit value ∝ size^k (a line through the logarithms): 1 is in proportion, 0 constant."""
    return slope([math.log(size) for size in sizes], [math.log(value) for value in values])[1]
