"""MediaPipe's face mesh (478 points) on a rotated square around a face, run by OpenCV's DNN module.

Model: `face_landmarks_detector.tflite` of the Face Landmarker task (Apache-2.0), Grishchenko et al.,
"Attention Mesh", 2020. Region of interest as in MediaPipe's graphs: the box of the points, turned upright by the line
between the outer eye corners, made square by its longer side and enlarged 1.5 times.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from lipsync_face.blazeface import EYE_LEFT, EYE_RIGHT, Detection
from lipsync_face.dnn import TfliteNet, sigmoid

INPUT_SIDE: Final = 256
OUTPUTS: Final = ("Identity", "Identity_1")  # points, and the logit that there is a face
POINTS: Final = 478
FACE_POINTS: Final = 468  # the rest are the irises
ROI_SCALE: Final = 1.5
MESH_EYE_OUTER_LEFT: Final = 33  # the image's left
MESH_EYE_OUTER_RIGHT: Final = 263
MESH_EYES: Final = (MESH_EYE_OUTER_LEFT, MESH_EYE_OUTER_RIGHT)

# fmt: off
# The mesh vertex nearest to each of the 68 iBUG points, read off the canonical face model and checked by drawing.
# Jaw: vertices of the face oval from the height of the eye corners to the chin and up again, as evenly as they come.
MESH_TO_IBUG: Final = (
    127, 234, 93, 132, 58, 172, 150, 176, 152, 400, 379, 397, 288, 361, 323, 454, 356,  # jaw
    70, 63, 105, 66, 107, 336, 296, 334, 293, 300,  # brows, upper edge
    168, 197, 5, 1, 98, 97, 2, 326, 327,  # nose bridge, nose base
    33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380,  # eyes
    61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181,  # outer lip
    78, 81, 13, 311, 308, 402, 14, 178,  # inner lip
)
# fmt: on
LIPS: Final = MESH_TO_IBUG[48:]


@dataclass(frozen=True, slots=True)
class Roi:
    """A rotated square: middle (x, y) and side in frame px, angle in radians from the frame's x axis."""

    x: float
    y: float
    side: float
    angle: float

    def to_frame(self) -> NDArray[np.float64]:
        """Return the affine [2, 3] from input pixels of the network to frame pixels, centres at whole numbers."""
        scale = self.side / INPUT_SIDE
        cos, sin = np.cos(self.angle) * scale, np.sin(self.angle) * scale
        middle = (INPUT_SIDE - 1) / 2
        return np.array(
            [
                [cos, -sin, self.x - middle * (cos - sin)],
                [sin, cos, self.y - middle * (sin + cos)],
            ]
        )


def roi_of_detection(face: Detection) -> Roi:
    """Return the square that MediaPipe's graph derives from a detection."""
    x, y = face.points[EYE_RIGHT] - face.points[EYE_LEFT]
    return Roi(float(face.centre[0]), float(face.centre[1]), ROI_SCALE * face.size, float(np.arctan2(y, x)))


def roi_of_mesh(points: NDArray[np.float64]) -> Roi:
    """Return the square for the next frame from the mesh [478, 2] of this one, frame px."""
    x, y = points[MESH_EYE_OUTER_RIGHT] - points[MESH_EYE_OUTER_LEFT]
    angle = float(np.arctan2(y, x))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    upright = points[:FACE_POINTS] @ turn
    low, high = upright.min(axis=0), upright.max(axis=0)
    cx, cy = turn @ ((low + high) / 2)
    return Roi(float(cx), float(cy), ROI_SCALE * float((high - low).max()), angle)


class FaceMesh:
    """478 points and a score in a region of interest."""

    def __init__(self, model: Path) -> None:
        self._net = TfliteNet(model, OUTPUTS)

    def locate(self, frame: NDArray[np.uint8], roi: Roi) -> tuple[NDArray[np.float64], float]:
        """Return points float64 [478, 2] in frame px and the probability 0…1 that the square shows a face.

        frame: uint8 [H, W, 3] RGB; outside it counts as black.
        """
        to_frame = roi.to_frame()
        image = cv2.warpAffine(frame, to_frame, (INPUT_SIDE, INPUT_SIDE), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
        points, logit = self._net.run(cv2.dnn.blobFromImage(image, 1 / 255))
        local = points.reshape(POINTS, 3)[:, :2].astype(np.float64) - 0.5
        return local @ to_frame[:, :2].T + to_frame[:, 2], float(sigmoid(logit.reshape(-1))[0])
