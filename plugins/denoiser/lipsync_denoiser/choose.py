"""Which mouth of the bank to use at each output frame: a shortest path (Viterbi, 1967) over the best candidates.

Weights are EXEMPLAR.md's where it names them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lipsync_denoiser import mouth_shape as ms
from lipsync_denoiser.head import Floats, angle_between

CANDIDATES: Final = 30
OPENING_STRETCH: Final = 1.25  # a chosen mouth is stretched open by this at most

_SHAPE_WEIGHTS: Final = {ms.OPENING: 1.0, ms.WIDTH: 0.5, ms.HEIGHT: 0.5, ms.CHIN: 0.3}  # of squared z-scores
_POSE_WEIGHT: Final = 2.0
_POSE_DEGREES: Final = 8.0
_JUMP: Final = 2.0  # of not going on with the source frame next to the last one
_HOLD: Final = 0.04  # of staying on one source frame: the inside of a mouth should not freeze
_BACK: Final = 0.1  # of going back by one: to and fro between two frames must cost more than staying on one
_STEP_COSTS: Final = np.array([_JUMP, _BACK, _HOLD, 0.0, _JUMP])  # of −2 and less, −1, 0, 1, 2 and more
_TOO_CLOSED: Final = 3.0  # per z-score the opening would be cut off by `OPENING_STRETCH`
_TOO_OPEN: Final = 1.0  # per z-score of teeth that a closing mouth would have to squeeze between its lips
_LAUGH: Final = 1.0  # of the square of how much more a mouth smiles than the base's face does, beyond `_LAUGH_FREE`
_LAUGH_FREE: Final = 0.5
_SULLEN: Final = 0.2  # the same for how much less it smiles
_SULLEN_FREE: Final = 1.0
_OWN_FRAME: Final = 0.3  # in favour of the base frame's own mouth: no seam at all
_BLOCK: Final = 32  # output frames whose costs are held at once: with 1500 mouths, what a core has cache for


@dataclass(frozen=True, slots=True)
class Candidates:
    """What choosing looks at in each of B mouths.

    frames: int64 [B], source frames, ascending. shapes: [B, 8]. rotation: [B, 3, 3], head pose.
    smile: [B], standard deviations. flaw: [B], cost of what speaks against a mouth by itself (blur, an odd look).
    """

    frames: NDArray[np.int64]
    shapes: Floats
    rotation: Floats
    smile: Floats
    flaw: Floats


def choose(
    wanted: Floats,
    rotation: Floats,
    mood: Floats,
    own: NDArray[np.int64],
    bank: Candidates,
    spread: Floats,
    linked: NDArray[np.bool_],
) -> NDArray[np.int64]:
    """Return rows of the bank, int64 [T], that cost least along the whole run.

    wanted: [T, 8]. rotation: [T, 3, 3], the base frames' head pose. mood: [T], how much their faces smile.
    own: [T], the base frames' source index.
    spread: [8], one z-score of each shape number. linked: [T], whether frame t directly follows t − 1.
    """
    candidates, costs = _nearest(wanted, rotation, mood, own, bank, spread)
    return shortest_path(candidates, costs, bank.frames, linked)


def shortest_path(
    candidates: NDArray[np.int64], costs: Floats, frames: NDArray[np.int64], linked: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """Return the candidate [T] of each step on the cheapest path.

    candidates: int64 [T, K], rows of the bank; costs: [T, K]. Where two output frames are `linked` [T], going on to
    the next of the source `frames` is free, staying or going back by one costs a little, any other step is a jump.
    """
    steps, width = candidates.shape
    total = costs[0].copy()
    back = np.zeros((steps, width), np.uint8)  # CANDIDATES is below 256
    for t in range(1, steps):
        if linked[t]:
            step = np.clip(frames[candidates[t]][:, None] - frames[candidates[t - 1]][None], -2, 2)
            reach = total[None] + _STEP_COSTS[step + 2]
            back[t] = reach.argmin(axis=1)
            total = costs[t] + reach[np.arange(width), back[t]]
        else:
            back[t] = total.argmin()
            total = costs[t] + total.min()
    path = np.empty(steps, np.int64)
    at = int(total.argmin())
    for t in range(steps - 1, -1, -1):
        path[t] = candidates[t, at]
        at = int(back[t, at])
    return path


def _nearest(
    wanted: Floats, rotation: Floats, mood: Floats, own: NDArray[np.int64], bank: Candidates, spread: Floats
) -> tuple[NDArray[np.int64], Floats]:
    """Return the cheapest rows of the bank, int64 [T, K], and their costs [T, K]."""
    width = min(CANDIDATES, len(bank.frames))
    rows = np.empty((len(wanted), width), np.int64)
    costs = np.empty((len(wanted), width))
    for first in range(0, len(wanted), _BLOCK):
        block = slice(first, first + _BLOCK)
        cost = np.broadcast_to(bank.flaw, (len(wanted[block]), len(bank.frames))).copy()
        for k, weight in _SHAPE_WEIGHTS.items():
            cost += weight * ((wanted[block, k : k + 1] - bank.shapes[None, :, k]) / spread[k]) ** 2
        opening, own_opening = wanted[block, ms.OPENING, None], bank.shapes[None, :, ms.OPENING]
        cost += _TOO_CLOSED * np.maximum(opening - OPENING_STRETCH * own_opening, 0.0) / spread[ms.OPENING]
        cost += _TOO_OPEN * np.maximum(own_opening - opening, 0.0) / spread[ms.OPENING]
        cost += (_POSE_WEIGHT / _POSE_DEGREES) * angle_between(rotation[block], bank.rotation)
        gladder = bank.smile[None] - mood[block, None]
        cost += _LAUGH * np.maximum(gladder - _LAUGH_FREE, 0.0) ** 2
        cost += _SULLEN * np.maximum(-gladder - _SULLEN_FREE, 0.0) ** 2
        cost -= _OWN_FRAME * (own[block, None] == bank.frames[None])
        best = np.argpartition(cost, width - 1, axis=1)[:, :width]
        best.sort(axis=1)  # ties go to the earlier source frame, whatever the partition's order
        rows[block] = best
        costs[block] = np.take_along_axis(cost, best, axis=1)
    return rows, costs
