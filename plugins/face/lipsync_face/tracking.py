"""Follows one face through one shot without ever changing to another person."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain, islice
from operator import itemgetter
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lipsync_face.blazeface import BlazeFace, Detection
from lipsync_face.likeness import LIKE, likeness, look
from lipsync_face.mesh import LIPS, MESH_EYES, ROI_SCALE, FaceMesh, Roi, roi_of_detection, roi_of_mesh
from lipsync_face.search import FACE_PRESENT, Choice, choose, find_faces, levels

CHECK_S: Final = 1.0  # how often the detector must confirm that the square still shows a face
FULL_SEARCH_S: Final = 0.5  # how often the costly search of all tiles runs while there is no face
# A face that comes back must be where it could have gone: within this many face sizes, growing with time.
REACH: Final = 0.5
REACH_PER_S: Final = 0.5
REACH_MAX: Final = 0.75  # two people cheek to cheek are one face size apart
SIZE_RATIO: Final = 1.5  # and of about the size it had
LONG_LOST_S: Final = 2.0  # from then on it may be anywhere, if no second person was ever seen in the shot
LONG_LOST_SIZE_RATIO: Final = 2.0
STEP: Final = 0.5  # a face that moves by more than this part of its size in one frame is another one
STEP_SIZE_RATIO: Final = 1.4
SURE: Final = 0.93  # and from which it is the same person wherever it comes back
CROWD_CHECK_S: Final = 0.1  # how often the surroundings are searched where others are in the shot
CROWD_S: Final = 1.0  # how long after another face was near it is still looked who it is
LOOK_S: Final = 0.2  # how often the face is looked at where nobody else is near
REMEMBERED_S: Final = 1.0  # time constant of the memory of a face's look
NEAR_SQUARE: Final = 2.0  # side of the square searched around a place, in regions of interest


class FaceTracker:
    """One shot's state. Call `step` with each frame in order."""

    def __init__(self, detector: BlazeFace, mesh: FaceMesh, choice: Choice, fps: float) -> None:
        self._detector = detector
        self._mesh = mesh
        self._choice = choice
        self._fps = fps
        self._last: Roi | None = None  # where it was seen last; None before the first time
        self._frames_lost = 0
        self._frames_unchecked = 0
        self._alone = True  # nobody else has been seen in this shot
        self._look: NDArray[np.float32] | None = None  # of the face, remembered while nobody else is near
        self._crowded = 0  # frames for which it must be looked who it is

    def step(self, frame: NDArray[np.uint8]) -> NDArray[np.float64] | None:
        """Return the mesh [478, 2] in frame px of the chosen face; None where it is not in this frame."""
        points = self._follow(frame) if self._frames_lost == 0 else None
        if points is None:
            face = self._reacquire(frame, self._last) if self._last is not None else self._first(frame)
            points = self._take_up(frame, face) if face is not None else None
        self._frames_lost = 0 if points is not None else self._frames_lost + 1
        return points if points is not None and _shows_mouth(points, frame) else None

    def _follow(self, frame: NDArray[np.uint8]) -> NDArray[np.float64] | None:
        """Look where the face was in the frame before; None where it is lost."""
        if self._last is None:
            return None
        points, score = self._mesh.locate(frame, self._last)
        after = roi_of_mesh(points)
        if score < FACE_PRESENT or not _same_place(self._last, after) or not self._is_same(frame, points, after):
            return None
        self._frames_unchecked += 1
        if self._frames_unchecked >= CHECK_S * self._fps:
            if self._near(frame, after, REACH) is None:
                return None
            self._frames_unchecked = 0
            self._look_around(frame, after)
        self._last = after
        return points

    def _take_up(self, frame: NDArray[np.uint8], face: Detection) -> NDArray[np.float64] | None:
        """Begin to follow a detected face; None where the mesh finds none there."""
        points, score = self._second_look(frame, face)
        if score < FACE_PRESENT or not self._is_same(frame, points, roi_of_mesh(points)):
            return None
        self._last = roi_of_mesh(points)
        self._frames_unchecked = 0
        self._look_around(frame, self._last)
        return points

    def _second_look(self, frame: NDArray[np.uint8], face: Detection) -> tuple[NDArray[np.float64], float]:
        """Return mesh and score; the detector's square is loose, from the mesh's own it is what following gives."""
        looks = []
        roi = roi_of_detection(face)
        # The detector may take a face that stands on its head for an upright one. The mesh does so too but is surer
        # the right way round: of eleven people at eight angles, by a factor of e⁶ or more of its odds.
        for angle in (roi.angle, roi.angle + np.pi):
            points, _ = self._mesh.locate(frame, replace(roi, angle=angle))
            looks.append(self._mesh.locate(frame, roi_of_mesh(points)))
        return max(looks, key=itemgetter(1))

    def _first(self, frame: NDArray[np.uint8]) -> Detection | None:
        every_size = self._choice != "largest"
        faces = self._search(frame, every_size)
        return choose(faces, self._choice, frame.shape[1])

    def _reacquire(self, frame: NDArray[np.uint8], last: Roi) -> Detection | None:
        lost_s = self._frames_lost / self._fps
        near = self._near(frame, last, min(REACH + REACH_PER_S * lost_s, REACH_MAX))
        if not self._alone and self._frames_lost and self._is_time(FULL_SEARCH_S, self._frames_lost):
            near = self._recognised(frame, last) or near  # who is near may be somebody else, which is asked later
        if near is not None or lost_s < LONG_LOST_S:
            return near
        faces = self._search(frame, every_size=True)
        fits = [face for face in faces if _size_fits(roi_of_detection(face), last, LONG_LOST_SIZE_RATIO)]
        return fits[0] if self._alone and len(fits) == 1 else None

    def _recognised(self, frame: NDArray[np.uint8], last: Roi) -> Detection | None:
        """Return the one face in the frame that looks like the lost one beyond doubt."""
        if self._look is None:
            return None
        sure = []
        for face in self._search(frame, every_size=True):
            roi = roi_of_detection(face)
            if _size_fits(roi, last, LONG_LOST_SIZE_RATIO):
                seen = look(frame, self._second_look(frame, face)[0][list(MESH_EYES)])
                if seen is not None and likeness(seen, self._look) >= SURE:
                    sure.append(face)
        return sure[0] if len(sure) == 1 else None

    def _is_same(self, frame: NDArray[np.uint8], points: NDArray[np.float64], place: Roi) -> bool:
        """Say whether the face is not somebody else's, which is only asked where somebody else is near."""
        if not self._alone:
            if self._is_time(CROWD_CHECK_S, self._frames_unchecked) and self._has_neighbour(frame, place):
                self._crowded = round(CROWD_S * self._fps)
            if self._crowded or self._frames_lost:
                self._crowded = max(0, self._crowded - 1)
                seen = look(frame, points[list(MESH_EYES)])
                return seen is None or self._look is None or likeness(seen, self._look) >= LIKE
        if self._look is None or self._is_time(LOOK_S, self._frames_unchecked):
            seen = look(frame, points[list(MESH_EYES)])
            if seen is not None:
                self._look = seen if self._look is None else self._look + LOOK_S / REMEMBERED_S * (seen - self._look)
        return True

    def _is_time(self, every_s: float, frames: int) -> bool:
        return frames % max(1, round(every_s * self._fps)) == 0

    def _has_neighbour(self, frame: NDArray[np.uint8], own: Roi) -> bool:
        side = NEAR_SQUARE * own.side
        faces = self._detector.detect(frame, own.x - side / 2, own.y - side / 2, side)
        return any(_distance(roi_of_detection(face), own) > REACH * own.side / ROI_SCALE for face in faces)

    def _search(self, frame: NDArray[np.uint8], every_size: bool) -> list[Detection]:
        """Search the whole frame, and its tiles in the first frame and then now and again."""
        deep = self._is_time(FULL_SEARCH_S, self._frames_lost)
        faces = find_faces(frame, self._detector, self._mesh, every_size=every_size, deep=deep)
        self._alone = self._alone and len(faces) < 2
        return faces

    def _look_around(self, frame: NDArray[np.uint8], own: Roi) -> None:
        """Note whether somebody else is in the shot, of a size that the two coarsest levels show."""
        squares = chain.from_iterable(islice(levels(frame.shape[1], frame.shape[0]), 2))
        faces = (roi_of_detection(face) for square in squares for face in self._detector.detect(frame, *square))
        self._alone = self._alone and all(_distance(face, own) <= REACH_MAX * own.side / ROI_SCALE for face in faces)

    def _near(self, frame: NDArray[np.uint8], place: Roi, reach: float) -> Detection | None:
        """Return the detection closest to a place, of about its size and within `reach` face sizes."""
        side = NEAR_SQUARE * place.side
        faces = self._detector.detect(frame, place.x - side / 2, place.y - side / 2, side)
        closest = min(faces, key=lambda face: _distance(roi_of_detection(face), place), default=None)
        if closest is None:
            return None
        roi = roi_of_detection(closest)
        fits = _size_fits(roi, place, SIZE_RATIO) and _distance(roi, place) <= reach * place.side / ROI_SCALE
        return closest if fits else None


def _distance(a: Roi, b: Roi) -> float:
    return float(np.hypot(a.x - b.x, a.y - b.y))


def _size_fits(a: Roi, b: Roi, ratio: float) -> bool:
    return max(a.side, b.side) <= ratio * min(a.side, b.side)


def _same_place(before: Roi, after: Roi) -> bool:
    return _size_fits(before, after, STEP_SIZE_RATIO) and _distance(before, after) <= STEP * before.side / ROI_SCALE


def _shows_mouth(points: NDArray[np.float64], frame: NDArray[np.uint8]) -> bool:
    """Say whether the middle of the lips is in the frame; where it is not, the mesh only guesses."""
    x, y = points[list(LIPS)].mean(axis=0)
    return bool(-0.5 <= x < frame.shape[1] - 0.5 and -0.5 <= y < frame.shape[0] - 0.5)
