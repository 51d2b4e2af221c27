"""Head pose from 2-D landmarks, and the head-fixed frame mouth shapes are measured in.

The head is taken as the generic rigid face below seen by a scaled-orthographic camera:
`p = scale * R[:2] @ (x, y, depth) + origin`. Only two coordinates are seen, so the depth of every landmark is the
generic face's; with it the projection can be undone exactly, and redone.

The face is the canonical face model of MediaPipe (google-ai-edge/mediapipe, Apache-2.0,
mediapipe/modules/face_geometry/data/canonical_face_model.obj): its vertices nearest to the 68 landmarks, rounded, from
centimetres to units of its outer eye corner distance (2 × 4.446 cm), y turned downwards, depth growing away from the
camera. Only rigid points (eye corners, nose) take part in the fit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lipsync_core import landmarks as lm

Floats = NDArray[np.float64]

_EYE_DISTANCE_CM: Final = 8.892

# x, y, z of the model in cm, image-left half and midline only; the other half mirrors it.
_HALF_CM: Final[dict[int, tuple[float, float, float]]] = {
    # the face's edge, then the chin
    0: (-7.74, 2.36, -2.01),
    1: (-7.66, 0.67, -2.44),
    2: (-7.27, -2.89, -2.25),
    3: (-6.72, -4.79, -1.75),
    4: (-5.94, -6.22, -0.63),
    5: (-5.09, -7.18, 0.71),
    6: (-3.21, -8.53, 2.80),
    7: (-1.29, -9.30, 4.09),
    8: (0.0, -9.40, 4.26),
    # brow
    17: (-5.59, 5.72, 2.72),
    18: (-4.59, 4.30, 4.05),
    19: (-3.52, 5.11, 4.47),
    20: (-2.76, 5.10, 5.02),
    21: (-1.22, 4.14, 5.11),
    # nose
    27: (0.0, 3.27, 5.24),
    28: (0.0, 1.73, 6.32),
    29: (0.0, 0.37, 7.24),
    30: (0.0, -0.46, 7.59),
    31: (-1.41, -1.71, 5.24),
    32: (-0.60, -2.01, 5.87),
    33: (0.0, -2.09, 6.06),
    # eye
    36: (-4.45, 2.66, 3.17),
    37: (-3.68, 2.93, 3.72),
    38: (-2.29, 2.89, 3.78),
    39: (-1.86, 2.59, 3.76),
    40: (-2.29, 2.40, 3.70),
    41: (-3.67, 2.36, 3.64),
    # lips
    48: (-2.46, -4.34, 4.28),
    49: (-1.91, -3.80, 5.03),
    50: (-0.71, -3.33, 5.88),
    51: (0.0, -3.41, 5.98),
    57: (0.0, -5.37, 5.54),
    58: (-1.33, -5.11, 5.21),
    59: (-1.84, -4.83, 4.82),
    60: (-2.05, -4.28, 4.04),
    61: (-1.02, -3.99, 4.93),
    62: (0.0, -3.99, 5.22),
    66: (0.0, -4.54, 5.40),
    67: (-1.10, -4.46, 5.12),
}
# landmark on the image's right -> its mirror on the left, in the numbering of lipsync_core.landmarks
_MIRROR: Final[dict[int, int]] = {
    **{16 - k: k for k in range(8)},
    **{26 - k: 17 + k for k in range(5)},
    **{35: 31, 34: 32},
    **{45: 36, 44: 37, 43: 38, 42: 39, 47: 40, 46: 41},
    **{54: 48, 53: 49, 52: 50, 56: 58, 55: 59, 64: 60, 63: 61, 65: 67},
}

RIGID: Final[tuple[int, ...]] = (
    lm.EYE_OUTER_LEFT,
    lm.EYE_INNER_LEFT,
    lm.EYE_INNER_RIGHT,
    lm.EYE_OUTER_RIGHT,
    27,  # nasion
    lm.NOSE_TIP,
    31,
    lm.NOSE_BOTTOM,
    35,
)
_ITERATIONS: Final = 6  # Gauss-Newton from the affine solution; the step is below 1e-6 after four on real faces
_TEMPLATE_ROUNDS: Final = 3
_TEMPLATE_FRAMES: Final = 512  # evenly spread; a median needs no more
_BLOCK: Final = 2048  # faces fitted at once, so that memory does not grow with the video


def _generic_face() -> Floats:
    face = np.zeros((lm.COUNT, 3))
    for index, point in _HALF_CM.items():
        face[index] = point
    for right, left in _MIRROR.items():
        face[right] = face[left] * (-1.0, 1.0, 1.0)
    from_nose: Floats = (face - face[lm.NOSE_BOTTOM]) * (1.0, -1.0, -1.0) / _EYE_DISTANCE_CM
    return from_nose


GENERIC_FACE: Final[Floats] = _generic_face()
"""float64 [68, 3]: x right, y down, depth away from the camera; from under the nose; in outer eye distances."""


@dataclass(frozen=True, slots=True)
class HeadPose:
    """Pose of n heads: `scale` [n] px a unit, `rotation` [n, 3, 3], `origin` [n, 2] px (the point under the nose)."""

    scale: Floats
    rotation: Floats
    origin: Floats

    def __len__(self) -> int:
        return len(self.scale)

    def __getitem__(self, rows: slice | NDArray[np.intp] | NDArray[np.bool_]) -> HeadPose:
        """Return the poses of some rows."""
        return HeadPose(self.scale[rows], self.rotation[rows], self.origin[rows])


def fit_pose(landmarks: NDArray[np.float32] | Floats, template: Floats = GENERIC_FACE) -> HeadPose:
    """Fit the pose of each face, least squares over the rigid points.

    landmarks: [n, 68, 2] px, without NaN at the points of `RIGID`. template: [68, 3] as `GENERIC_FACE`.
    The affine camera's closed form starts a Gauss-Newton over (rotation, log scale, origin).
    """
    parts = [_fit(landmarks[first : first + _BLOCK], template) for first in range(0, max(len(landmarks), 1), _BLOCK)]
    return HeadPose(
        np.concatenate([part.scale for part in parts]),
        np.concatenate([part.rotation for part in parts]),
        np.concatenate([part.origin for part in parts]),
    )


def _fit(landmarks: NDArray[np.float32] | Floats, template: Floats) -> HeadPose:
    points = np.asarray(landmarks, np.float64)[:, RIGID]
    model = template[list(RIGID)]
    homogeneous = np.concatenate([model, np.ones((len(model), 1))], axis=1)
    affine = np.einsum("kp,npc->nck", np.linalg.pinv(homogeneous), points)  # [n, 2, 4]
    rows, origin = affine[:, :, :3], affine[:, :, 3].copy()
    left, singular, right = np.linalg.svd(rows, full_matrices=False)
    scale = np.maximum(singular.mean(axis=1), 1e-9)
    first = np.einsum("nij,njk->nik", left, right)
    rotation = np.concatenate([first, np.cross(first[:, 0], first[:, 1])[:, None]], axis=1)
    for _ in range(_ITERATIONS):
        turned = np.einsum("nij,pj->npi", rotation, model)
        residual = scale[:, None, None] * turned[:, :, :2] + origin[:, None] - points
        jacobian = np.zeros((*residual.shape, 6))
        x, y, z = turned[..., 0], turned[..., 1], turned[..., 2]
        s = scale[:, None]
        jacobian[:, :, 0, 1], jacobian[:, :, 0, 2] = s * z, -s * y  # of omega × turned
        jacobian[:, :, 1, 0], jacobian[:, :, 1, 2] = -s * z, s * x
        jacobian[:, :, :, 3] = s[..., None] * turned[:, :, :2]
        jacobian[:, :, 0, 4] = jacobian[:, :, 1, 5] = 1.0
        flat = jacobian.reshape(len(points), -1, 6)
        normal = np.einsum("nri,nrj->nij", flat, flat) + 1e-9 * s[..., None] ** 2 * np.eye(6)
        gradient = np.einsum("nri,nr->ni", flat, residual.reshape(len(points), -1))
        step = -np.linalg.solve(normal, gradient[..., None])[..., 0]
        rotation = _rotation(step[:, :3]) @ rotation
        scale = scale * np.exp(np.clip(step[:, 3], -1.0, 1.0))
        origin = origin + step[:, 4:]
    return HeadPose(scale, rotation, origin)


def personal_template(landmarks: NDArray[np.float32] | Floats) -> Floats:
    """Return the generic face with this person's own rigid points, x and y, where the head frame shows them on average.

    landmarks: [n, 68, 2] px of one person. Depths stay the generic face's, and so does the outer eye corners' distance.
    """
    template = GENERIC_FACE.copy()
    rigid = list(RIGID)
    landmarks = landmarks[:: -(-len(landmarks) // _TEMPLATE_FRAMES)]
    for _ in range(_TEMPLATE_ROUNDS):
        seen = np.median(to_head(landmarks, fit_pose(landmarks, template))[:, rigid], axis=0)
        seen -= seen.mean(axis=0) - template[rigid, :2].mean(axis=0)
        width = np.linalg.norm(seen[rigid.index(lm.EYE_OUTER_RIGHT)] - seen[rigid.index(lm.EYE_OUTER_LEFT)])
        template[rigid, :2] = seen / max(float(width), 1e-9)
    return template


def to_head(landmarks: NDArray[np.float32] | Floats, pose: HeadPose) -> Floats:
    """Undo pose: px [n, 68, 2] to the head frame [n, 68, 2] (x right, y down, unit: outer eye corners' distance)."""
    flat = (np.asarray(landmarks, np.float64) - pose.origin[:, None]) / pose.scale[:, None, None]
    flat = flat - GENERIC_FACE[None, :, 2:] * pose.rotation[:, None, :2, 2]
    head: Floats = np.einsum("nij,npj->npi", np.linalg.inv(pose.rotation[:, :2, :2]), flat)
    return head


def to_image(head: Floats, pose: HeadPose) -> Floats:
    """Undo `to_head`: the head frame [n, 68, 2] to px [n, 68, 2]."""
    turned = np.einsum("nij,npj->npi", pose.rotation[:, :2, :2], head)
    turned = turned + GENERIC_FACE[None, :, 2:] * pose.rotation[:, None, :2, 2]
    points: Floats = pose.scale[:, None, None] * turned + pose.origin[:, None]
    return points


def angle_between(first: Floats, second: Floats) -> Floats:
    """Return the angle in degrees between rotations [a, 3, 3] and [b, 3, 3], as [a, b]."""
    trace = first.reshape(len(first), 9) @ second.reshape(len(second), 9).T
    angle: Floats = np.degrees(np.arccos(np.clip((trace - 1.0) / 2.0, -1.0, 1.0)))
    return angle


def _rotation(vector: Floats) -> Floats:
    """Return the rotations [n, 3, 3] of rotation vectors [n, 3] (Rodrigues' formula)."""
    angle = np.linalg.norm(vector, axis=1)[:, None, None]
    cross = np.zeros((len(vector), 3, 3))
    cross[:, 0, 1], cross[:, 0, 2], cross[:, 1, 2] = -vector[:, 2], vector[:, 1], -vector[:, 0]
    cross -= cross.transpose(0, 2, 1)
    safe = np.maximum(angle, 1e-12)
    sine, cosine = np.sin(angle) / safe, (1.0 - np.cos(angle)) / safe**2
    rotation: Floats = np.eye(3) + sine * cross + cosine * (cross @ cross)
    return rotation
