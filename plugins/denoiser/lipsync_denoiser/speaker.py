"""The source's speaker: every frame's head and mouth as numbers, and the shapes the new sound asks of this mouth."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lipsync_core import landmarks as lm
from lipsync_core.errors import BackendError
from lipsync_core.types import AudioFeatures, FaceTrack
from lipsync_denoiser import mouth_shape as ms
from lipsync_denoiser.head import RIGID, Floats, HeadPose, fit_pose, personal_template, to_head
from lipsync_denoiser.own_voice import OwnVoice, correlation, fit_own_voice

_NEEDED: Final = sorted({*RIGID, lm.NOSE_BOTTOM, *range(lm.JAW.stop), *range(lm.LIPS.start, lm.LIPS.stop)})
_LOW, _HIGH = 1.0, 99.0  # percentiles of the source's shapes that a target keeps between (EXEMPLAR.md)
_RELATED: Final = 0.2  # least correlation of sound and mouth by which a source is taken to be speaking itself
_BLOCK: Final = 2048  # frames whose landmarks are held in the head frame at once
_ADAPT_FRAMES: Final = 6000  # four minutes say all there is to learn, in bounded memory
# A pause, in dB below the clip's speech: it reaches down to the first, and is as long as it stays below the second.
# In 63 clips of GRID the fifth most open of the true mouths is open by .5 of its speaker's deviations at −35…−30 dB and
# by 1.5, as in speech, from −30 dB up; in LatentSync's clean dub the gaps between phrases lie at −25…−34 dB, /s/ at
# −15 and other consonants above −21. Noise louder than the first hides pauses: there, the prediction stands.
_PAUSE_DB, _PAUSE_EDGE_DB = -27.0, -22.0
_PAUSE_SECONDS: Final = 0.1  # the closure of a stop takes .06 s
_EASE_SECONDS: Final = 0.08  # half of the time over which the mouth closes
# A mouth gets ready before its sound and lingers after it: for so long the prediction stands, in pauses that leave time
# to close. With no such time, r of the opening asked for against the true mouth fell from .667 to .655 for the four
# speakers left out of training (.659 to .588 for all eleven); with it, it is .671 (.651).
_LEAD_SECONDS, _LINGER_SECONDS = 0.4, 0.08
_CLOSED_SECONDS: Final = 0.2  # of a pause are closed in any case
_MOST_GAIN: Final = 2.5  # by which a prediction is spread out; a flatter one has nothing to say
# How far each predicted number is to be trusted, as its error in the speaker's spreads: the opening is what is seen,
# and the sound says most about it; the width, for one, correlates with the sound by about .4 only (EXEMPLAR.md).
_DOUBT: Final = np.array([0.15, 0.5, 0.8, 0.8, 1.0, 0.7, 0.7, 0.3])

# A typical speaker: medians over eleven clips of ten people (GRID, CC-BY-4.0, and LatentSync's demo clips, Apache-2.0)
# of the inner opening's median, standard deviation and 99th percentile, and how the other numbers go with the opening
# (pooled slopes; widths are left out: they go either way with the speaker).
TYPICAL_OPENING: Final = 0.067
TYPICAL_SPREAD: Final = 0.056
TYPICAL_MOST: Final = 0.19
_FOLLOWS: Final = np.array([1.0, 0.88, 0.0, 0.0, -0.09, 0.79, 0.41, 0.85])
STILL_RANGE: Final = 0.07  # of the opening, 1st to 99th percentile: talkers have .10 and more
FEWEST_MOUTHS: Final = 12


@dataclass(frozen=True, slots=True)
class Heads:
    """The F frames of a scene that have a face.

    frames: int64 [F], source index, ascending. landmarks: float32 [F, 68, 2] frame px. to_crop: [F, 2, 3].
    pose: F poses. shapes: [F, 8]. smile: [F], as `mouth_shape.smile`.
    """

    frames: NDArray[np.int64]
    landmarks: NDArray[np.float32]
    to_crop: Floats
    pose: HeadPose
    shapes: Floats
    smile: Floats

    @property
    def moves(self) -> bool:
        """Whether the scene shows enough distinct mouths to speak with."""
        low, high = np.percentile(self.shapes[:, ms.OPENING], [_LOW, _HIGH])
        return len(self.frames) >= FEWEST_MOUTHS and bool(high - low >= STILL_RANGE)

    def head(self, rows: NDArray[np.int64]) -> Floats:
        """Return the landmarks [n, 68, 2] of some rows in the head frame."""
        return to_head(self.landmarks[rows], self.pose[rows])

    def rows(self, frames: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Return the rows of source frames, and which of them the scene has."""
        rows = np.minimum(np.searchsorted(self.frames, frames), len(self.frames) - 1)
        return rows, self.frames[rows] == frames


