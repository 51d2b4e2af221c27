"""`mouth-shape-numpy`: a very small model from sound to mouth shape, in NumPy, for any language and any frame rate."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from lipsync_audio.conv_net import CHANNELS, CONTEXT, OUTPUTS, STEP, ConvNet, load_net
from lipsync_audio.log_mel import BANDS, LOWEST, ROWS_PER_SECOND, SAMPLE_RATE, log_mel_rows, scaled
from lipsync_core.errors import SettingsError
from lipsync_core.types import AudioBlock, AudioFeatures

NET_ROWS_PER_SECOND = ROWS_PER_SECOND // STEP

# A clip whose loudest log-mel cell stays below this is silent, some 70 dB under ordinary speech (which peaks near 1.5):
# normalising it would blow its noise up to speech.
_SILENT_PEAK = -6.0
# Rows whose loudest cell is further below the file's peak are pauses and do not count in its mean and deviation: a dub
# track that is digital silence for half its length must look like the same speech without the pauses. In scaled
# units (a quarter of log10): 1.25 is 50 dB.
_PAUSE_BELOW_PEAK = 1.25
_LEAST_STD = 0.05
_SAMPLED_ROWS = 8192  # 82 s of sound; 2.6 MB
_WINDOW = 256  # rows of the net computed at once: 10 s
_BATCH = 1024  # frames in the longest batch yielded
_FEWEST_ROWS = 25  # of the net, a second, that tell a deviation
_MOST_GAIN = 2.5  # by which shapes are spread out; flatter ones have nothing to say
# Loudness. The speech level is a high percentile, so that a click does not set it, of the rows that are near the
# loudest, so that a clip that is mostly pauses has the same level as its speech alone.
_SPEECH_PERCENTILE = 90.0
_NEAR_LOUDEST_DB = 25.0
QUIETEST_DB = -60.0  # what digital silence gives; the pauses of a recording lie at -20 to -45
_LOUDNESS_REACH = 2  # log-mel rows each way: 50 ms, a little more than a net row
# Beyond this many net rows outside the sound, the net sees nothing but silence.
_MARGIN = -(-CONTEXT // STEP)


class MouthShapeOptions(BaseModel):
    """Options of `mouth-shape-numpy`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    hidden: bool = Field(
        default=False,
        description="Append the network's last hidden layer (128 numbers), which the eight are a linear function of, "
        "and the loudness in dB below the clip's speech, −60…0.",
    )
    reach: int | None = Field(
        default=None,
        ge=0,
        description="Give each frame's shape and this many before and after it, 1/25 s apart, as one token each, "
        "in columns of its own: what the model `mini` takes.",
    )
    spread: float | None = Field(
        default=None,
        gt=0,
        description="With reach: make the openings deviate by this much over the sound, at most 2.5-fold, and the "
        "other numbers alike; 1 is a speaker's usual. Regression loses variance: left out, speech has .4 to .8.",
    )
    weights: Path | None = Field(
        default=None,
        description="A weight file made by train_mouth_shape.py; left out, the packaged one is used.",
    )


