"""The plan `prepare` makes: for each output frame the mouth to use and where its landmarks are to be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lipsync_core import landmarks as lm
from lipsync_core.types import AlignedFaces
from lipsync_denoiser import mouth_shape as ms
from lipsync_denoiser.bank import (
    FILE_BYTES,
    SCENE_FRAMES,
    bank_frames,
    cut,
    look,
    oddity,
    patch_rect,
    share,
    sharpness,
)
from lipsync_denoiser.choose import OPENING_STRETCH, Candidates, choose
from lipsync_denoiser.head import Floats, to_image
from lipsync_denoiser.patch_file import Patch, PatchFile
from lipsync_denoiser.render import MOVED
from lipsync_denoiser.speaker import Habits, Heads
from lipsync_denoiser.targets import Targets

_BLUR_WEIGHT: Final = 2.0  # of the logarithm of how much less sharp a mouth is than the bank's median
_ODD_WEIGHT: Final = 1.5  # of how much odder than usual it looks
_MOOD_FRAMES: Final = 12  # each way: half a second at 25 fps
_BLOCK: Final = 2048  # output frames whose landmarks are held at once
_KEEP_OWN: Final = 0.35  # of the chosen mouth's own shape, except its opening: the sound says little about the rest

NO_PLAN: Final = -1
OWN_MOUTH: Final = -2


@dataclass(slots=True)
class Plan:
    """What `generate` looks up for each of N output frames.

    mouth: int64 [N], row of `points` and `patches`, or `NO_PLAN`, or `OWN_MOUTH` where the base's own is opened.
    points: float32 [B, 68, 2], px of the mouth's own crop.
    """

    mouth: NDArray[np.int64]
    targets: Targets
    points: NDArray[np.float32]
    patches: list[Patch]
    file: PatchFile


def to_crop(points: NDArray[np.float32] | Floats, matrix: Floats) -> Floats:
    """Return points [..., k, 2] of the frame in the crop, through affines [..., 2, 3]."""
    return np.asarray(points, np.float64) @ np.swapaxes(matrix[..., :2], -1, -2) + matrix[..., None, :, 2]


class Bank:
    """Mouths of the scenes the job uses, gathered in one pass over the source's crops."""

    def __init__(self, heads: list[Heads], used: NDArray[np.int64]) -> None:
        """Decide which frames to keep: of each scene, those around what the job uses of it (`used`, sorted)."""
        sizes, weights, near = [], [], []
        for scene in heads:
            first, last = np.searchsorted(used, [scene.frames[0], scene.frames[-1] + 1])
            frames = scene.frames[:0]
            if last > first:
                reach = (used[first] - SCENE_FRAMES, used[last - 1] + SCENE_FRAMES)
                frames = scene.frames[(scene.frames >= reach[0]) & (scene.frames <= reach[1])]
            near.append(frames)
            sizes.append(min(len(frames), SCENE_FRAMES))
            weights.append(_patch_bytes(scene))
        kept = [bank_frames(f, n) for f, n in zip(near, share(sizes, weights, FILE_BYTES), strict=True)]
        self._wanted = {int(frame) for scene_frames in kept for frame in scene_frames}
        self._frames: list[int] = []
        self._points: list[NDArray[np.float32]] = []
        self._looks: list[NDArray[np.float32]] = []
        self._sharpness: list[float] = []
        self.patches: list[Patch] = []
        self.file = PatchFile()

    @property
    def wanted(self) -> NDArray[np.int64]:
        """The source frames still to be added, ascending."""
        return np.array(sorted(self._wanted), np.int64)

    @property
    def frames(self) -> NDArray[np.int64]:
        """The source frames kept, int64 [B]."""
        return np.array(self._frames, np.int64)

    @property
    def points(self) -> NDArray[np.float32]:
        """Their landmarks, float32 [B, 68, 2], px of their crop."""
        return np.reshape(self._points, (-1, lm.COUNT, 2)).astype(np.float32)

    def mouths_of(self, scene: Heads) -> NDArray[np.int64]:
        """Return the rows of the mouths kept of a scene."""
        return np.flatnonzero(np.isin(self.frames, scene.frames))

    def flaws(self, rows: NDArray[np.int64], scores: Floats) -> Floats:
        """Return what speaks against each of some rows [n] by itself; scores: [n, 8], their shapes in spreads."""
        sharp = np.array(self._sharpness)[rows]
        blur = np.maximum(np.log(np.median(sharp) / np.maximum(sharp, 1e-6)), 0.0)
        odd = oddity(scores, np.stack(self._looks)[rows])
        flaws: Floats = _BLUR_WEIGHT * blur + _ODD_WEIGHT * np.maximum(odd - 1.0, 0.0)
        return flaws

    def add(self, faces: AlignedFaces) -> None:
        """Keep what is wanted of consecutive crops."""
        for row, frame in enumerate(range(faces.track.start, faces.track.start + len(faces.track))):
            if frame not in self._wanted:
                continue
            self._wanted.discard(frame)
            points = to_crop(faces.track.landmarks[row], faces.track.frame_to_crop[row]).astype(np.float32)
            unit = float(np.linalg.norm(points[lm.EYE_OUTER_RIGHT] - points[lm.EYE_OUTER_LEFT]))
            rect = patch_rect(points, unit)
            pixels = cut(faces.pixels[row], rect)
            self._frames.append(frame)
            self._points.append(points)
            self._looks.append(look(pixels, rect, points, unit))
            self._sharpness.append(sharpness(pixels))
            self.patches.append(self.file.append(pixels, rect))


