"""Boxes, arrows and words: as much SVG as the diagrams of the documentation need."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import Final

INK: Final = "#1d2a2e"
PAPER: Final = "#ffffff"
STAGE: Final = "#cdeae5"
DATA: Final = "#f3efe2"
ACCENT: Final = "#b3402a"
FADED: Final = "#8a9a9e"
_LINE: Final = 17


class Drawing:
    """A picture of fixed size on white, legible in a light and in a dark page."""

    def __init__(self, width: int, height: int, title: str) -> None:
        self._parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
            'font-family="system-ui, sans-serif" font-size="14">',
            f"<title>{escape(title)}</title>",
            '<defs><marker id="tip" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" '
            f'orient="auto-start-reverse"><path d="M0 0L10 5L0 10z" fill="{INK}"/></marker></defs>',
            f'<rect width="{width}" height="{height}" rx="10" fill="{PAPER}"/>',
        ]

    def box(
        self, x: float, y: float, width: float, height: float, *words: str, fill: str = STAGE, bold: bool = True
    ) -> None:
        """Draw a box with centred lines in it, the first one bold."""
        self._parts.append(
            f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="6" fill="{fill}" stroke="{INK}"/>'
        )
        top = y + height / 2 - _LINE * (len(words) - 1) / 2
        for number, line in enumerate(words):
            self.text(x + width / 2, top + number * _LINE + 5, line, bold=bold and number == 0)

    def text(
        self, x: float, y: float, words: str, *, anchor: str = "middle", bold: bool = False, colour: str = INK
    ) -> None:
        """Write one line."""
        weight = ' font-weight="600"' if bold else ""
        self._parts.append(
            f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" fill="{colour}"{weight}>{escape(words)}</text>'
        )

    def arrow(self, *points: tuple[float, float], words: str = "", dashed: bool = False) -> None:
        """Draw a line through points with a tip at its end; the words stand above its first stretch."""
        path = " ".join(f"{x:g},{y:g}" for x, y in points)
        dash = ' stroke-dasharray="5 4"' if dashed else ""
        self._parts.append(
            f'<polyline points="{path}" fill="none" stroke="{INK}" stroke-width="1.5"{dash} marker-end="url(#tip)"/>'
        )
        if words:
            (x0, y0), (x1, y1) = points[:2]
            self.text((x0 + x1) / 2, (y0 + y1) / 2 - 7, words, colour=ACCENT)

    def shape(self, points: Iterable[tuple[float, float]], fill: str, opacity: float = 1.0) -> None:
        """Fill a polygon."""
        path = " ".join(f"{x:g},{y:g}" for x, y in points)
        self._parts.append(f'<polygon points="{path}" fill="{fill}" fill-opacity="{opacity:g}" stroke="{INK}"/>')

    def ellipse(self, x: float, y: float, rx: float, ry: float, fill: str = "none") -> None:
        """Draw an ellipse."""
        self._parts.append(
            f'<ellipse cx="{x:g}" cy="{y:g}" rx="{rx:g}" ry="{ry:g}" fill="{fill}" stroke="{INK}" stroke-width="1.5"/>'
        )

    def __str__(self) -> str:
        return "\n".join([*self._parts, "</svg>", ""])