class Normalisation(NamedTuple):
    """How the log-mel of one clip is normalised: (scaled(row, peak) − mean) / std; mean and std float32 [80].

    speech: what `band_mean` gives in the clip's loud speech.
    """

    peak: float
    mean: NDArray[np.float32]
    std: NDArray[np.float32]
    speech: float

    def apply(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return log10 mel rows [n, 80], not yet scaled, as the net takes them."""
        result: NDArray[np.float32] = (scaled(rows, self.peak) - self.mean) / self.std
        return result

    def loudness(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return dB below the clip's speech, −60…0, of log10 mel rows [n, 80]; digital silence is −60."""
        level = band_mean(rows)
        relative = np.clip(np.float32(10.0) * (level - np.float32(self.speech)), QUIETEST_DB, 0.0)
        return np.where(level > LOWEST, relative, np.float32(QUIETEST_DB))


def band_mean(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the mean [n] over the bands of log10 mel rows [n, 80].

    Each band counts the same, so that a faint /f/, which fills the upper ones, stands out from a pause, and hum does
    not hide one; it goes with the opening of the true mouth at r .65, the power of all bands at .55 (63 clips of GRID).
    """
    result: NDArray[np.float32] = rows.mean(axis=1)
    return result


def speech_level(rows: NDArray[np.float32]) -> float:
    """Return what `band_mean` gives in loud speech, of a clip's log10 mel rows [n, 80]."""
    levels = band_mean(rows)
    return float(np.percentile(levels[levels >= levels.max() - _NEAR_LOUDEST_DB / 10.0], _SPEECH_PERCENTILE))


def band_statistics(rows: NDArray[np.float32], top: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return mean and deviation float32 [80] of scaled log-mel rows float32 [n, 80], pauses left out.

    `top` is the maximum of the whole clip, scaled. A deviation is at least 0.05.
    """
    loud = rows.max(axis=1) >= top - _PAUSE_BELOW_PEAK
    speech = rows[loud] if loud.any() else rows
    mean = speech.mean(axis=0, dtype=np.float64).astype(np.float32)
    std = speech.std(axis=0, dtype=np.float64).astype(np.float32)
    return mean, np.maximum(std, np.float32(_LEAST_STD))


class _RowSample:
    """An evenly spaced sample of at most `_SAMPLED_ROWS` rows of a stream whose length is not known before."""

    def __init__(self) -> None:
        self.rows = np.empty((_SAMPLED_ROWS, BANDS), np.float32)
        self.count, self.every, self.seen = 0, 1, 0

    def add(self, rows: NDArray[np.float32]) -> None:
        picked = rows[-self.seen % self.every :: self.every]
        self.seen += len(rows)
        while self.count + len(picked) > _SAMPLED_ROWS:
            # Full: keep every second row from here on, of what is held and of what arrives.
            kept = self.rows[: self.count : 2].copy()
            picked = picked[self.count % 2 :: 2]
            self.rows[: len(kept)] = kept
            self.count, self.every = len(kept), self.every * 2
        self.rows[self.count : self.count + len(picked)] = picked
        self.count += len(picked)


class MouthShapeNumpy:
    """Encodes sound as eight numbers of mouth shape for each video frame.

    The numbers, in order: inner opening at the middle, outer lip height, outer width, inner width, distances of upper
    lip, lower lip and chin below the nose, inner opening at the sides. Each is relative to the speaker's own median
    over the clip, in units of its spread over the training set (`net.spread`, in widths of the aligned crop). With the
    option `hidden`, 128 numbers follow: the net's last hidden layer, of which the eight are a linear function
    (`head_weight`, `head_bias`), so that a ridge on them, fitted to what the eight leave unexplained and shrunk to
    zero, is a ridge centred on the head. Last comes the loudness, 50 ms averaged, in dB relative to the clip's own
    speech, from −60 (digital silence, or a clip that is silent throughout) to 0. Everything is interpolated linearly
    between the net's 25 rows a second; row k belongs to the time k / 25 s. Before the sound and after its end there is
    silence.
    """

    sample_rate = SAMPLE_RATE

    def __init__(self, options: MouthShapeOptions) -> None:
        packaged = files("lipsync_audio").joinpath("data", "mouth_shape.npz")
        self.net: ConvNet = load_net(packaged if options.weights is None else options.weights)
        self.hidden = options.hidden
        if options.hidden and options.reach is not None:
            raise SettingsError("hidden and reach exclude each other.", "Set one of them.")
        if options.spread is not None and options.reach is None:
            raise SettingsError("spread needs reach.", "Set reach too, or leave spread out.")
        self.reach, self.spread = options.reach, options.spread
        self.feature_shape = (1, OUTPUTS + CHANNELS + 1 if options.hidden else OUTPUTS)
        if options.reach is not None:
            tokens = 2 * options.reach + 1
            self.feature_shape = (tokens, tokens * OUTPUTS)

    @property
    def head_weight(self) -> NDArray[np.float32]:
        """Weight float32 [8, 128] of the linear head."""
        return self.net.head_weight

    @property
    def head_bias(self) -> NDArray[np.float32]:
        """Bias float32 [8] of the linear head."""
        return self.net.head_bias

    def encode(self, audio: Iterable[AudioBlock], *, times: NDArray[np.float64]) -> Iterator[AudioFeatures]:
        """Yield features float32 [n, 1, 8] or [n, 1, 137] for the frames at `times` (s, not decreasing).

        Reads `audio` twice: for the clip's loudness and spectrum, then for the features; in between once more with
        `spread`. What it holds does not grow with the length of the sound, though with `reach` it holds all it yields.
        The result does not depend on how the samples are cut into blocks, nor on which frames are asked for. Raises
        TypeError if `audio` is an iterator, which can be read only once.
        """
        if isinstance(audio, Iterator):
            raise TypeError("audio is read twice: it must be iterable again, not an iterator")
        if len(times) == 0:
            return
        normalisation = self._measure(audio)
        if self.reach is not None:
            yield from self._neighbours(audio, normalisation, times)
            return
        yield from self._alone(audio, normalisation, times)

    def _neighbours(
        self, audio: Iterable[AudioBlock], normalisation: Normalisation, times: NDArray[np.float64]
    ) -> Iterator[AudioFeatures]:
        """Yield features [n, tokens, tokens · 8]: token k has its shape in columns 8k…8k + 7, zeros elsewhere."""
        reach = self.reach or 0
        around = np.arange(-reach, reach + 1) / NET_ROWS_PER_SECOND
        wanted = (times[:, None] + around).ravel()
        order = np.argsort(wanted, kind="stable")
        shapes = np.empty((len(wanted), OUTPUTS), np.float32)
        for part in self._alone(audio, normalisation, wanted[order]):
            shapes[order[part.start : part.start + len(part.values)]] = part.values[:, 0]
        if self.spread is not None:
            shapes *= self._gain(audio, normalisation, self.spread)
        for begin in range(0, len(times), _BATCH):
            count = min(_BATCH, len(times) - begin)
            values = np.zeros((count, len(around), len(around), OUTPUTS), np.float32)
            place = np.arange(len(around))
            rows = shapes[begin * len(around) : (begin + count) * len(around)]
            values[:, place, place] = rows.reshape(count, len(around), OUTPUTS)
            yield AudioFeatures(begin, values.reshape(count, *self.feature_shape))

    def _gain(self, audio: Iterable[AudioBlock], normalisation: Normalisation, spread: float) -> np.float32:
        """Return the factor that makes the openings deviate by `spread` over the whole sound, whatever is asked of it.

        A job that is resumed asks for its last frames alone, and they are to be as they would have been.
        """
        rows = np.concatenate([rows[:, 0] for rows in self._net_rows(audio, normalisation)])[_MARGIN:-_MARGIN]
        if len(rows) < _FEWEST_ROWS:
            return np.float32(1.0)
        return np.float32(np.clip(spread / max(float(rows.std()), 1e-6), 1.0, _MOST_GAIN))

    def _alone(
        self, audio: Iterable[AudioBlock], normalisation: Normalisation, times: NDArray[np.float64]
    ) -> Iterator[AudioFeatures]:
        position = np.asarray(times, np.float64) * NET_ROWS_PER_SECOND
        first, done = -_MARGIN, 0
        held = np.empty((0, OUTPUTS + CHANNELS + 1 if self.hidden else OUTPUTS), np.float32)
        for rows in self._net_rows(audio, normalisation):
            held = np.concatenate([held, rows])
            # Only frames before the last held row can be interpolated yet.
            ready = int(np.searchsorted(position, first + len(held) - 1, side="left"))
            yield from _interpolated(held, first, position[done:ready], done)
            done = max(done, ready)
            held, first = held[-1:], first + len(held) - 1
        yield from _interpolated(held, first, position[done:], done)

    def _measure(self, audio: Iterable[AudioBlock]) -> Normalisation:
        sample, peak = _RowSample(), LOWEST
        for rows in log_mel_rows(audio):
            peak = max(peak, float(rows.max()))
            sample.add(rows)
        if peak < _SILENT_PEAK:
            floor = scaled(np.full(BANDS, LOWEST, np.float32), peak)
            # Any speech is louder than this clip: from 0 its rows lie at −60 dB and below.
            return Normalisation(peak, floor + self.net.typical_mean, self.net.typical_std, speech=0.0)
        top = (peak + 4.0) / 4.0
        rows = sample.rows[: sample.count]
        return Normalisation(peak, *band_statistics(scaled(rows, peak), top), speech_level(rows))

    def _net_rows(self, audio: Iterable[AudioBlock], normalisation: Normalisation) -> Iterator[NDArray[np.float32]]:
        """Yield what `encode` interpolates, net rows [n, dim] from −_MARGIN to _MARGIN past the sound's last row."""
        held = np.zeros((0, BANDS), np.float32)
        span = 2 * CONTEXT + 1 + (_WINDOW - 1) * STEP
        for rows in _with_silence(log_mel_rows(audio)):
            held = np.concatenate([held, rows])
            while len(held) >= span:
                yield self._features(held[:span], normalisation)
                held = held[_WINDOW * STEP :]
        if len(held) > 2 * CONTEXT:
            yield self._features(held, normalisation)

    def _features(self, rows: NDArray[np.float32], normalisation: Normalisation) -> NDArray[np.float32]:
        hidden = self.net.hidden(normalisation.apply(rows))
        shape = self.net.shape(hidden)
        if not self.hidden:
            return shape
        near = np.lib.stride_tricks.sliding_window_view(normalisation.loudness(rows), 2 * _LOUDNESS_REACH + 1)
        loudness = near[CONTEXT - _LOUDNESS_REACH :: STEP][: len(hidden)].mean(axis=1)
        return np.concatenate([shape, hidden, loudness[:, None]], axis=1)


def _with_silence(rows: Iterable[NDArray[np.float32]]) -> Iterator[NDArray[np.float32]]:
    """Yield log-mel rows with as much silence around them as the net needs for its rows −_MARGIN to last + _MARGIN."""
    yield np.full((CONTEXT + _MARGIN * STEP, BANDS), LOWEST, np.float32)
    count = 0
    for batch in rows:
        count += len(batch)
        yield batch
    to_grid = -count % STEP
    yield np.full((to_grid + _MARGIN * STEP + CONTEXT + 1, BANDS), LOWEST, np.float32)


def _interpolated(
    rows: NDArray[np.float32], first: int, position: NDArray[np.float64], start: int
) -> Iterator[AudioFeatures]:
    """Yield features at fractional row numbers; `first` is the number of rows[0]; beyond the ends the end row holds."""
    for begin in range(0, len(position), _BATCH):
        at = np.clip(position[begin : begin + _BATCH] - first, 0.0, len(rows) - 1.0)
        low = at.astype(np.int64)
        share = (at - low).astype(np.float32)[:, None]
        high = np.minimum(low + 1, len(rows) - 1)
        values = rows[low] * (np.float32(1.0) - share) + rows[high] * share
        yield AudioFeatures(start + begin, np.ascontiguousarray(values[:, None, :]))
