"""Log-mel spectrogram of a stream of samples, as Whisper and LatentSync compute it.

16 kHz mono; Hann window of 400 samples, hop 160, centred with reflected ends; power spectrum; 80 Slaney mel bands;
base-10 logarithm. Row k is centred on sample 160 k, that is at k / 100 s, and there are floor(samples / 160) rows.
Whisper then raises everything to 8 below the maximum of the whole file and maps x to (x + 4) / 4: that needs a pass of
its own for the maximum, so it is a second function.

Source of the constants: the Whisper paper (Radford et al., 2022, section 2.2) and the published Whisper front end.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from lipsync_core.types import AudioBlock

SAMPLE_RATE = 16_000  # Hz
WINDOW = 400  # samples: 25 ms
HOP = 160  # samples: 10 ms
ROWS_PER_SECOND = SAMPLE_RATE // HOP
BANDS = 80
LOWEST = -10.0  # log10 of the clamp 1e-10: what digital silence gives
RANGE = 8.0  # log10 units kept below the file's maximum: 80 dB

_PAD = WINDOW // 2
# Rows computed at once. The grid is fixed, so that every cutting of the stream gives the same products, bit for bit.
_BATCH = 512


@lru_cache(maxsize=1)
def mel_filters() -> NDArray[np.float32]:
    """Return the filter bank float32 [201, 80]: triangles evenly spaced in mel from 0 to 8 kHz, each of unit area.

    The scale is Slaney's (Auditory Toolbox, Interval Technical Report 1998-010): 200/3 Hz a mel up to 1 kHz, above
    it 27 mel for each factor of 6.4.
    """
    knee, hz_per_mel, log_step = 1000.0, 200.0 / 3.0, np.log(6.4) / 27.0
    knee_mel = knee / hz_per_mel
    top = knee_mel + np.log(SAMPLE_RATE / 2 / knee) / log_step
    mel = np.linspace(0.0, top, BANDS + 2)
    corner = np.where(mel < knee_mel, mel * hz_per_mel, knee * np.exp((mel - knee_mel) * log_step))
    hz = np.linspace(0.0, SAMPLE_RATE / 2, WINDOW // 2 + 1)[:, None]
    low, centre, high = corner[:-2], corner[1:-1], corner[2:]
    triangle = np.maximum(0.0, np.minimum((hz - low) / (centre - low), (high - hz) / (high - centre)))
    bank: NDArray[np.float32] = (triangle * (2.0 / (high - low))).astype(np.float32)
    bank.flags.writeable = False
    return bank


@lru_cache(maxsize=1)
def _hann() -> NDArray[np.float32]:
    window = (0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(WINDOW) / WINDOW)).astype(np.float32)
    window.flags.writeable = False
    return window


def _rows_of(samples: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    """Return `count` rows of log10 mel power; row i sees samples[160 i : 160 i + 400]."""
    frames = np.lib.stride_tricks.sliding_window_view(samples, WINDOW)[: (count - 1) * HOP + 1 : HOP]
    spectrum = np.fft.rfft(frames * _hann(), axis=1)
    power = spectrum.real**2 + spectrum.imag**2
    rows = np.log10(np.maximum(power @ mel_filters(), np.float32(10.0**LOWEST)))
    # The float32 logarithm of the clamp lies a hair below `LOWEST`; silence is to be exactly that.
    return np.maximum(rows, np.float32(LOWEST))


def log_mel_rows(audio: Iterable[AudioBlock]) -> Iterator[NDArray[np.float32]]:
    """Yield log10 mel power float32 [n, 80] of consecutive rows; no row is lower than `LOWEST`.

    The result does not depend on how the samples are cut into blocks, and no more than a few seconds are held.
    A sound shorter than one hop (160 samples) has no row. Raises ValueError if the blocks do not follow each other
    from sample 0.
    """
    held = np.zeros(0, np.float32)  # begins at sample `first`, which is negative while it holds the reflected start
    first, received, done = 0, 0, 0
    waiting: list[NDArray[np.float32]] = []
    need = (_BATCH - 1) * HOP + WINDOW
    for block in audio:
        if block.start != received:
            raise ValueError(f"audio blocks must be consecutive: expected sample {received}, got {block.start}")
        received += len(block.samples)
        waiting.append(block.samples)
        if received - first < need:
            continue
        held = np.concatenate([held, *waiting])
        waiting.clear()
        if first == 0:
            held, first = np.concatenate([held[_PAD:0:-1], held]), -_PAD
        while len(held) >= need:
            yield _rows_of(held, _BATCH)
            done += _BATCH
            held, first = held[_BATCH * HOP :], first + _BATCH * HOP
    left = received // HOP - done
    if left < 1:
        return
    held = np.concatenate([held, *waiting])
    # np.pad reflects again and again where the sound is shorter than the padding; the reference fails there.
    held = np.pad(held, (_PAD if first == 0 else 0, _PAD), mode="reflect")
    while left > 0:
        count = min(left, _BATCH)
        yield _rows_of(held, count)
        held, left = held[count * HOP :], left - count


def scaled(rows: NDArray[np.float32], peak: float) -> NDArray[np.float32]:
    """Return `rows` as Whisper takes them: no lower than `peak` − 8, then (x + 4) / 4.

    `peak` is the maximum over all rows of the whole file.
    """
    result: NDArray[np.float32] = (np.maximum(rows, np.float32(peak - RANGE)) + np.float32(4.0)) / np.float32(4.0)
    return result
