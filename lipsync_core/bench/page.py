"""The report as one HTML page that needs nothing beside it: tables, plots as SVG, frames as JPEG."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from html import escape
from typing import Final

from lipsync_core.bench import figures, svg, table
from lipsync_core.bench.results import Results
from lipsync_core.bench.strips import Strips

_STYLE: Final = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2em auto; padding: 0 1em; }
h1 { font-size: 1.5em; } h2 { font-size: 1.15em; margin-top: 2em; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25em .7em; text-align: right; border-bottom: 1px solid #8884; }
th, td { white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
td:first-child { white-space: normal; min-width: 7em; }
.wide { overflow-x: auto; }
figure { margin: 0; max-width: 520px; } figcaption { font-size: .9em; opacity: .8; }
.plots { display: flex; flex-wrap: wrap; gap: 1.5em; }
svg { max-width: 100%; height: auto; } svg text { font-size: 12px; fill: currentColor; }
.grid { stroke: #8883; } .axis { stroke: currentColor; fill: none; }
.strip img { height: 150px; display: inline-block; } .strip td { text-align: left; white-space: nowrap; }
.about { font-size: .9em; }
"""

# What quality is plotted by: the first of these that was measured, and how it reads.
_QUALITIES: Final = (
    ("truth", "opening_r", "mouth opening's r against the true mouth"),
    ("source", "sharpness", "sharpness of the mouth, x the source's"),
    ("reference", "mouth_psnr", "PSNR in the mouth against the reference, dB"),
    ("reference", "psnr", "PSNR against the reference, dB"),
)


def html(results: Results, strips: Strips) -> str:
    """Return the page."""
    work = results.work
    title = f"lipsync bench: {f'stage {work.stage}' if work.stage else 'whole jobs'}, {work.video}"
    parts = [f"<h1>{escape(title)}</h1>", _table(table.speed(results)), _list(table.comparisons(results))]
    parts.append(f'<div class="plots">{"".join(_plots(results))}</div>')
    if strips:
        parts.append("<h2>Side by side</h2>" + _strips(strips))
    for heading, rows in (("Quality", table.quality(results)), ("Where CPU time goes", table.accounts(results))):
        if rows:
            parts.append(f"<h2>{heading}</h2>{_table(rows)}")
    parts.append(f'<h2>What was measured</h2><div class="about">{_list(table.about(results))}</div>')
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(title)}</title>'
    return f"<!doctype html>\n<html lang=en>{head}<style>{_STYLE}</style><body>{''.join(parts)}</body></html>\n"


def _plots(results: Results) -> list[str]:
    names = [entrant.name for entrant in results.entrants]
    plots = [_speed_and_quality(results, names)]
    walls = {name: results.of(name, figures.WALL.of) for name in names}
    plots.append(_figure(svg.dots(walls, "warm, s"), "Every round's warm run; the bar is the median."))
    if results.work.stage is None:
        spent = {name: dict(figures.accounts_of(results, name)) for name in names}
        plots.append(_figure(svg.bars(spent, "CPU s of a warm run"), "Time by stage: medians of each part."))
    curves = {}
    for name in names:
        kept = [sample.curve for sample in results.samples if sample.contender == name and len(sample.curve) > 1]
        if kept:
            curves[name] = [(at, held / figures.MB) for at, held in kept[-1]]
    if curves:
        caption = "Memory over time in the last round: loading, the cold run, the warm run."
        plots.append(_figure(svg.lines(curves, "s since the process began measuring", "resident, MB"), caption))
    return [plot for plot in plots if plot]


def _speed_and_quality(results: Results, names: Sequence[str]) -> str:
    title, known = "", {}
    for against, figure, title in _QUALITIES:  # noqa: B007 - the last one is used below
        found = {name: results.quality.get(name, {}).get(against, {}).get(figure) for name in names}
        known = {name: value for name, value in found.items() if value is not None and math.isfinite(value)}
        if len(known) >= min(2, len(names)):
            break
    else:
        return ""
    marks = []
    for name, value in known.items():
        spread = figures.spread(results, name, figures.CPU)
        if spread is not None:
            per_frame = 1000 / results.work.frames
            reach = (spread.quartiles[0] * per_frame, spread.quartiles[1] * per_frame)
            marks.append(svg.Mark(name, spread.median * per_frame, value, reach))
    caption = "Speed against quality: further left is cheaper, further up is better; whiskers are quartiles."
    missing = [name for name in names if name not in known]
    if missing:
        caption += f" Without this figure: {', '.join(missing)}."
    return _figure(svg.scatter(marks, "CPU ms a frame, warm", title), caption) if marks else ""


def _figure(drawing: str, caption: str) -> str:
    return f"<figure>{drawing}<figcaption>{escape(caption)}</figcaption></figure>"


def _strips(strips: Strips) -> str:
    rows = []
    for name, pictures in strips.items():
        images = "".join(
            f'<img alt="{escape(name, quote=True)}, {number + 1} of {len(pictures)}" '
            f'src="data:image/jpeg;base64,{base64.b64encode(data).decode()}">'
            for number, data in enumerate(pictures)
        )
        rows.append(f"<tr><th>{escape(name)}</th><td>{images}</td></tr>")
    return f'<div class="wide"><table class="strip">{"".join(rows)}</table></div>'


def _table(rows: table.Rows) -> str:
    head, *body = rows
    cells = ["".join(f"<th>{escape(cell)}</th>" for cell in head)]
    cells += ["".join(f"<td>{escape(cell)}</td>" for cell in row) for row in body]
    return f'<div class="wide"><table>{"".join(f"<tr>{row}</tr>" for row in cells)}</table></div>'


def _list(lines: Sequence[str]) -> str:
    return f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>" if lines else ""
