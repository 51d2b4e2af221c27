"""The fitted slopes say how cost grows, and the points are real jobs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks.scaling import SIZE, Axis, Point, Work


def test_slopes_are_those_of_the_points() -> None:
    points = tuple(Point(at, 2 * at + 1, 3 * at, 100_000_000 + round(at * 5e6), 25) for at in (1.0, 2.0, 4.0))
    (line,) = Axis("length", "s of video", points).fitted()
    assert line == "length: +3 CPU s, +2 s and +5 MB a s of video; CPU time goes with its power 1.00"
    assert Axis("length", "s of video", points).rows()[1] == ["1", "3.00", "3.00", "105", "25"]


def test_one_point_has_no_slope() -> None:
    """A machine of one core has one point of the axis `cores`."""
    alone = Axis("cores", "core", (Point(1, 2.0, 3.0, 100_000_000, 25),))
    assert alone.fitted() == []
    assert len(alone.rows()) == 2


def test_a_job_is_run_once(shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two axes that share a point share its run; other lengths, options and cores are jobs of their own."""
    ran: list[tuple[Any, ...]] = []

    def run(video: Path, sound: Path, *more: str, cores: Sequence[int]) -> tuple[dict[str, Any], float]:
        ran.append((more, len(cores)))
        return {"seconds": 1.0, "peak_rss_bytes": 1, "frames": 25}, float(len(ran))

    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    work = Work(tmp_path, full=False)
    monkeypatch.setattr(work, "_run", run)
    first = work.point(1.0, 1.0, SIZE)
    again = work.point(2.0, 1.0, SIZE, cores=2)
    assert (again.at, again.cpu_s) == (2.0, first.cpu_s)
    work.point(1.0, 1.0, SIZE, cores=1)
    work.point(1.0, 1.0, SIZE, "--set", "a=1")
    assert ran == [((), 2), ((), 1), (("--set", "a=1"), 2)]


@pytest.mark.facemodel
def test_a_point_is_a_job_of_its_own(shared_data: Path, tmp_path: Path) -> None:
    point = Work(tmp_path, full=False).point(1.0, 1.0, SIZE, cores=1)
    assert point.at == 1.0
    assert 25 <= point.frames <= 26  # a packet of sound is not cut
    assert point.cpu_s > 0
    assert point.peak_bytes > 10_000_000
