"""The fitted slopes say how cost grows, and the points are real jobs."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.scaling import SIZE, Axis, Point, Work


def test_slopes_are_those_of_the_points() -> None:
    points = tuple(Point(at, 2 * at + 1, 3 * at, 100_000_000 + round(at * 5e6), 25) for at in (1.0, 2.0, 4.0))
    (line,) = Axis("length", "s of video", points).fitted()
    assert line == "length: +3 CPU s, +2 s and +5 MB a s of video; CPU time goes with its power 1.00"
    assert Axis("length", "s of video", points).rows()[1] == ["1", "3.00", "3.00", "105", "25"]


@pytest.mark.facemodel
def test_a_point_is_a_job_of_its_own(shared_data: Path, tmp_path: Path) -> None:
    point = Work(tmp_path, full=False).point(1.0, 1.0, SIZE, cores=1)
    assert point.at == 1.0
    assert 25 <= point.frames <= 26  # a packet of sound is not cut
    assert point.cpu_s > 0
    assert point.peak_bytes > 10_000_000
