"""Made-up shots of real faces: each is cut out of its clip and put where a script wants it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from lipsync_core import landmarks as lm

WIDTH: Final = 640
HEIGHT: Final = 360


@dataclass(frozen=True, slots=True)
class Place:
    """Where a face is in one frame: its middle and its height from brow to chin, px; turned by `angle` degrees."""

    x: float = WIDTH / 2
    y: float = 190
    height: float = 110
    angle: float = 0.0


Script = Callable[[int], Place | None]


@dataclass(frozen=True, slots=True)
class Person:
    """Frames uint8 [n, H, W, 3] of somebody who moves little, and the points [n, 68, 2] of the face in them."""

    frames: NDArray[np.uint8]
    points: NDArray[np.float64]

    @property
    def height(self) -> float:
        """From brow to chin in the first frame, px."""
        return float(self.points[0, lm.CHIN, 1] - self.points[0, lm.BROW_LEFT, 1].mean())

    @property
    def middle(self) -> tuple[float, float]:
        """Of the face in the first frame, px."""
        return float(self.points[0, :, 0].mean()), float(self.points[0, lm.CHIN, 1]) - self.height / 2

    def matrix(self, place: Place) -> NDArray[np.float64]:
        """Return the affine [2, 3] from the clip's pixels to where the face is put."""
        matrix = np.asarray(cv2.getRotationMatrix2D(self.middle, place.angle, place.height / self.height), np.float64)
        matrix[:, 2] += place.x - self.middle[0], place.y - self.middle[1]
        return matrix

    def points_at(self, k: int, place: Place) -> NDArray[np.float64]:
        """Return where the 68 points are in the made-up frame k."""
        matrix = self.matrix(place)
        points: NDArray[np.float64] = self.points[k % len(self.points)] @ matrix[:, :2].T + matrix[:, 2]
        return points

    def put(self, canvas: NDArray[np.uint8], k: int, place: Place, *, still: bool = False) -> None:
        """Paint the head into a frame uint8 [H, W, 3]; `still` shows the same picture always, as a photo does."""
        frame, (x, y), size = self.frames[0 if still else k % len(self.frames)], self.middle, self.height
        head = np.zeros(frame.shape[:2], np.float32)
        cv2.ellipse(head, ((x, y - 0.15 * size), (1.5 * size, 2.2 * size), 0.0), (1.0,), -1)
        head = cv2.GaussianBlur(head, (0, 0), size / 25)
        # Minified in one step a face is aliased: the picture is made smooth enough first.
        shrink = size / place.height
        smooth = cv2.GaussianBlur(frame, (0, 0), 0.4 * shrink) if shrink > 1.2 else frame
        matrix, shape = self.matrix(place), canvas.shape[1::-1]
        there = cv2.warpAffine(smooth, matrix, shape, borderMode=cv2.BORDER_REPLICATE)
        cover = cv2.warpAffine(head, matrix, shape)[..., None]
        canvas[:] = np.rint(canvas + cover * (there.astype(np.float32) - canvas)).astype(np.uint8)


Cast = Sequence[tuple[Person, Script]]


def shot(
    n: int, cast: Cast, *, size: tuple[int, int] = (WIDTH, HEIGHT), photo: Person | None = None
) -> NDArray[np.uint8]:
    """Return frames uint8 [n, H, W, 3] of these people, the last in front; `photo` is one who never moves."""
    frames = np.empty((n, size[1], size[0], 3), np.uint8)
    rows = np.linspace(80, 130, size[1])[:, None, None]
    for k, frame in enumerate(frames):
        frame[:] = rows * [0.9, 1.0, 1.05]
        for person, script in cast:
            place = script(k)
            if place is not None:
                person.put(frame, k, place, still=person is photo)
    return frames


def still(x: float = WIDTH / 2, height: float = 110, y: float = 190, angle: float = 0) -> Script:
    """Always at one place."""
    return lambda k: Place(x, y, height, angle)


def walk(x0: float, x1: float, n: int, height: float = 110, first: int = 0) -> Script:
    """Go from one side to the other in n frames from `first` on, and stay there."""
    return lambda k: Place(x0 + (x1 - x0) * min(max(k - first, 0) / (n - 1), 1), height=height)


def there_and_back(x0: float, x1: float, n: int) -> Script:
    """Go to x1 and back in n frames."""
    return lambda k: Place(x0 + (x1 - x0) * (1 - abs(2 * k / (n - 1) - 1)))


def during(script: Script, *ranges: tuple[int, int]) -> Script:
    """Be there in these frames alone."""
    return lambda k: script(k) if any(a <= k < b for a, b in ranges) else None


class Mask:
    """A face of one frame as a surface in space, to be seen from the side."""

    def __init__(self, square: NDArray[np.uint8], points: NDArray[np.float64]) -> None:
        """`square`: uint8 [S, S, 3]; `points`: [m, 3] in its px, the third the depth, less being nearer."""
        self._square = square
        self._points = points - [0, 0, np.percentile(points[:, 2], 95)]
        plane = cv2.Subdiv2D((-10, -10, len(square) + 20, len(square) + 20))
        flat = points[:, :2].astype(np.float32)
        plane.insert([(float(x), float(y)) for x, y in flat])
        corners = plane.getTriangleList().reshape(-1, 3, 2)
        off = np.abs(corners[:, :, None] - flat).max(axis=-1)
        self._triangles = off.argmin(axis=-1)[off.min(axis=-1).max(axis=-1) < 0.01]

    def turned(self, degrees: float, height: float) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
        """Return a frame of the face, `height` px from end to end, on a plain head, and its points [m, 2]."""
        canvas = np.full((HEIGHT, WIDTH, 3), (90, 104, 110), np.uint8)
        cv2.ellipse(canvas, ((WIDTH / 2 - 25 * np.sin(np.deg2rad(degrees)), 165), (150, 210), 0), (90, 70, 60), -1)
        cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
        x, y, z = (self._points - [*(np.array(self._square.shape[1::-1]) / 2), 0]).T
        depth = cos * z - sin * x
        points = np.stack([cos * x + sin * z, y], axis=1) * height / np.ptp(y) + [WIDTH / 2, 190]
        for triangle in self._triangles[np.argsort(-depth[self._triangles].mean(axis=1))]:
            source, goal = self._points[triangle, :2].astype(np.float32), points[triangle].astype(np.float32)
            if np.sign(np.linalg.det(source[1:] - source[0])) != np.sign(np.linalg.det(goal[1:] - goal[0])):
                continue  # seen from behind
            x0, y0 = np.floor(goal.min(axis=0)).astype(int) - 1
            x1, y1 = np.ceil(goal.max(axis=0)).astype(int) + 2
            inside = goal - np.array([x0, y0], np.float32)
            skin = cv2.warpAffine(self._square, cv2.getAffineTransform(source, inside), (int(x1 - x0), int(y1 - y0)))
            cover = np.zeros(skin.shape[:2], np.uint8)
            cv2.fillConvexPoly(cover, np.rint(inside * 16).astype(np.int32), (255,), shift=4)
            canvas[y0:y1, x0:x1][cover > 0] = skin[cover > 0]
        return canvas, points
