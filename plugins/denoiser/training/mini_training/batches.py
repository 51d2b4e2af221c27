"""Random training items: which frames, and how they are augmented. A batch depends on seed, step and worker alone."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lipsync_face.fixed_mask import generate_area
from mini_training.footage import DETAIL, MARGIN, STORED, Clip, by_speaker
from mini_training.other_mouths import other_mouth
from mini_training.other_people import PROPORTIONS, SKIN, Beyond, Lips, joint_face
from mini_training.recipe import REACH, SIDE, tokens_of

# A speaker with n frames is drawn in proportion to n^.35: identities teach more than frames.
SPEAKER_EXPONENT: Final = 0.35
REFERENCE_GAP: Final = 5  # frames; nearer ones would give the mouth away
OTHER_CLIP: Final = 0.3  # share of references from another clip of the speaker, whose mouth tells nothing
# Whoever is shown (`other_people`), the same for every picture of an item.
JOINT: Final = 0.5  # share of items that show one face made of two people's
SMILING: Final = 0.25  # share of items whose mouth smiles throughout
ELSEWHERE: Final = 0.4  # share of items with another neck and background
# What is seen around the mask may be of another frame, so that jaw and cheeks do not say what the sound says.
OTHER_SURROUNDINGS: Final = 0.35  # share of items
SEAM: Final = 2.5  # px, blur of the seam that this leaves, inside the mask
# Augmentation, the same for every picture of an item, or the reference would not show the same person.
TURN, SCALE, ASPECT, SHIFT = 8.0, 0.15, 0.12, 5.0  # degrees, shares, crop px: at most
BEND, BEND_POINTS = 2.4, 5  # px deviation of a grid of control points: another face's proportions
MIX, GAIN, OFFSET, GAMMA = 0.12, 0.15, 18.0, 0.5  # colour matrix, channels, grey levels, exponent (log)
LIGHT = 0.2  # ramp of light across the picture, share at its edges
GREY = 0.05  # share of items without colour
BLURRED, BLUR = 0.3, 0.9  # share, px
# The reference's own, on top: what it shows of the mouth must not be copied as it lies there.
NUDGED: Final = 0.3  # share of items
OTHER_MOUTH: Final = 0.3  # share of references whose mouth is changed
NUDGE, NUDGE_SCALE, NUDGE_SHIFT, NUDGE_GAIN = 4.0, 0.05, 2.5, 0.04  # degrees, share, crop px, share: deviation or most
SHAPE_NOISE: Final = 0.12  # deviation, in units of the audio net's spread
LARGE, STRETCH = 2.5, 3.0  # shapes beyond LARGE go up to STRETCH times as far beyond: the mouth opens no wider


@dataclass(frozen=True)
class Batch:
    """Pictures −1…1 float32 [n, 3, 128, 128] and tokens [n, 5, 40] of items·frames rows, frames varying fastest.

    Outside the mask `target` is what is to be seen there, of the same frame or another one.
    """

    target: Tensor
    reference: Tensor
    tokens: Tensor


class Sampler:
    """Draws batches from clips."""

    def __init__(self, clips: Sequence[Clip], seed: int, *, augment: bool = True) -> None:
        self.seed = seed
        self.augment = augment
        self._groups = by_speaker(clips)
        self.speakers = list(self._groups.values())
        frames = np.array([sum(len(c.usable) for c in group) for group in self.speakers], np.float64)
        self.odds = frames**SPEAKER_EXPONENT / (frames**SPEAKER_EXPONENT).sum()
        inside = cv2.erode(generate_area(SIDE), np.ones((7, 7), np.uint8))
        self._inside = cv2.GaussianBlur(inside, (0, 0), SEAM)[..., None]

    def batch(self, step: int, worker: int, items: int, frames: int) -> Batch:
        """Return the batch of one worker at one step: `items` of `frames` frames each, of one clip."""
        rng = np.random.default_rng((self.seed, step, worker))
        drawn = [self._item(rng, frames) for _ in range(items)]
        target, reference, shapes = (np.concatenate(part) for part in zip(*drawn, strict=True))
        return Batch(to_tensor(target), to_tensor(reference), torch.from_numpy(tokens_of(shapes)))

    def pictures(self, step: int, worker: int, items: int) -> Tensor:
        """Return single augmented pictures −1…1 float32 [items, 3, 128, 128], for the autoencoder."""
        rng = np.random.default_rng((self.seed, step, worker))
        drawn = []
        for _ in range(items):
            clip = self._clip(rng)
            drawn.append(Look(rng, self.augment)(clip.pictures[rng.choice(clip.usable)]))
        return to_tensor(np.stack(drawn))

    def _clip(self, rng: np.random.Generator) -> Clip:
        group = self.speakers[rng.choice(len(self.speakers), p=self.odds)]
        lengths = np.array([len(clip.usable) for clip in group], np.float64)
        return group[rng.choice(len(group), p=lengths / lengths.sum())]

    def _item(
        self, rng: np.random.Generator, frames: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.float32]]:
        clip = self._clip(rng)
        look = Look(rng, self.augment)
        targets = rng.choice(clip.usable, frames, replace=len(clip.usable) < frames)
        if not self.augment:
            places = [pick_reference(rng, clip.usable, int(frame)) for frame in targets]
            shapes = np.stack([shapes_around(clip.shapes, int(frame)) for frame in targets])
            shown = (np.stack([look(clip.pictures[frame]) for frame in part]) for part in (targets, places))
            return *shown, shapes

        person = self._person(rng, clip)
        made = [person(clip, int(frame)) for frame in targets]
        target = np.stack([look(picture) for picture, _, _ in made])
        shapes = stretched(np.stack([shapes for _, _, shapes in made]), rng.uniform(1.0, STRETCH))
        shapes += rng.standard_normal(shapes.shape, np.float32) * np.float32(SHAPE_NOISE)
        if rng.random() < OTHER_SURROUNDINGS:
            others = [person(clip, pick_reference(rng, clip.usable, int(frame)))[0] for frame in targets]
            around = np.stack([look(picture) for picture in others])
            target = np.asarray(np.rint(around + self._inside * (target.astype(np.float32) - around)), np.uint8)

        seen = look.nudged(rng) if rng.random() < NUDGED else look
        other = self._other_clip(rng, clip)
        if other is not None and rng.random() < OTHER_CLIP:
            references = [person(other, int(frame)) for frame in rng.choice(other.usable, frames)]
        else:
            references = [person(clip, pick_reference(rng, clip.usable, int(frame))) for frame in targets]
        changed = rng.random() < OTHER_MOUTH
        pictures = [other_mouth(picture, points, rng) if changed else picture for picture, points, _ in references]
        return target, np.stack([seen(picture) for picture in pictures]), shapes

    def _person(self, rng: np.random.Generator, clip: Clip) -> Person:
        second = None
        if rng.random() < JOINT and len(self.speakers) > 1:
            while second is None or second.speaker == clip.speaker:
                second = self._clip(rng)
        lips = Lips.drawn(rng, smiling=rng.random() < SMILING)
        beyond = Beyond.drawn(rng) if rng.random() < ELSEWHERE else None
        return Person(second, rng.uniform(*PROPORTIONS), rng.uniform(*SKIN), lips, beyond)

    def _other_clip(self, rng: np.random.Generator, clip: Clip) -> Clip | None:
        others = [c for c in self._groups[clip.speaker] if c is not clip]
        return others[rng.integers(len(others))] if others else None


@dataclass(frozen=True)
class Person:
    """Who an item shows: a clip's speaker with these lips, alone or made one with the speaker of a `second` clip."""

    second: Clip | None
    proportions: float
    skin: float
    lips: Lips
    beyond: Beyond | None = None

    def __call__(self, clip: Clip, frame: int) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.float32]]:
        """Return the picture [288, 288, 3], landmarks [68, 2] and shapes [5, 8] of one frame of `clip`.

        Of the second clip it takes the frame whose mouth is most like that frame's.
        """
        picture, points, shapes = clip.pictures[frame], clip.landmarks[frame], shapes_around(clip.shapes, frame)
        if self.second is not None:
            apart = np.square(self.second.shapes[self.second.usable] - clip.shapes[frame]).sum(axis=1)
            like = int(self.second.usable[apart.argmin()])
            landmarks = points, self.second.landmarks[like]
            picture = joint_face((picture, self.second.pictures[like]), landmarks, self.proportions, self.skin)
            points = points + np.float32(self.proportions) * (landmarks[1] - points)
            shapes = shapes + np.float32(self.proportions) * (shapes_around(self.second.shapes, like) - shapes)
        picture = self.lips(picture, points)
        return picture if self.beyond is None else self.beyond(picture, points), points, shapes


