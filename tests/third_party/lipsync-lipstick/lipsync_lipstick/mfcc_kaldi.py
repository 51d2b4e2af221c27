"""The audio backend `mfcc-kaldi`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Final

import kaldi_native_fbank as knf
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from lipsync_core.types import AudioBlock, AudioFeatures

_RATE: Final = 16000
_ROWS_PER_SECOND: Final = 100
_REACH: Final = 2  # rows on either side of a frame's own
_COEFFICIENTS: Final = 13


class Options(BaseModel):
    """Options of `mfcc-kaldi`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    mel_bins: int = Field(23, ge=13, le=80, description="number of mel bands the coefficients are made from")


class MfccKaldi:
    """Gives each frame the 13 MFCC of the five 10 ms steps around it, as Kaldi computes them; the first is the energy.

    Before the sound and after its end there is silence, which has coefficients of its own.
    """

    sample_rate = _RATE
    feature_shape = (2 * _REACH + 1, _COEFFICIENTS)

    def __init__(self, options: Options) -> None:
        self._options = knf.MfccOptions()
        self._options.frame_opts.samp_freq = _RATE
        self._options.frame_opts.dither = 0.0  # or each run would give other numbers
        self._options.frame_opts.snip_edges = False  # row k is centred on (k + ½) · 10 ms
        self._options.mel_opts.num_bins = options.mel_bins
        (self._silence,) = self._rows([np.zeros(_RATE // _ROWS_PER_SECOND, np.float32)])

    def encode(self, audio: Iterable[AudioBlock], *, times: NDArray[np.float64]) -> Iterator[AudioFeatures]:
        """Yield the coefficients for each of `times`; held are a block's rows and the few a frame looks back on."""
        rows = self._rows(block.samples for block in audio)
        held: list[NDArray[np.float32]] = []
        first = 0  # the number of the row held[0]
        for frame, time in enumerate(times):
            own = int(np.floor(time * _ROWS_PER_SECOND))
            begin, end = own - _REACH, own + _REACH + 1
            while first + len(held) < end:
                row = next(rows, None)
                if row is None:
                    break
                held.append(row)
                if len(held) > 1 and first < begin:
                    del held[0]
                    first += 1
            near = [held[k - first] if first <= k < first + len(held) else self._silence for k in range(begin, end)]
            yield AudioFeatures(frame, np.stack(near)[None])

    def _rows(self, sound: Iterable[NDArray[np.float32]]) -> Iterator[NDArray[np.float32]]:
        """Yield the coefficients [13] of each 10 ms, as soon as there is sound enough for them."""
        mfcc, done = knf.OnlineMfcc(self._options), 0
        for samples in chain(sound, [None]):
            if samples is None:
                mfcc.input_finished()
            elif len(samples):
                mfcc.accept_waveform(_RATE, samples)
            ready = mfcc.num_frames_ready
            for number in range(done, ready):
                yield mfcc.get_frame(number).copy()  # what it returns is its own memory
            mfcc.pop(ready - done)
            done = ready
