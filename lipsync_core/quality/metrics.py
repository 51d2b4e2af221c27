"""How good a dub is, in numbers: pure functions of landmarks and pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from lipsync_core import landmarks as lm

Floats = NDArray[np.float64]
Box = tuple[int, int, int, int]
"""x, y, width, height, px."""

LAG_LIMIT: Final = 5  # frames searched each way
BOX_MARGIN: Final = 0.3  # of the mouth box around the lips, in outer eye corners' distances


def mouth_opening(landmarks: NDArray[Any]) -> Floats:
    """Return the inner lips' distance at the middle over the outer eye corners' distance, [n], no unit.

    landmarks: [n, 68, 2] px, the set of `lipsync_core.landmarks`. Does not depend on the picture's size nor on the
    head's tilt in the picture.
    """
    points = np.asarray(landmarks, np.float64)
    gap = np.linalg.norm(points[:, lm.LOWER_LIP_INNER] - points[:, lm.UPPER_LIP_INNER], axis=1)
    eyes = np.linalg.norm(points[:, lm.EYE_OUTER_RIGHT] - points[:, lm.EYE_OUTER_LEFT], axis=1)
    opening: Floats = gap / eyes
    return opening


def lip_distance(first: NDArray[Any], second: NDArray[Any]) -> float:
    """Return the mean distance of two mouths' lip points, in hundredths of the outer eye corners' distance.

    first, second: [n, 68, 2] px, of heads anywhere in their pictures. Each head is turned level and brought to one
    size, each mouth put on its middle, and each speaker's mean mouth taken off, so that only the movement counts. As
    the landmark distance of Chen et al., "Lip Movements Generation at a Glance" (2018), made fit for two heads.
    """
    apart = _level_lips(first) - _level_lips(second)
    return 100 * float(np.linalg.norm(apart, axis=-1).mean())


def _level_lips(landmarks: NDArray[Any]) -> Floats:
    points = np.asarray(landmarks, np.float64)
    across = points[:, lm.EYE_OUTER_RIGHT] - points[:, lm.EYE_OUTER_LEFT]
    lips = points[:, lm.LIPS] - points[:, lm.LIPS].mean(axis=1, keepdims=True)
    # Division by the eyes' vector, both taken as complex numbers, undoes turn and size at once.
    level = (lips[..., 0] + 1j * lips[..., 1]) / (across[:, 0] + 1j * across[:, 1])[:, None]
    level -= level.mean(axis=0)
    return np.stack([level.real, level.imag], axis=-1)


def pearson(first: NDArray[Any], second: NDArray[Any]) -> float:
    """Return Pearson's r of two series [n], −1…1; NaN where either does not vary or n < 3."""
    a, b = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if a.shape != b.shape:
        raise ValueError(f"series of {a.shape} and {b.shape} cannot be correlated")
    if len(a) < 3:
        return float("nan")
    a, b = a - a.mean(), b - b.mean()
    norm = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / norm if norm > 1e-12 else float("nan")


def pooled_pearson(pairs: Sequence[tuple[NDArray[Any], NDArray[Any]]]) -> float:
    """Return Pearson's r over the concatenation of several clips' pairs of series, each less its clip's mean.

    Short clips of one speaker give one figure this way, with each frame counting once; what differs between clips
    (head size, how the mouth rests) does not count as agreement.
    """
    if not pairs:
        return float("nan")
    first = np.concatenate([np.asarray(a, np.float64) - np.mean(a) for a, _ in pairs])
    second = np.concatenate([np.asarray(b, np.float64) - np.mean(b) for _, b in pairs])
    return pearson(first, second)


def best_lag(first: NDArray[Any], second: NDArray[Any], limit: int = LAG_LIMIT) -> int:
    """Return by how many frames `first` comes after `second`: the shift within ±`limit` of the highest Pearson r.

    Series [n] of one rate. Of equal shifts the one nearest 0 counts; 0 where nothing correlates or n is too small.
    """
    n = len(first)
    best, answer = -np.inf, 0
    for lag in sorted(range(-limit, limit + 1), key=abs):
        both = n - abs(lag)
        if both < 3:
            continue
        r = pearson(first[max(lag, 0) :][:both], second[max(-lag, 0) :][:both])
        if r > best:  # false for NaN
            best, answer = r, lag
    return answer


