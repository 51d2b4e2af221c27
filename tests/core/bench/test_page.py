"""The page stands alone and says what the results hold."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from lipsync_core.bench import page, strips, svg
from lipsync_core.bench.results import Entrant, Results

from .test_compare import bench


def two() -> Results:
    """A contender whose name needs escaping, and one twice as slow and worse."""
    one, other = bench(1.0), bench(2.0)
    return dataclasses.replace(
        one,
        entrants=[Entrant(name, "draft", None, {}, "-") for name in ("a<b>&c", "slow")],
        samples=[
            *(dataclasses.replace(s, contender="a<b>&c", curve=[[0, 1e8], [1, 2e8]]) for s in one.samples),
            *(dataclasses.replace(s, contender="slow") for s in other.samples),
        ],
        quality={"a<b>&c": {"source": {"sharpness": 0.9}}, "slow": {"source": {"sharpness": 0.5}}},
        options={"repeats": 5, "reference": "a<b>&c", "cores": None},
        work=dataclasses.replace(one.work, stage=None),
    )


def test_the_page_needs_nothing_beside_it_and_escapes_names() -> None:
    made = page.html(two(), {"slow": [b"not really a JPEG"]})
    assert not re.search(r'(?:src|href)="(?!data:)', made)
    assert "<script" not in made
    assert "a<b>" not in made
    assert "a&lt;b&gt;&amp;c" in made
    assert re.search(r"slow, time: (1\.9|2\.0)\d x as much as a&lt;b&gt;&amp;c", made)
    assert 'src="data:image/jpeg;base64,' in made
    assert made.count("<svg") == 4  # speed against quality, rounds, stages, memory
    for drawing in re.findall(r"<svg.*?</svg>", made):
        ElementTree.fromstring(drawing)


def test_without_quality_or_curves_those_plots_are_left_out() -> None:
    bare = dataclasses.replace(
        two(), quality={}, samples=[dataclasses.replace(sample, curve=[]) for sample in two().samples]
    )
    assert page.html(bare, {}).count("<svg") == 2


def test_marks_lie_where_their_numbers_say() -> None:
    marks = [svg.Mark("low", 1, 10, (1, 1)), svg.Mark("high", 3, 30, (2, 4))]
    drawn = ElementTree.fromstring(svg.scatter(marks, "x", "y"))
    (x0, y0), (x1, y1) = ((float(c.get("cx", 0)), float(c.get("cy", 0))) for c in drawn.iter("circle"))
    assert x1 > x0
    assert y1 < y0  # up is more


@pytest.mark.parametrize(
    "marks",
    [
        [("latentsync-torch", 3.0, 0.5), ("latentsync-onnx", 1.0, 0.5)],  # the name would leave the right edge
        [("one", 2.0, 0.5), ("two", 2.0, 0.5), ("three", 2.0, 0.5), ("four", 2.0, 0.5), ("five", 2.0, 0.5)],  # twins
        [("draft", 30, 0.69), ("tiny", 62, 0.14), ("tiny-onnx", 60, 0.139), ("onnx", 97, 0.695)],
        [(f"backend-number-{n}", 90 + n % 3, n / 100) for n in range(8)],
    ],
)
def test_names_beside_marks_can_be_read(marks: list[tuple[str, float, float]]) -> None:
    drawn = ElementTree.fromstring(svg.scatter([svg.Mark(n, x, y, (x, x)) for n, x, y in marks], "x", "y"))
    names = {name for name, _, _ in marks}
    boxes = [
        (x, y - 9, x + 6.6 * len(text.text), y + 2)  # DejaVu's small letters, the widest in use, are 6.6 px on average
        for text in drawn.iter("text")
        if text.text in names
        for x, y in [(float(text.get("x", 0)), float(text.get("y", 0)))]
    ]
    assert len(boxes) == len(marks)
    dots = [(float(dot.get("cx", 0)), float(dot.get("cy", 0))) for dot in drawn.iter("circle")]
    _, _, width, height = map(float, drawn.get("viewBox", "").split())
    for number, (left, top, right, bottom) in enumerate(boxes):
        assert left >= 0 <= top
        assert right <= width
        assert bottom <= height
        for other in [*boxes[:number], *((x - 5, y - 5, x + 5, y + 5) for x, y in dots)]:
            assert right <= other[0] or other[2] <= left or bottom <= other[1] or other[3] <= top


@pytest.mark.parametrize("paper", ["#FFFFFF", "#121212"])
def test_colours_stand_out_on_white_and_on_black(paper: str) -> None:
    """By WCAG 2.1's contrast ratio; #121212 is what browsers paint where a page lets them choose dark."""

    def luminance(colour: str) -> float:
        values = np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)]) / 255
        linear = np.where(values <= 0.03928, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
        return float(linear @ (0.2126, 0.7152, 0.0722))

    for colour in svg.COLOURS:
        low, high = sorted((luminance(colour), luminance(paper)))
        assert (high + 0.05) / (low + 0.05) >= 2


def test_bars_are_as_long_as_their_parts() -> None:
    drawn = ElementTree.fromstring(svg.bars({"one": {"a": 1.0, "b": 2.0}, "two": {"b": 3.0}}, "s"))
    widths = [float(bar.get("width", 0)) for bar in drawn.iter("rect") if bar.find("title") is not None]
    assert widths[1] == pytest.approx(2 * widths[0], rel=0.01)
    assert widths[2] == pytest.approx(widths[0] + widths[1], rel=0.01)


@pytest.mark.parametrize(("raw", "step"), [(0.013, 0.02), (0.2, 0.2), (3, 5), (51, 100), (1, 1)])
def test_steps_are_round(raw: float, step: float) -> None:
    assert svg.nice_step(raw) == pytest.approx(step)


def test_one_value_can_be_drawn() -> None:
    for drawn in (svg.dots({"one": [0.0]}, "s"), svg.lines({"one": [(0.0, 0.0)]}, "s", "MB")):
        ElementTree.fromstring(drawn)


def test_strips_of_a_stage(tmp_path: Path) -> None:
    pictures = np.zeros((12, 30, 40, 3), np.uint8)
    np.savez(tmp_path / "a.npz", pictures=pictures, box=np.zeros((12, 4)))
    np.savez(tmp_path / "b.npz", values=np.ones((12, 8, 8), np.float32), box=np.zeros((12, 4)))
    np.savez(tmp_path / "c.npz", values=np.ones((12, 5, 8), np.float32))
    made = strips.of_stage({name: tmp_path / f"{name}.npz" for name in "abc"})
    assert sorted(made) == ["a", "b"]
    assert len(made["a"]) == strips.SHOWN
    assert made["a"][0][:2] == b"\xff\xd8"
