"""What LatentSync does with InsightFace's 106 points, exact: three points, their fit, and its smoothing.

Source: latentsync/utils/face_detector.py, image_processor.py and affine_transform.py of the reference (FACTS §6).
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from lipsync_face.geometry import fit_similarity

# Its three points are means of these: the brow on the image's left, the other one, the nose.
BROW_LEFT_106: Final = (43, 48, 49, 51, 50)
BROW_RIGHT_106: Final = (101, 102, 103, 104, 105)
NOSE_106: Final = (74, 77, 83, 86)

NOSE: Final = 2  # of the three points, the one whose misfit is smoothed
BIAS_KEPT: Final = 0.2  # of the bias before

# fmt: off
# The point of InsightFace's 2d106det that lies where each of the 68 iBUG points does. Read off its published mark-up
# (deepinsight/insightface, alignment/coordinate_reg); its jaw has 33 points, of which every other one is taken.
INSIGHT_TO_IBUG: Final = (
    1, 10, 12, 14, 16, 3, 5, 7, 0, 23, 21, 19, 32, 30, 28, 26, 17,  # jaw
    43, 48, 49, 51, 50, 102, 103, 104, 105, 101,  # brows
    72, 73, 74, 86, 78, 79, 80, 85, 84,  # nose bridge, nose base
    35, 41, 42, 39, 37, 36, 89, 95, 96, 93, 91, 90,  # eyes
    52, 64, 63, 71, 67, 68, 61, 58, 59, 53, 56, 55,  # outer lip
    65, 66, 62, 70, 69, 57, 60, 54,  # inner lip
)
# fmt: on


def three_points_106(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return both brows' and the nose's middle [n, 3, 2] of InsightFace's points [n, 106, 2]."""
    groups = (BROW_LEFT_106, BROW_RIGHT_106, NOSE_106)
    return np.stack([points[:, group].mean(axis=1) for group in groups], axis=1)


def rounded_three_points(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the three points [n, 3, 2] as LatentSync has them: the 106 rounded, and their means again, half to even.

    The groups hold five, five and four points, so only the nose's mean can lie on a half.
    """
    return np.rint(three_points_106(np.rint(points)))


def biased_fit(
    points: NDArray[np.float64], template: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the similarities [n, 2, 3] that carry three points [n, 3, 2] to a template [3, 2], and the biases [n, 2].

    The bias is how far the nose misses its place, both sets made to mean 0 and standard deviation 1; smoothed over
    the frames, it is added to the translation in px. The units do not match: it moves the crop by .1 to .3 px.
    """
    matrices = fit_similarity(points, template)
    misfits = _normalised(template)[NOSE] - _normalised(points)[:, NOSE]
    biases = np.empty_like(misfits)
    for row, misfit in enumerate(misfits):
        biases[row] = misfit if row == 0 else BIAS_KEPT * biases[row - 1] + (1 - BIAS_KEPT) * misfit
    matrices[:, :, 2] += biases
    return matrices, biases


def _normalised(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Centre points [..., k, 2] and divide them by the standard deviation of all their coordinates."""
    centred = points - points.mean(axis=-2, keepdims=True)
    scale = np.sqrt((centred**2).sum(axis=(-2, -1), keepdims=True) / (2 * points.shape[-2] - 1))
    normalised: NDArray[np.float64] = centred / scale
    return normalised