def measure_heads(tracks: Iterable[FaceTrack]) -> list[Heads]:
    """Return the heads of each scene that shows a face; tracks: one for each scene.

    Raises `BackendError` where the aligner gives no jaw, nose, eye corners or lips.
    """
    return [_heads(track, rows) for track in tracks if len(rows := np.flatnonzero(track.found))]


def _heads(track: FaceTrack, rows: NDArray[np.int64]) -> Heads:
    landmarks, to_crop = track.landmarks, track.frame_to_crop
    if len(rows) < len(track):  # else no copy: an hour's landmarks take 49 MB
        landmarks, to_crop = landmarks[rows], to_crop[rows]
    blocks = (landmarks[first : first + _BLOCK, _NEEDED] for first in range(0, len(rows), _BLOCK))
    if not all(np.isfinite(block).all() for block in blocks):
        raise BackendError(
            "The exemplar generator needs jaw, nose, eye corner and lip landmarks, and the aligner leaves some out.",
            "Choose an aligner that gives them, for example facemesh-opencv.",
        )
    pose = fit_pose(landmarks, personal_template(landmarks))
    shapes, lift = np.zeros((len(rows), ms.COUNT)), np.zeros(len(rows))
    for first in range(0, len(rows), _BLOCK):
        block = slice(first, first + _BLOCK)
        head = to_head(landmarks[block], pose[block])
        shapes[block], lift[block] = ms.measure(head), ms.corner_lift(head)
    return Heads(track.start + rows, landmarks, to_crop, pose, shapes, ms.smile(shapes, lift))


@dataclass(frozen=True, slots=True)
class Habits:
    """How a speaker's mouth moves.

    middle (median), spread, low, high: [8], of each of the eight numbers. together: [8, 8], which combinations of
    predicted numbers this mouth makes, as the matrix that takes predictions (in spreads) to the likeliest ones.
    """

    middle: Floats
    spread: Floats
    low: Floats
    high: Floats
    together: Floats


def habits(shapes: Floats, smile: Floats) -> Habits:
    """Measure them on shapes [n, 8].

    smile: [n], standard deviations. A laugh is open and wide; frames that smile count little in what goes together, or
    every open mouth would be asked to laugh.
    """
    low, high = np.percentile(shapes, [_LOW, _HIGH], axis=0)
    middle, spread = np.median(shapes, axis=0), np.maximum(shapes.std(axis=0), 1e-4)
    scores = (shapes - middle) / spread
    plain = np.exp(-(np.maximum(smile, 0.0) ** 2))
    covariance = (scores * plain[:, None]).T @ scores / plain.sum()
    # posterior mean of a normal prior N(0, covariance) seen with errors N(0, doubt²)
    together = covariance @ np.linalg.inv(covariance + np.diag(_DOUBT**2))
    return Habits(middle, spread, low, high, together)


def gather(features: Iterable[AudioFeatures], most: int) -> tuple[Floats, NDArray[np.float32]]:
    """Return predicted shapes [n, 8] and hidden activations [n, 128] of the first `most` frames or a few more."""
    values: list[NDArray[np.float32]] = []
    for batch in features:
        values.append(batch.values[:, 0])
        if sum(map(len, values)) >= most:
            break
    stacked = np.concatenate(values) if values else np.zeros((0, ms.COUNT + 1), np.float32)
    return stacked[:, : ms.COUNT].astype(np.float64), stacked[:, ms.COUNT : -1]


def listen(features: Iterable[AudioFeatures], voice: OwnVoice | None) -> tuple[Floats, NDArray[np.float32]]:
    """Return predicted shapes [n, 8], as `voice` corrects them, and loudness [n] (dB) of all frames, in order.

    Activations, a hundred numbers a frame, are let go as they pass: an hour's would take 50 MB.
    """
    shapes: list[Floats] = []
    loudness: list[NDArray[np.float32]] = []
    for batch in features:
        values = batch.values[:, 0]
        predicted = values[:, : ms.COUNT].astype(np.float64)
        shapes.append(predicted if voice is None else voice.correct(predicted, values[:, ms.COUNT : -1]))
        loudness.append(values[:, -1].copy())
    if not shapes:
        return np.zeros((0, ms.COUNT)), np.zeros(0, np.float32)
    return np.concatenate(shapes), np.concatenate(loudness)


def frames_to_adapt(heads: list[Heads]) -> int:
    """Return how many frames of the source's sound `adapt` looks at, from the first."""
    rows = np.concatenate([scene.frames for scene in heads])[:_ADAPT_FRAMES]
    return int(rows[-1]) + 1