def amplitude(found: NDArray[Any], asked: NDArray[Any], truth: NDArray[Any], measured: NDArray[Any]) -> float:
    """Return how far openings moved, over how far they were asked to: the ratio of their deviations.

    found, truth: [n], of the output and of the true mouth, in one unit; asked, measured: those asked for and the true
    ones, in another. A closed mouth cannot be asked to close: what is asked below the least true opening counts as
    that.
    """
    possible = np.maximum(asked, measured.min())
    return float(found.std() / (possible.std() * truth.std() / measured.std()))


def mouth_box(landmarks: NDArray[Any], width: int, height: int) -> Box:
    """Return the lips' bounding box, `BOX_MARGIN` wider on each side, cut to the frame; landmarks [68, 2] px."""
    points = np.asarray(landmarks, np.float64)
    margin = BOX_MARGIN * float(np.linalg.norm(points[lm.EYE_OUTER_RIGHT] - points[lm.EYE_OUTER_LEFT]))
    low = np.clip(np.floor(points[lm.LIPS].min(axis=0) - margin), 0, (width, height)).astype(int)
    high = np.clip(np.ceil(points[lm.LIPS].max(axis=0) + margin), 0, (width, height)).astype(int)
    return int(low[0]), int(low[1]), int(high[0] - low[0]), int(high[1] - low[1])


def cut_grey(frame: NDArray[np.uint8], box: Box) -> NDArray[np.uint8]:
    """Return the luma (BT.601) inside a box of an RGB frame, uint8 [h, w]."""
    x, y, width, height = box
    return np.asarray(cv2.cvtColor(frame[y : y + height, x : x + width], cv2.COLOR_RGB2GRAY), np.uint8)


def difference(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> float:
    """Return the mean absolute difference of two pictures, grey levels."""
    return float(cv2.absdiff(first, second).mean())


def sharpness(grey: NDArray[np.uint8]) -> float:
    """Return the variance of the Laplacian (3 × 3, centre −4), grey levels²: higher is sharper."""
    return float(cv2.Laplacian(grey, cv2.CV_32F).var())


class MouthLook:
    """Flicker and sharpness of an output's mouth against its base frames', gathered frame by frame.

    flicker: Σ|out[t] − out[t−1]| ÷ Σ|base[t] − base[t−1]|, means over the mouth box of t, luma; base[t] is the source
    frame that output t was made from, so both sides move with the same head. sharpness: Σ var(Laplacian(out)) ÷ the
    same of the base. 1 is as the source; no unit.
    """

    def __init__(self) -> None:
        self._last: tuple[int, NDArray[np.uint8], NDArray[np.uint8]] | None = None
        self._moved = np.zeros(2)
        self._sharp = np.zeros(2)

    def add(self, index: int, output: NDArray[np.uint8], base: NDArray[np.uint8], landmarks: NDArray[Any]) -> None:
        """Take output frame `index` and its base, RGB [H, W, 3], with the base's landmarks [68, 2] px."""
        height, width = base.shape[:2]
        box = mouth_box(landmarks, width, height)
        if box[2] and box[3]:
            now = [cut_grey(output, box), cut_grey(base, box)]
            self._sharp += [sharpness(grey) for grey in now]
            if self._last is not None and self._last[0] == index - 1:
                before = [cut_grey(frame, box) for frame in self._last[1:]]
                self._moved += [difference(a, b) for a, b in zip(now, before, strict=True)]
        self._last = (index, output, base)

    @property
    def flicker(self) -> float:
        """The ratio so far; NaN where the base never moved."""
        return _ratio(self._moved)

    @property
    def sharpness(self) -> float:
        """The ratio so far; NaN before the first frame."""
        return _ratio(self._sharp)


def changed_outside(
    before: NDArray[np.uint8],
    after: NDArray[np.uint8],
    generate: NDArray[np.float32],
    frame_to_crop: Floats,
) -> int:
    """Return how many pixels of a frame [H, W, 3] differ though the mask [S, S], carried into the frame, is 0 there."""
    height, width = before.shape[:2]
    inside = cv2.warpAffine(
        (generate > 0).astype(np.float32),
        frame_to_crop,
        (width, height),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
    )
    return int(((before != after).any(axis=2) & (inside == 0)).sum())


def _ratio(pair: Floats) -> float:
    return float(pair[0] / pair[1]) if pair[1] > 0 else float("nan")
