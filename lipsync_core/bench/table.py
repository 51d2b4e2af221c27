"""The results as text: for a terminal, and as Markdown for a README."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from lipsync_core.bench import figures
from lipsync_core.bench.results import Results
from lipsync_core.bench.stats import CONFIDENCE

QUALITY_UNITS: Final = {
    "max": "of 255",
    "mean": "of 255",
    "psnr": "dB",
    "elsewhere": "of 255",
    "flicker": "x",
    "sharpness": "x",
    "seam": "x",
    "opening_lag": "frames",
    "opening_amplitude": "x",
    "landmark_distance": "% of the eyes' distance",
}
"""Units of `lipsync eval`'s figures of pictures, without `mouth_`."""

Rows = list[list[str]]


def speed(results: Results) -> Rows:
    """Return the table of speed and memory, its heading first: medians, and the quartiles of the first two figures."""
    shown = [
        figure
        for figure in figures.FIGURES
        if any(figures.spread(results, entrant.name, figure) for entrant in results.entrants)
    ]
    rows = [["", *(f"{figure.title}, {figure.unit}" for figure in shown)]]
    for entrant in results.entrants:
        cells = []
        for figure in shown:
            found = figures.spread(results, entrant.name, figure)
            text = "-" if found is None else figure.show(found.median)
            if found is not None and figure in (figures.WALL, figures.CPU) and found.n > 1:
                text += f" ({figure.show(found.quartiles[0])}–{figure.show(found.quartiles[1])})"
            cells.append(text)
        rows.append([entrant.name, *cells])
    return rows


def comparisons(results: Results) -> list[str]:
    """Return a sentence on each contender's time against the reference's."""
    lines = []
    for entrant in results.entrants:
        for figure, what in ((figures.WALL, "time"), (figures.CPU, "CPU time")):
            found = figures.ratio(results, entrant.name, figure)
            if found is not None:
                lines.append(f"{entrant.name}, {what}: {figures.verdict(found, results.reference)}")
    return lines


def accounts(results: Results) -> Rows:
    """Return the table of where a warm job's CPU seconds go; empty for a stage alone."""
    if results.work.stage is not None:
        return []
    spent = {entrant.name: dict(figures.accounts_of(results, entrant.name)) for entrant in results.entrants}
    names = [name for name in (*figures.ACCOUNTS, figures.LIBRARIES) if any(name in mine for mine in spent.values())]
    rows = [["CPU s", *spent]]
    rows += [[name, *(f"{mine[name]:.3f}" if name in mine else "-" for mine in spent.values())] for name in names]
    shares = [figures.overhead(results, name) for name in spent]
    rows.append(["framework's share", *("-" if share is None else f"{share.median:.2%}" for share in shares)])
    return rows


def quality(results: Results) -> Rows:
    """Return the table of quality, one row a figure; empty where nothing was measured."""
    names = [entrant.name for entrant in results.entrants]
    found = {
        (against, figure): None
        for name in names
        for against, measured in results.quality.get(name, {}).items()
        for figure in measured
    }
    rows = [["", *names]]
    for against, figure in found:
        cells = []
        for name in names:
            of_name = results.quality.get(name, {})
            if against == "reference" and name == results.reference:
                cells.append("(is it)")
            else:
                cells.append(_number(of_name.get(against, {}).get(figure)))
        unit = QUALITY_UNITS.get(figure.removeprefix("mouth_"), "") if "px" not in figure else ""
        rows.append([f"{figure}{', ' + unit if unit else ''} (against the {against})", *cells])
    changed = [entrant.changed_outside for entrant in results.entrants]
    if any(count is not None for count in changed):
        rows.append(["pixels changed outside the mask", *("-" if count is None else str(count) for count in changed)])
    return rows if len(rows) > 1 else []


def _number(value: float | None) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:.4g}"


def about(results: Results) -> list[str]:
    """Return the lines that say what was measured, on what, and with which cautions."""
    work, machine = results.work, results.machine
    what = f"stage {work.stage} alone" if work.stage else "whole jobs"
    cores = results.options.get("cores")
    memory = f", {machine['memory_bytes'] / 2**30:.0f} GB" if "memory_bytes" in machine else ""
    lines = [
        f"{what}: {work.video} ({work.width}x{work.height}, {work.fps:g} fps) with {work.audio}, {work.frames} frames, "
        f"{results.options['repeats']} rounds, taking turns, a process each",
        f"{machine.get('processor')}, {machine.get('cores')} cores{f', {cores} used' if cores else ''}{memory}, "
        f"{machine.get('system')}, load average {machine.get('load_average', '-')} at the end; "
        f"commit {results.commit or '-'}; " + ", ".join(f"{name} {value}" for name, value in results.versions.items()),
        f"medians (quartiles); intervals hold with {CONFIDENCE:.0%}, from a paired bootstrap over rounds. Cold: the "
        "first pass of a process, the files in the system's cache already and no analysis cached; warm: the second, "
        "with the same backends, analysing again. First frame: from the start of the process.",
    ]
    if results.options["repeats"] < 3:
        lines.append("Fewer than three rounds tell little about noise.")
    if work.paired:
        lines.append("The sound is the video's own: the answer leaks through the source. Give another sound.")
    if work.synthetic:
        lines.append("The face is drawn: quality says little about real ones.")
    lines += [f"left out: {name}: {why}" for name, why in results.left_out.items()]
    return lines + results.notes


def text(results: Results) -> str:
    """Return the whole report for a terminal."""
    parts = [_padded(speed(results)), *(["\n".join(comparisons(results))] if comparisons(results) else [])]
    parts += [_padded(rows) for rows in (accounts(results), quality(results)) if rows]
    return "\n\n".join([*parts, "\n".join(about(results))])


def markdown(results: Results) -> str:
    """Return the whole report as Markdown."""
    parts = [_piped(speed(results)), *(["\n".join(f"- {line}" for line in comparisons(results))])]
    parts += [_piped(rows) for rows in (accounts(results), quality(results)) if rows]
    parts.append("\n".join(f"- {line}" for line in about(results)))
    return "\n\n".join(part for part in parts if part) + "\n"


def _padded(rows: Rows) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(_line(row, widths) for row in rows)


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    first, *rest = row
    return (
        first.ljust(widths[0]) + "".join(f"  {cell:>{width}}" for cell, width in zip(rest, widths[1:], strict=True))
    ).rstrip()


def _piped(rows: Rows) -> str:
    head, *body = rows
    return "\n".join(["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *body)])