def _patch_bytes(scene: Heads) -> int:
    """Return about how many bytes one patch of a scene takes."""
    rects = [
        patch_rect(to_crop(scene.landmarks[k], scene.to_crop[k]).astype(np.float32), float(scene.pose.scale[k]))
        for k in (0, len(scene.frames) // 2, len(scene.frames) - 1)
    ]
    return 3 * max(width * height for _, _, width, height in rects)


def plan_run(
    outputs: NDArray[np.int64],
    sources: NDArray[np.int64],
    wanted: Floats,
    scene: Heads,
    speaker: Habits,
    bank: Bank,
    plan: Plan,
) -> None:
    """Plan the output frames `outputs` [T], ascending, made from `sources` [T] of one scene, into `plan`.

    wanted: [T, 8], the shapes the sound asks for.
    """
    in_bank = bank.mouths_of(scene)
    frames = bank.frames[in_bank]
    rows, _ = scene.rows(frames)
    base, _ = scene.rows(sources)
    flaws = bank.flaws(in_bank, (scene.shapes[rows] - speaker.middle) / speaker.spread)
    mouths = Candidates(frames, scene.shapes[rows], scene.pose.rotation[rows], scene.smile[rows], flaws)
    linked = np.diff(outputs, prepend=outputs[0] - 2) == 1
    mood = _slow(scene.smile)[base]
    picked = choose(wanted, scene.pose.rotation[base], mood, sources, mouths, speaker.spread, linked)
    plan.mouth[outputs] = in_bank[picked]
    for first in range(0, len(outputs), _BLOCK):
        block = slice(first, min(first + _BLOCK, len(outputs)))
        # one frame more each way, for the smoothing over three
        wide = slice(max(block.start - 1, 0), min(block.stop + 1, len(outputs)))
        inner = slice(block.start - wide.start, block.stop - wide.start)
        chosen = rows[picked[wide]]
        lips = _smooth(_lips(scene.head(chosen)), linked[wide])[inner]
        head = scene.head(base[block])
        head[:, lm.LIPS] = lips + head[:, None, lm.NOSE_BOTTOM]
        head = ms.move(head, _settle(wanted[block], scene.shapes[chosen[inner]]))
        plan.targets.write(outputs[block], to_image(head, scene.pose[base[block]])[:, list(MOVED)])


def plan_still(
    outputs: NDArray[np.int64], sources: NDArray[np.int64], wanted: Floats, scene: Heads, plan: Plan
) -> None:
    """Plan output frames whose own mouth is to be warped open; arguments as for `plan_run`."""
    base, _ = scene.rows(sources)
    plan.mouth[outputs] = OWN_MOUTH
    for first in range(0, len(outputs), _BLOCK):
        block = slice(first, first + _BLOCK)
        head = ms.move(scene.head(base[block]), wanted[block])
        plan.targets.write(outputs[block], to_image(head, scene.pose[base[block]])[:, list(MOVED)])


def _slow(values: Floats) -> Floats:
    """Return a series [n] averaged over about a second: what a face does apart from what its mouth says."""
    reach = min(_MOOD_FRAMES, (len(values) - 1) // 2)
    return np.convolve(np.pad(values, reach, mode="edge"), np.full(2 * reach + 1, 1 / (2 * reach + 1)), "valid")


def _settle(wanted: Floats, chosen: Floats) -> Floats:
    """Return the shapes [T, 8] to draw: the opening wanted, as far as the chosen mouth stretches; the rest between."""
    shape = _KEEP_OWN * chosen + (1 - _KEEP_OWN) * wanted
    over = np.maximum(wanted[:, ms.OPENING] - OPENING_STRETCH * np.maximum(chosen[:, ms.OPENING], 0.0), 0.0)
    for k in (ms.OPENING, ms.SIDES):
        shape[:, k] = np.maximum(wanted[:, k] - over, 0.0)
    for k in (ms.HEIGHT, ms.LOWER):
        shape[:, k] -= over
    return ms.consistent(shape)


def _lips(heads: Floats) -> Floats:
    """Return the lips [T, 20, 2] of heads [T, 68, 2], from the point below the nose."""
    lips: Floats = heads[:, lm.LIPS] - heads[:, None, lm.NOSE_BOTTOM]
    return lips


def _smooth(lips: Floats, linked: NDArray[np.bool_]) -> Floats:
    """Return lips [T, 20, 2] averaged over three frames (¼ ½ ¼), so that a jump of the choice is no jump of lips."""
    before = np.where(linked[:, None, None], np.roll(lips, 1, axis=0), lips)
    follows = np.append(linked[1:], False)
    after = np.where(follows[:, None, None], np.roll(lips, -1, axis=0), lips)
    out: Floats = before / 4 + lips / 2 + after / 4
    return out
