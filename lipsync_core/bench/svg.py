"""Plots as inline SVG: scatter, lines, stacked bars. No script, no file beside the page."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

# First Okabe and Ito's colours, which the colour-blind can tell apart ("Color universal design", 2008), without yellow
# and black, which get lost on paper or screen; then others, for the many parts of a bar, seen on white and on black.
COLOURS: Final = (
    *("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"),
    *("#7F7F7F", "#8C5BB5", "#A6761D", "#E31A1C", "#66A61E", "#5C6BC0"),
)
_WIDTH: Final = 520
_HEIGHT: Final = 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 20, 16, 46
_BAR: Final = 26
_CHARACTER: Final = 7.0  # width of a letter of the small text, px, on the generous side
_ABOVE, _BELOW = 10, 3  # what such a line takes above and below where it stands, px
_DOT: Final = 5  # radius, px

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Mark:
    """One point of a scatter plot; `reach` is its interval on the x axis."""

    label: str
    x: float
    y: float
    reach: tuple[float, float]


@dataclass(frozen=True, slots=True)
class _Axis:
    """A linear axis from `low` to `high` in data, `start` to `stop` in px; ticks are multiples of `step`."""

    low: float
    high: float
    step: float
    start: float
    stop: float

    @classmethod
    def over(cls, values: Sequence[float], start: float, stop: float, *, from_zero: bool) -> _Axis:
        low, high = (0.0 if from_zero else min(values)), max(values)
        if high <= low:
            low, high = low - (0.5 if not from_zero else 0.0), high + 0.5
        step = nice_step((high - low) / 5)
        return cls(math.floor(low / step) * step, math.ceil(high / step + 1e-9) * step, step, start, stop)

    def px(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.stop - self.start)

    def ticks(self) -> Iterator[tuple[float, str]]:
        digits = max(0, -math.floor(math.log10(self.step)))
        for number in range(round((self.high - self.low) / self.step) + 1):
            value = self.low + number * self.step
            yield self.px(value), f"{value:.{digits}f}"


def nice_step(raw: float) -> float:
    """Return the least of 1, 2 and 5 times a power of ten that is not below `raw`."""
    scale = 10.0 ** math.floor(math.log10(raw))
    return next(float(m * scale) for m in (1, 2, 5, 10) if m * scale >= raw * (1 - 1e-9))


def scatter(marks: Sequence[Mark], x_title: str, y_title: str) -> str:
    """Return points with names beside them and whiskers along x."""
    reaches = [end for mark in marks for end in mark.reach]
    x = _Axis.over([*reaches, *(mark.x for mark in marks)], _LEFT, _WIDTH - _RIGHT, from_zero=True)
    y = _Axis.over([mark.y for mark in marks], _HEIGHT - _BOTTOM, _TOP + 10, from_zero=False)
    parts = [_frame(x, y, x_title, y_title)]
    at = [(x.px(mark.x), y.px(mark.y)) for mark in marks]
    for mark, dot, colour in zip(marks, at, _colours(len(marks)), strict=True):
        low, high = (x.px(end) for end in mark.reach)
        parts.append(f'<path d="M{low:.1f} {dot[1]:.1f}H{high:.1f}" stroke="{colour}" stroke-width="2"/>')
        parts.append(f'<circle cx="{dot[0]:.1f}" cy="{dot[1]:.1f}" r="{_DOT}" fill="{colour}"/>')
    for mark, place in zip(marks, _beside(at, [mark.label for mark in marks]), strict=True):
        parts.append(_text(*place, mark.label, "start"))
    return _svg(parts, f"{y_title} against {x_title}")


def _beside(dots: Sequence[tuple[float, float]], labels: Sequence[str]) -> list[tuple[float, float]]:
    """Return where each label begins: beside its dot, inside the drawing, over no other label and no dot.

    Where every place nearby is taken, the nearest of further ones that is free.
    """
    taken = [(x - _DOT, y - _DOT, x + _DOT, y + _DOT) for x, y in dots]
    places = []
    for (x, y), label in zip(dots, labels, strict=True):
        width = _CHARACTER * len(label)
        left = max(0.0, x - 9 - width)
        right = min(x + 9, _WIDTH - width)
        line = _ABOVE + _BELOW + 1
        rows = [y - 7, y + 15, *(y + side * line * n for n in range(2, 2 + len(dots)) for side in (-1, 1))]
        tried = [(start, row) for row in rows for start in (right, left) if _ABOVE <= row <= _HEIGHT - _BOTTOM - _BELOW]
        place = next((place for place in tried if not any(_meet(_box(place, width), box) for box in taken)), tried[0])
        taken.append(_box(place, width))
        places.append(place)
    return places


_Box = tuple[float, float, float, float]
"""Left, top, right, bottom, px."""


def _box(place: tuple[float, float], width: float) -> _Box:
    return place[0], place[1] - _ABOVE, place[0] + width, place[1] + _BELOW


def _meet(one: _Box, other: _Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def lines(series: Mapping[str, Points], x_title: str, y_title: str) -> str:
    """Return one line a name, with a key above."""
    every = [point for points in series.values() for point in points]
    x = _Axis.over([at for at, _ in every], _LEFT, _WIDTH - _RIGHT, from_zero=True)
    y = _Axis.over([value for _, value in every], _HEIGHT - _BOTTOM, _TOP + 24, from_zero=True)
    parts = [_frame(x, y, x_title, y_title), _key(list(series))]
    for points, colour in zip(series.values(), _colours(len(series)), strict=True):
        path = " ".join(f"{x.px(at):.1f},{y.px(value):.1f}" for at, value in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
    return _svg(parts, f"{y_title} over {x_title}")


def dots(series: Mapping[str, Sequence[float]], x_title: str) -> str:
    """Return a row of dots a name: every measurement, and a bar at the median."""
    height = _TOP + _BAR * len(series) + _BOTTOM
    left = _label_width(series)
    x = _Axis.over([v for values in series.values() for v in values], left, _WIDTH - _RIGHT, from_zero=True)
    parts = [_frame_below(x, height, x_title)]
    for row, ((name, values), colour) in enumerate(zip(series.items(), _colours(len(series)), strict=True)):
        middle = _TOP + _BAR * (row + 0.5)
        parts.append(_text(left - 8, middle + 4, name, "end"))
        parts += [
            f'<circle cx="{x.px(value):.1f}" cy="{middle:.1f}" r="4" fill="{colour}" fill-opacity=".55"/>'
            for value in values
        ]
        median = statistics.median(values)
        parts.append(f'<path d="M{x.px(median):.1f} {middle - 9:.1f}v18" stroke="{colour}" stroke-width="2.5"/>')
    return _svg(parts, x_title, height)


def bars(rows: Mapping[str, Mapping[str, float]], x_title: str) -> str:
    """Return a stacked bar a name, with a key of the parts above."""
    names = list(dict.fromkeys(part for parts in rows.values() for part in parts))
    colours = dict(zip(names, _colours(len(names)), strict=True))
    key_rows = _key_rows(names)
    top = _TOP + 18 * len(key_rows)
    height = top + _BAR * len(rows) + _BOTTOM
    left = _label_width(rows)
    x = _Axis.over([sum(parts.values()) for parts in rows.values()], left, _WIDTH - _RIGHT, from_zero=True)
    drawn = [_frame_below(x, height, x_title), _key(names)]
    for row, (name, parts) in enumerate(rows.items()):
        upper, at = top + _BAR * row + 4, 0.0
        drawn.append(_text(left - 8, upper + 13, name, "end"))
        for part, value in parts.items():
            width = x.px(at + value) - x.px(at)
            drawn.append(
                f'<rect x="{x.px(at):.1f}" y="{upper}" width="{width:.2f}" height="{_BAR - 8}" fill="{colours[part]}">'
                f"<title>{escape(name)}, {escape(part)}: {value:.3f}</title></rect>"
            )
            at += value
    return _svg(drawn, x_title, height)


def _colours(count: int) -> list[str]:
    return [COLOURS[number % len(COLOURS)] for number in range(count)]


def _label_width(names: Mapping[str, object]) -> float:
    return max(40.0, 12 + _CHARACTER * max(map(len, names)))


def _frame(x: _Axis, y: _Axis, x_title: str, y_title: str) -> str:
    parts = [_frame_below(x, _HEIGHT, x_title)]
    for at, label in y.ticks():
        parts.append(f'<path d="M{x.start} {at:.1f}H{x.stop}" class="grid"/>')
        parts.append(_text(x.start - 8, at + 4, label, "end"))
    middle = (_HEIGHT - _BOTTOM + _TOP) / 2
    parts.append(
        f'<text x="16" y="{middle}" text-anchor="middle" transform="rotate(-90 16 {middle})">{escape(y_title)}</text>'
    )
    return "".join(parts)


def _frame_below(x: _Axis, height: float, title: str) -> str:
    floor = height - _BOTTOM
    parts = [f'<path d="M{x.start} {floor}H{x.stop}" class="axis"/>']
    for at, label in x.ticks():
        parts.append(f'<path d="M{at:.1f} {floor}v5" class="axis"/>')
        parts.append(_text(at, floor + 18, label, "middle"))
    parts.append(_text((x.start + x.stop) / 2, height - 8, title, "middle"))
    return "".join(parts)


def _key_rows(names: Sequence[str]) -> list[list[tuple[int, str, float]]]:
    """Lay the key out: rows of (number of the name, name, x px)."""
    rows: list[list[tuple[int, str, float]]] = [[]]
    at = 20.0
    for number, name in enumerate(names):
        width = 26 + _CHARACTER * len(name)
        if rows[-1] and at + width > _WIDTH - _RIGHT:
            rows.append([])
            at = 20.0
        rows[-1].append((number, name, at))
        at += width
    return rows


def _key(names: Sequence[str]) -> str:
    colours = _colours(len(names))
    parts = []
    for row, entries in enumerate(_key_rows(names)):
        for number, name, at in entries:
            upper = _TOP - 8 + 18 * row
            parts.append(f'<rect x="{at:.1f}" y="{upper}" width="11" height="11" fill="{colours[number]}"/>')
            parts.append(_text(at + 15, upper + 10, name, "start"))
    return "".join(parts)


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _svg(parts: Sequence[str], label: str, height: float = _HEIGHT) -> str:
    size = f'viewBox="0 0 {_WIDTH} {height:.0f}" width="{_WIDTH}"'
    return f'<svg {size} role="img" aria-label="{escape(label, quote=True)}">{"".join(parts)}</svg>'
