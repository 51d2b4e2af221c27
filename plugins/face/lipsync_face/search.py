"""Finds faces of any size in a frame and picks the one to dub."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from lipsync_face.blazeface import BlazeFace, Detection, merge
from lipsync_face.mesh import FaceMesh, roi_of_detection

Choice = Literal["largest", "left", "right", "centre"] | int

# Sides of the squares searched after the whole frame, as parts of the frame's shorter side. The short-range detector
# needs a face of about a sixth of its square, so the last level finds one of a 24th: 30 px in a 720p frame.
TILE_PARTS: Final = (1.0, 0.5, 0.25)
TILE_STEP: Final = 2 / 3  # squares overlap by a third; larger faces were found at the level before
SMALLEST_TILE: Final = 64  # px; a face found in less would be under 12 px wide
FACE_PRESENT: Final = 0.5  # MediaPipe's threshold on the mesh's own score


def levels(width: int, height: int) -> Iterator[list[tuple[float, float, float]]]:
    """Yield lists of squares (x0, y0, side), coarse to fine; the first level is the whole frame."""
    long, short = max(width, height), min(width, height)
    yield [((width - long) / 2, (height - long) / 2, float(long))]
    for part in TILE_PARTS:
        side = short * part
        if side < SMALLEST_TILE or (part == 1.0 and long == short):
            continue
        yield [(x, y, side) for y in _corners(height, side) for x in _corners(width, side)]


def _corners(length: int, side: float) -> list[float]:
    """Return where squares begin along one axis so that they cover it, evenly."""
    steps = int(np.ceil((length - side) / (side * TILE_STEP))) + 1
    return [float(v) for v in np.linspace(0, length - side, max(steps, 1))]


def find_faces(
    frame: NDArray[np.uint8], detector: BlazeFace, mesh: FaceMesh, *, every_size: bool, deep: bool = True
) -> list[Detection]:
    """Return the faces of a frame uint8 [H, W, 3], each confirmed by the mesh's own score.

    every_size: search all levels and return faces of all sizes; otherwise stop at the first level that has any.
    deep: search the tiles too, not only the whole frame.
    """
    found: list[Detection] = []
    for squares in levels(frame.shape[1], frame.shape[0]):
        seen = merge([face for x, y, side in squares for face in detector.detect(frame, x, y, side)])
        found += [face for face in seen if mesh.locate(frame, roi_of_detection(face))[1] >= FACE_PRESENT]
        if not deep or (found and not every_size):
            break
    return _distinct(merge(found))


def _distinct(faces: list[Detection]) -> list[Detection]:
    """Drop what lies in the middle of a larger face: a part of it taken for a face in a small square."""
    kept: list[Detection] = []
    for face in sorted(faces, key=lambda face: -face.size):
        inside = [(other.box[:2] <= face.centre).all() and (face.centre <= other.box[2:]).all() for other in kept]
        if not any(inside):
            kept.append(face)
    return kept


def choose(faces: list[Detection], choice: Choice, width: int) -> Detection | None:
    """Return the face the user asked for; None where it is not there. A number counts from the left, from 0."""
    if not faces:
        return None
    if choice == "largest":
        return max(faces, key=lambda face: face.size)
    if choice == "centre":
        return min(faces, key=lambda face: abs(face.centre[0] - width / 2))
    across = sorted(faces, key=lambda face: face.centre[0])
    if choice == "left":
        return across[0]
    if choice == "right":
        return across[-1]
    return across[choice] if choice < len(across) else None