def stretched(shapes: NDArray[np.float32], factor: float) -> NDArray[np.float32]:
    """Return shapes of which what lies beyond ±`LARGE` lies `factor` times as far beyond."""
    near = np.clip(shapes, -LARGE, LARGE)
    return np.asarray(near + np.float32(factor) * (shapes - near), np.float32)


def pick_reference(rng: np.random.Generator, usable: NDArray[np.int64], target: int) -> int:
    """Return a frame at least `REFERENCE_GAP` from `target`; raises `ValueError` where the clip has none."""
    far = usable[np.abs(usable - target) >= REFERENCE_GAP]
    if len(far) == 0:
        raise ValueError(f"no frame is {REFERENCE_GAP} or more from frame {target}")
    return int(rng.choice(far))


def shapes_around(shapes: NDArray[np.float32], frame: int) -> NDArray[np.float32]:
    """Return the shapes [5, 8] two before to two after a frame, the clip's ends repeated."""
    return shapes[np.clip(np.arange(frame - REACH, frame + REACH + 1), 0, len(shapes) - 1)]


def to_tensor(pictures: NDArray[np.uint8]) -> Tensor:
    """Return [n, 3, H, W] −1…1 of uint8 [n, H, W, 3], channels innermost in memory."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)


class Look:
    """One random augmentation: place, bend, colours, light and blur. Calling it gives a crop of a stored picture."""

    def __init__(self, rng: np.random.Generator, augment: bool = True) -> None:
        self.augment = augment
        y, x = np.mgrid[0:SIDE, 0:SIDE].astype(np.float32)
        centre = np.float32((SIDE - 1) / 2)
        if augment:
            angle = np.deg2rad(rng.uniform(-TURN, TURN))
            scale = np.exp(rng.uniform(-SCALE, SCALE))
            aspect = np.exp(rng.uniform(-ASPECT, ASPECT))
            flip = -1.0 if rng.random() < 0.5 else 1.0
            cos, sin = scale * np.cos(angle), scale * np.sin(angle)
            a = np.array([[flip * aspect * cos, -sin / aspect], [flip * aspect * sin, cos / aspect]])
            u, v = x - centre, y - centre
            bend = rng.normal(0.0, BEND, (BEND_POINTS, BEND_POINTS, 2)).astype(np.float32)
            bent = cv2.resize(bend, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
            shift = rng.uniform(-SHIFT, SHIFT, 2) + centre
            x = np.float32(a[0, 0]) * u + np.float32(a[0, 1]) * v + np.float32(shift[0]) + bent[..., 0]
            y = np.float32(a[1, 0]) * u + np.float32(a[1, 1]) * v + np.float32(shift[1]) + bent[..., 1]
            self._draw_colours(rng)
        self._x = DETAIL * x + np.float32((DETAIL - 1) / 2 + MARGIN)
        self._y = DETAIL * y + np.float32((DETAIL - 1) / 2 + MARGIN)

    def __call__(self, stored: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return uint8 [128, 128, 3] of a stored picture [288, 288, 3]."""
        crop = cv2.remap(
            np.ascontiguousarray(stored), self._x, self._y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        if not self.augment:
            return np.asarray(crop, np.uint8)
        crop = cv2.LUT(cv2.transform(crop, self._matrix), self._curves)
        if self._blur > 0:
            crop = cv2.GaussianBlur(crop, (0, 0), self._blur)
        return np.asarray(cv2.multiply(crop, self._light, dtype=cv2.CV_8U), np.uint8)

    def nudged(self, rng: np.random.Generator) -> Look:
        """Return an augmentation a little beside this one: elsewhere, turned, larger or smaller, brighter or darker."""
        result = copy.copy(self)
        angle, scale = np.deg2rad(rng.uniform(-NUDGE, NUDGE)), np.exp(rng.uniform(-NUDGE_SCALE, NUDGE_SCALE))
        cos, sin = np.float32(scale * np.cos(angle)), np.float32(scale * np.sin(angle))
        shift = (DETAIL * rng.uniform(-NUDGE_SHIFT, NUDGE_SHIFT, 2)).astype(np.float32)
        middle = np.float32(STORED / 2)
        u, v = self._x - middle, self._y - middle
        result._x = middle + cos * u - sin * v + shift[0]
        result._y = middle + sin * u + cos * v + shift[1]
        gain = np.exp(rng.normal(0.0, NUDGE_GAIN, (3, 1)) + rng.normal(0.0, NUDGE_GAIN))
        result._matrix = self._matrix * gain
        return result

    def _draw_colours(self, rng: np.random.Generator) -> None:
        grey = np.full((3, 3), 1 / 3)
        saturation = 0.0 if rng.random() < GREY else np.exp(rng.uniform(-0.8, 0.4))
        mix = saturation * np.eye(3) + (1 - saturation) * grey + rng.normal(0.0, MIX, (3, 3)) * (1 - np.eye(3))
        mix *= np.exp(rng.normal(0.0, GAIN, (3, 1))) / mix.sum(axis=1, keepdims=True)
        self._matrix = np.concatenate([mix, rng.normal(0.0, OFFSET, 1) + rng.normal(0.0, OFFSET / 3, (3, 1))], axis=1)
        exponents = np.exp(rng.uniform(-GAMMA, GAMMA) + rng.normal(0.0, GAMMA / 4, 3))
        levels = np.linspace(0.0, 1.0, 256)[:, None] ** exponents
        self._curves = np.rint(255 * levels).astype(np.uint8)[None]
        self._blur = rng.uniform(0.0, BLUR) if rng.random() < BLURRED else 0.0
        ramp = np.linspace(-1.0, 1.0, SIDE, dtype=np.float32)
        across, down = rng.uniform(-LIGHT, LIGHT, 2).astype(np.float32)
        self._light = np.repeat((1 + across * ramp[None] + down * ramp[:, None])[..., None], 3, axis=2)