def adapt(
    heads: list[Heads], predicted: Floats, hidden: NDArray[np.float32], own_voice: bool
) -> tuple[OwnVoice | None, Floats]:
    """Compare what the source's own sound predicts with what its mouth did.

    predicted: [n, 8] and hidden: [n, 128] of the first `frames_to_adapt` source frames. own_voice: whether to look
    for a correction.
    Returns the correction (None: keep the prediction), and the offset [8] between predicted and measured means, in
    spreads: 0 where sound and mouth do not go together, as under a narrator or music.
    """
    rows = np.concatenate([scene.frames for scene in heads])
    measured = np.concatenate([_scores(scene) for scene in heads])
    inside = rows < len(predicted)
    rows, measured = rows[inside][:_ADAPT_FRAMES], measured[inside][:_ADAPT_FRAMES]
    nothing = np.zeros(ms.COUNT)
    if len(rows) < FEWEST_MOUTHS:
        return None, nothing
    prior, activations = predicted[rows], hidden[rows].astype(np.float64)
    voice = fit_own_voice(prior, activations, measured) if own_voice else None
    if voice is not None:
        prior = voice.correct(prior, activations)
    if correlation(prior[:, ms.OPENING], measured[:, ms.OPENING]) < _RELATED:
        return None, nothing
    return voice, prior.mean(axis=0) - measured.mean(axis=0)


def _scores(scene: Heads) -> Floats:
    """Return a scene's shapes [F, 8] in spreads about the median."""
    speaker = habits(scene.shapes, scene.smile)
    scores: Floats = (scene.shapes - speaker.middle) / speaker.spread
    return scores


def silence(loudness: NDArray[np.float32], fps: float) -> Floats:
    """Return how surely each frame [n] is in a pause, 0…1, of their loudness [n] (dB below the clip's speech, −60…0).

    Pauses shorter than a tenth of a second do not count; the ends of the others are eased.
    """
    edges = np.flatnonzero(np.diff(loudness < _PAUSE_EDGE_DB, prepend=False, append=False))
    quiet = np.zeros(len(loudness))
    for start, stop in edges.reshape(-1, 2):
        if stop - start < _PAUSE_SECONDS * fps or loudness[start:stop].min() >= _PAUSE_DB:
            continue
        spare = max(stop - start - _CLOSED_SECONDS * fps, 0.0)
        # The silence before the first frame and after the last goes on.
        linger = 0 if start == 0 else round(min(_LINGER_SECONDS * fps, spare / 4))
        lead = 0 if stop == len(loudness) else round(min(_LEAD_SECONDS * fps, spare / 2 if start else stop))
        quiet[start + linger : stop - lead] = 1.0
    reach = max(1, round(_EASE_SECONDS * fps))
    ramp = np.hanning(2 * reach + 3)[1:-1]
    return np.convolve(np.pad(quiet, reach, mode="edge"), ramp / ramp.sum(), "valid") if len(quiet) else quiet


def wanted_shapes(predicted: Floats, quiet: Floats, speaker: Habits) -> Floats:
    """Return the shapes [n, 8] the sound asks of this speaker.

    predicted: [n, 8], in spreads about the median. quiet: [n], how surely it is silent: there the mouth closes.
    Regression loses variance; where there is sound, it is restored to the speaker's own.
    """
    scores = _restored(predicted, quiet)
    shut = -speaker.middle[ms.OPENING] / speaker.spread[ms.OPENING]
    for k in (ms.OPENING, ms.SIDES):
        scores[:, k] += quiet * (min(shut, 0.0) - scores[:, k])
    shapes = np.clip(speaker.middle + speaker.spread * (scores @ speaker.together.T), speaker.low, speaker.high)
    shapes[:, [ms.OPENING, ms.SIDES]] *= 1.0 - quiet[:, None]
    return ms.consistent(shapes)


def _restored(predicted: Floats, quiet: Floats) -> Floats:
    """Return predictions [n, 8] with the spread of their frames with sound made 1, within bounds."""
    sound = predicted[quiet < 0.5]
    deviation = sound.std(axis=0) if len(sound) >= FEWEST_MOUTHS else np.ones(ms.COUNT)
    return predicted * np.clip(1.0 / np.maximum(deviation, 1e-6), 1.0, _MOST_GAIN)


def wanted_of_still(predicted: Floats, quiet: Floats, shapes: Floats) -> Floats:
    """Return the shapes [n, 8] the sound asks of a mouth that shows none itself: a typical speaker's movements.

    predicted: [n, 8] and quiet: [n], as for `wanted_shapes`. shapes: [n, 8], those of the base frames, which the rest
    of the mouth follows from as the opening goes to what the sound asks.
    """
    opening = TYPICAL_OPENING + TYPICAL_SPREAD * _restored(predicted, quiet)[:, ms.OPENING]
    moved = (1.0 - quiet) * np.clip(opening, 0.0, TYPICAL_MOST) - shapes[:, ms.OPENING]
    return ms.consistent(shapes + moved[:, None] * _FOLLOWS)
