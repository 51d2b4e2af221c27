"""Two benches of the same work, before and after a change: what got slower."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from lipsync_core.bench import figures
from lipsync_core.bench.figures import Figure
from lipsync_core.bench.results import Results
from lipsync_core.bench.stats import Ratio, unpaired_ratio
from lipsync_core.errors import InputError

FLOOR: Final = 0.02  # two runs at different hours repeat less well than rounds that take turns
_LEAST_S: Final = 0.005  # an account whose medians are below costs nothing that could be told


@dataclass(frozen=True, slots=True)
class Change:
    """One figure of one contender in both benches: the medians, and new ÷ old."""

    contender: str
    figure: Figure
    old: float
    new: float
    ratio: Ratio

    @property
    def slower(self) -> bool:
        """It costs more, beyond the noise."""
        return not self.ratio.equal and self.ratio.value > 1

    def __str__(self) -> str:
        said = "inside the noise" if self.ratio.equal else "more" if self.slower else "less"
        shown, unit = self.figure.show, self.figure.unit
        interval = f"{self.ratio.low:.2f}–{self.ratio.high:.2f}"
        return (
            f"{self.contender:<20} {self.figure.title:<18} {shown(self.old):>9} → {shown(self.new):>9} {unit:<3}"
            f" x {self.ratio.value:.3f} ({interval})  {said}"
        )


def compare(old: Results, new: Results) -> list[Change]:
    """Return every cost of every contender both benches have; raises `InputError` where they did other work."""
    if _work(old) != _work(new):
        raise InputError(
            f"The two benches did not do the same work: {_work(old)} and {_work(new)}.",
            "Compare two runs with the same video, sound and stage.",
        )
    changes = list(_changes(old, new))
    if not changes:
        raise InputError("The two benches have no contender in common.", "Run both with the same names.")
    return changes


def cautions(old: Results, new: Results) -> list[str]:
    """Return what makes the comparison doubtful: another machine, other versions."""
    said = []
    for key in ("processor", "cores"):
        if old.machine.get(key) != new.machine.get(key):
            said.append(f"the {key} differs: {old.machine.get(key)} and {new.machine.get(key)}")
    for name in sorted(set(old.versions) | set(new.versions)):
        if old.versions.get(name) != new.versions.get(name):
            said.append(f"{name} differs: {old.versions.get(name, 'none')} and {new.versions.get(name, 'none')}")
    if old.options.get("cores") != new.options.get("cores"):
        said.append(f"the cores used differ: {old.options.get('cores')} and {new.options.get('cores')}")
    return said


def quality_changes(old: Results, new: Results) -> Iterator[str]:
    """Yield every figure of quality that is not the same in both."""
    for name, against in new.quality.items():
        for reference, measured in against.items():
            before = old.quality.get(name, {}).get(reference, {})
            for figure, value in measured.items():
                was = before.get(figure)
                if was is not None and value is not None and was != value:
                    yield f"{name:<20} {figure} (against the {reference}): {was:.4g} → {value:.4g}"


def _changes(old: Results, new: Results) -> Iterator[Change]:
    costs = [figure for figure in figures.FIGURES if figure.cost]
    costs += [figures.account_figure(name) for name in (*figures.ACCOUNTS, figures.LIBRARIES)]
    known = {entrant.name for entrant in old.entrants}
    for entrant in new.entrants:
        if entrant.name not in known:
            continue
        for figure in costs:
            before, after = old.of(entrant.name, figure.of), new.of(entrant.name, figure.of)
            if not before or not after or min(*before, *after) <= 0:
                continue
            was, now = statistics.median(before), statistics.median(after)
            if figure.unit == "s" and max(was, now) < _LEAST_S:
                continue
            yield Change(entrant.name, figure, was, now, unpaired_ratio(after, before, FLOOR))


def _work(results: Results) -> str:
    work = results.work
    return f"{work.video} with {work.audio}, {work.frames} frames" + (f", {work.stage} alone" if work.stage else "")
