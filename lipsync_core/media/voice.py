"""Where a sound holds speech, which output frames that concerns, and the sound with all else silenced."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lipsync_core.errors import WeightsError
from lipsync_core.media.audio import AudioSource
from lipsync_core.models import store
from lipsync_core.types import AudioBlock

log = logging.getLogger(__name__)

SAMPLE_RATE: Final = 16_000
WINDOW: Final = 512  # samples of one decision at that rate

# The defaults of `get_speech_timestamps` in silero-vad 6.2.3: a probability that begins speech, one that ends it, and
# the shortest speech and silence that count.
_BEGINS, _ENDS = 0.5, 0.35
_LEAST_SPEECH_S: Final = 0.25
_LEAST_SILENCE_S: Final = 0.1
# What is added at both ends: .03 s there, but a mouth moves before its sound, and an /s/ that begins a phrase may be
# taken for noise (in GRID's swib4p for .15 s).
_PAD_S: Final = 0.1
# A mouth that goes to rest needs .12 s to get there and as much to leave; below, it belongs to the speech. Pauses to
# think or breathe are longer than the .25 s that Goldman-Eisler (1968) set as their lower limit.
_LEAST_PAUSE_S: Final = 0.5

_MODEL: Final = "silero-vad"
_RUNTIME: Final = "onnxruntime"

Segments = NDArray[np.float64]
"""Stretches of speech [m, 2]: begin and end, s from the sound's start, ascending and apart; ±inf where they go on."""


def find_speech(sound: AudioSource) -> Segments:
    """Return where `sound` holds speech, pauses of under half a second included. Decodes it once, holds a second of it.

    Raises `WeightsError` where ONNX Runtime or the model file is missing.
    """
    absent = [] if importlib.util.find_spec(_RUNTIME) else [_RUNTIME]
    try:
        model = store.locate(_MODEL)
    except WeightsError as error:
        raise _missing([*absent, "Silero's voice model"]) from error
    if absent:
        raise _missing(absent)
    from lipsync_core.media.voice_onnx import speech_probabilities  # noqa: PLC0415 - needs onnxruntime

    speech = speech_segments(speech_probabilities(sound.blocks(SAMPLE_RATE), model))
    if not len(speech):
        log.warning("no speech was found in %s: all of it is taken for silence", sound.path.name)
    return bridged(speech, sound.duration)


def _missing(what: list[str]) -> WeightsError:
    return WeightsError(
        f"Finding the silences needs {' and '.join(what)}, which {'is' if len(what) == 1 else 'are'} not installed.",
        'Run `pip install "lipsync-core[onnx]"` and `pip install --no-deps silero-vad==6.2.3`, '
        "or leave --silence at generate.",
    )


def speech_segments(probabilities: Iterable[NDArray[np.float32]]) -> Segments:
    """Return the stretches of speech in a sequence of the windows' probabilities."""
    window_s = WINDOW / SAMPLE_RATE
    found: list[tuple[int, int]] = []  # windows
    began = quiet = None
    count = 0
    for at, probability in enumerate(float(value) for part in probabilities for value in part):
        count = at + 1
        if probability >= _BEGINS:
            began, quiet = at if began is None else began, None
        elif began is not None and probability < _ENDS:
            quiet = at if quiet is None else quiet
            if (at - quiet) * window_s >= _LEAST_SILENCE_S:
                found.append((began, quiet))
                began = quiet = None
    if began is not None:
        found.append((began, count))
    segments = np.array(found, np.float64).reshape(-1, 2) * window_s
    return segments[np.diff(segments)[:, 0] > _LEAST_SPEECH_S]


def bridged(speech: Segments, duration: float) -> Segments:
    """Return the segments padded, and every pause of under half a second counted in, also at both ends of the sound."""
    joined: list[list[float]] = []
    for begin, end in (speech + np.array([-_PAD_S, _PAD_S])).tolist():
        if joined and begin - joined[-1][1] < _LEAST_PAUSE_S:
            joined[-1][1] = end
        else:
            joined.append([begin, end])
    if joined and joined[0][0] < _LEAST_PAUSE_S:
        joined[0][0] = -np.inf
    if joined and duration - joined[-1][1] < _LEAST_PAUSE_S:
        joined[-1][1] = np.inf
    return np.array(joined, np.float64).reshape(-1, 2)


def spoken(speech: Segments, times: NDArray[np.float64], end: float) -> NDArray[np.bool_]:
    """Say for each frame [N] whether something is said while it is shown.

    times: [N], when each is shown, s from the sound's start, ascending. end: when the last one's display ends.
    """
    until = np.append(times[1:], end)
    next_one = np.searchsorted(speech[:, 1], times, side="right")
    return np.append(speech[:, 0], np.inf)[next_one] < until


class SpeechOnly(AudioSource):
    """A sound in which all but the speech is silence: what an encoder hears whose mouth is to rest in between."""

    def __init__(self, sound: AudioSource, speech: Segments) -> None:
        super().__init__(sound.path)
        self._speech = speech

    def blocks(self, sample_rate: int, *, offset_s: float = 0.0) -> Iterable[AudioBlock]:
        """Return the blocks of `AudioSource.blocks`, each sample outside the speech 0."""
        return _Silenced(super().blocks(sample_rate, offset_s=offset_s), self._speech + offset_s, sample_rate)


@dataclass(frozen=True, slots=True)
class _Silenced:
    """The re-iterable `SpeechOnly.blocks` returns."""

    blocks: Iterable[AudioBlock]
    speech: Segments
    sample_rate: int

    def __iter__(self) -> Iterator[AudioBlock]:
        for block in self.blocks:
            stop = block.start + len(block.samples)
            times = np.arange(block.start, stop) / self.sample_rate
            kept = spoken(self.speech, times, stop / self.sample_rate)
            yield AudioBlock(block.start, block.samples * kept)
