"""The figures a bench reports, each with its unit and how to read it off a sample."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from lipsync_core.backends import StageKind
from lipsync_core.bench.ledger import FRAMEWORK
from lipsync_core.bench.results import Results, Sample
from lipsync_core.bench.stats import Ratio, Spread, paired_ratio
from lipsync_core.bench.timed import MEDIA, SCENES

MB: Final = 1e6


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure of a sample. digits: after the point where it is shown. cost: less is better."""

    title: str
    unit: str
    of: Callable[[Sample], float | None]
    digits: int = 2
    cost: bool = True

    def show(self, value: float) -> str:
        """Return the value as text, without the unit."""
        return f"{value:.{self.digits}f}"


def _mb(value: int | None) -> float | None:
    return None if value is None else value / MB


WALL: Final = Figure("warm", "s", lambda sample: sample.warm.seconds)
CPU: Final = Figure("warm CPU", "s", lambda sample: sample.warm.cpu_s)
FIGURES: Final = (
    WALL,
    CPU,
    Figure("real time", "x", lambda sample: sample.warm.realtime_factor, cost=False),
    Figure("cold", "s", lambda sample: sample.cold.seconds),
    Figure("load", "s", lambda sample: sample.load_s),
    Figure("first frame", "s", lambda sample: sample.first_frame_s),
    Figure("memory", "MB", lambda sample: _mb(sample.memory_bytes), digits=0),
    Figure("VRAM", "MB", lambda sample: _mb(sample.peak_vram_bytes), digits=0),
)

ACCOUNTS: Final = (*map(str, StageKind), *MEDIA, SCENES, FRAMEWORK)
"""Where a job's CPU time can go, in the order in which it is shown."""
LIBRARIES: Final = "library threads"


def spread(results: Results, contender: str, figure: Figure) -> Spread | None:
    """Return a figure's spread over a contender's samples; None where none has it."""
    values = results.of(contender, figure.of)
    return Spread.of(values) if values else None


def ratio(results: Results, contender: str, figure: Figure) -> Ratio | None:
    """Return a contender's ratio to the reference, round by round; None for the reference itself."""
    reference = results.reference
    if contender == reference:
        return None
    mine, theirs = results.of(contender, figure.of), results.of(reference, figure.of)
    if len(mine) != len(theirs) or not mine or min(*mine, *theirs) <= 0:
        return None
    return paired_ratio(mine, theirs)


def account_figure(account: str) -> Figure:
    """Return the CPU seconds of one account in the warm run; of `LIBRARIES`, those of no account."""

    def of(sample: Sample) -> float | None:
        accounts = sample.warm.accounts
        if account == LIBRARIES:
            booked = sum(spent["cpu"] for spent in accounts.values())
            return max(sample.warm.cpu_s - booked, 0.0) if accounts else None
        spent = accounts.get(account)
        return None if spent is None else spent["cpu"]

    return Figure(f"{account} CPU", "s", of, digits=3)


def accounts_of(results: Results, contender: str) -> Iterator[tuple[str, float]]:
    """Yield each account and its median CPU seconds in the warm run, those there are."""
    for account in (*ACCOUNTS, LIBRARIES):
        found = spread(results, contender, account_figure(account))
        if found is not None:
            yield account, found.median


def overhead(results: Results, contender: str) -> Spread | None:
    """Return the framework's share of a warm job's CPU time."""
    values = results.of(contender, lambda sample: sample.warm.overhead)
    return Spread.of(values) if values and results.work.stage is None else None


def verdict(found: Ratio, reference: str) -> str:
    """Say in words what a ratio of costs means."""
    if found.equal:
        return f"no difference from {reference} beyond the noise"
    if found.value > 1:
        return f"{found.value:.2f} x as much as {reference} ({found.low:.2f}–{found.high:.2f})"
    return f"{1 / found.value:.2f} x less than {reference} ({1 / found.high:.2f}–{1 / found.low:.2f})"
