"""The rules of following one person, with a detector and a mesh that read a script instead of a picture."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from lipsync_face.blazeface import Detection
from lipsync_face.mesh import POINTS, Roi
from lipsync_face.search import Choice, choose, levels
from lipsync_face.tracking import FaceTracker

FPS = 25.0
WIDTH, HEIGHT = 1280, 720
Face = tuple[float, float, float]  # middle x, y and size, px


class Script:
    """Stands for detector and mesh: frame k shows the faces of row k."""

    def __init__(self, rows: list[list[Face]], *, mesh_sees: bool = True) -> None:
        self.rows = rows
        self.mesh_sees = mesh_sees
        self.detections = 0

    def frames(self) -> list[NDArray[np.uint8]]:
        frames = []
        for k in range(len(self.rows)):
            frame = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
            frame[0, 0, :2] = divmod(k, 256)
            frames.append(frame)
        return frames

    def _faces(self, frame: NDArray[np.uint8]) -> list[Face]:
        return self.rows[int(frame[0, 0, 0]) * 256 + int(frame[0, 0, 1])]

    def detect(self, frame: NDArray[np.uint8], x0: float, y0: float, side: float) -> list[Detection]:
        self.detections += 1
        found = []
        for x, y, size in self._faces(frame):
            if x0 < x < x0 + side and y0 < y < y0 + side and side / 6 < size <= side:
                box = np.array([x - size / 2, y - size / 2, x + size / 2, y + size / 2])
                eyes = np.array([[x - size / 4, y], [x + size / 4, y]])
                found.append(Detection(box, np.concatenate([eyes, np.full((4, 2), (x, y))]), 0.9))
        return found

    def locate(self, frame: NDArray[np.uint8], roi: Roi) -> tuple[NDArray[np.float64], float]:
        near = [f for f in self._faces(frame) if np.hypot(f[0] - roi.x, f[1] - roi.y) < roi.side / 3]
        near = [f for f in near if 0.4 < roi.side / (1.5 * f[2]) < 2.5]
        x, y, size = near[0] if near and self.mesh_sees else (roi.x, roi.y, roi.side)
        points = np.full((POINTS, 2), (float(x), float(y)))
        points[:4] += np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * size / 2
        points[33], points[263] = (x - size / 4, y), (x + size / 4, y)
        return points, 0.99 if near and self.mesh_sees else 0.01


def follow(rows: list[list[Face]], choice: Choice = "largest") -> list[float | None]:
    """Return the x of the followed face in each frame, None where it is lost."""
    script = Script(rows)
    tracker = FaceTracker(script, script, choice, FPS)  # type: ignore[arg-type]
    points = [tracker.step(frame) for frame in script.frames()]
    return [None if p is None else float(p[0, 0] + p[2, 0]) / 2 for p in points]


ANNA: Face = (300, 360, 160)
BEN: Face = (520, 360, 150)


def test_a_moving_face_is_followed_without_detecting_again() -> None:
    rows = [[(300.0 + 8 * k, 360.0, 160.0)] for k in range(20)]
    script = Script(rows)
    tracker = FaceTracker(script, script, "largest", FPS)  # type: ignore[arg-type]
    first, *rest = script.frames()
    assert tracker.step(first) is not None
    before = script.detections
    assert all(tracker.step(frame) is not None for frame in rest)
    assert script.detections == before


def test_a_face_that_hides_is_found_again_at_once() -> None:
    rows = [[ANNA]] * 5 + [[]] * 7 + [[ANNA]] * 5
    assert follow(rows) == [300] * 5 + [None] * 7 + [300] * 5


def test_the_neighbour_is_not_taken_while_the_chosen_one_hides() -> None:
    rows = [[ANNA, BEN]] * 5 + [[BEN]] * 200 + [[ANNA, BEN]] * 5
    assert follow(rows) == [300] * 5 + [None] * 200 + [300] * 5


def test_the_neighbour_is_not_taken_where_the_chosen_one_leaves() -> None:
    leaving = [[(300.0 - 20 * k, 360.0, 160.0), BEN] for k in range(15)]
    seen = follow(leaving + [[BEN]] * 150)
    assert seen[:15] == [300 - 20 * k for k in range(15)]
    assert set(seen[15:]) == {None}


def test_a_much_larger_face_at_the_same_place_is_another_person() -> None:
    rows = [[ANNA]] * 5 + [[]] * 3 + [[(300.0, 360.0, 420.0)]] * 10
    assert set(follow(rows)[5:]) == {None}


def test_someone_alone_in_the_shot_may_come_back_elsewhere_after_long() -> None:
    back: list[list[Face]] = [[(900.0, 300.0, 150.0)]] * 30
    short = follow([[ANNA]] * 5 + [[]] * 10 + back[:20])
    assert set(short[5:]) == {None}
    long = follow([[ANNA]] * 5 + [[]] * 60 + back)
    assert set(long[5:65]) == {None}
    assert long[-1] == 900


def test_whoever_stays_behind_is_not_taken_for_the_one_who_left() -> None:
    """Ben is smaller, so the first search, which ends with Anna, does not show him."""
    anna: Face = (300, 360, 300)
    ben: Face = (900, 360, 160)
    seen = follow([[anna, ben]] * 5 + [[ben]] * 150)
    assert set(seen[5:]) == {None}


def test_two_strangers_after_a_long_loss_are_both_left_alone() -> None:
    rows = [[ANNA]] * 5 + [[]] * 60 + [[(900.0, 300.0, 150.0), (600.0, 300.0, 150.0)]] * 20
    assert set(follow(rows)[5:]) == {None}


def test_a_square_that_slips_to_another_face_counts_as_lost() -> None:
    rows = [[ANNA]] * 5 + [[(300.0 + 130, 360.0, 160.0)]] + [[(300.0 + 130, 360.0, 160.0)]] * 3
    script = Script(rows)
    tracker = FaceTracker(script, script, "largest", FPS)  # type: ignore[arg-type]
    frames = script.frames()
    for frame in frames[:5]:
        tracker.step(frame)
    before = script.detections
    tracker.step(frames[5])
    assert script.detections > before


def test_what_the_detector_does_not_confirm_is_let_go() -> None:
    """The mesh may cling to something that is no face; once a second the detector is asked."""
    script = Script([[ANNA]] * 80)
    tracker = FaceTracker(script, script, "largest", FPS)  # type: ignore[arg-type]
    frames = script.frames()
    assert tracker.step(frames[0]) is not None
    script.detect = lambda *args: []  # type: ignore[method-assign]
    seen = [tracker.step(frame) is not None for frame in frames[1:]]
    assert seen[:24] == [True] * 24
    assert not any(seen[24:])


def test_a_detection_that_the_mesh_does_not_confirm_is_no_face() -> None:
    script = Script([[ANNA]] * 3, mesh_sees=False)
    tracker = FaceTracker(script, script, "largest", FPS)  # type: ignore[arg-type]
    assert [tracker.step(frame) for frame in script.frames()] == [None] * 3


def test_a_face_that_appears_later_is_found() -> None:
    large: Face = (300, 360, 300)
    seen = follow([[]] * 10 + [[large]] * 30)
    assert seen[:10] == [None] * 10
    assert seen[10:] == [300] * 30  # large: every frame is searched whole
    small: Face = (300, 360, 60)
    seen = follow([[]] * 10 + [[small]] * 30)
    assert seen[25:] == [300] * 15  # small: the tiles are searched twice a second


@pytest.mark.parametrize(
    ("choice", "x"), [("largest", 600), ("left", 200), ("right", 1100), ("centre", 600), (0, 200), (1, 600), (2, 1100)]
)
def test_the_user_chooses(choice: Choice, x: float) -> None:
    rows: list[list[Face]] = [[(600, 300, 220), (1100, 300, 60), (200, 300, 70)]] * 3
    assert follow(rows, choice) == [x] * 3


def test_a_number_beyond_the_faces_there_are_finds_none() -> None:
    assert follow([[ANNA, BEN]] * 3, 2) == [None] * 3
    assert choose([], "largest", 100) is None


@pytest.mark.parametrize(("width", "height"), [(1280, 720), (1080, 1920), (361, 287), (512, 512), (16, 16), (1, 1)])
def test_every_level_covers_the_frame(width: int, height: int) -> None:
    found = list(levels(width, height))
    assert len(found) >= 1
    for squares in found:
        covered = np.zeros((height, width), np.bool_)
        for x, y, side in squares:
            x0, y0 = max(0, round(x)), max(0, round(y))
            covered[y0 : round(y + side), x0 : round(x + side)] = True
        assert covered.all()
    # A face up to a third of a small square is whole in one of them, wherever it is.
    for squares in found[1:]:
        side = squares[0][2]
        for axis, length in ((0, width), (1, height)):
            starts = sorted({square[axis] for square in squares})
            steps = np.diff(starts) if len(starts) > 1 else np.zeros(1)
            assert steps.max() <= side * 2 / 3 + 1e-6
            assert starts[-1] + side == pytest.approx(length)
