"""How a long log-mel is cut into Whisper's windows, and rows of features into the tokens of video frames.

Plain arithmetic on NumPy arrays, in row and column numbers: 100 log-mel columns and 50 feature rows a second.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lipsync_core.types import AudioFeatures

Boundary = Literal["overlap", "reference"]
COLUMNS = 3000  # of a window: 30 s
ROWS_PER_SECOND = 50
# Rows within 1.5 s of a window's end lack the sound around them and are not used. The positions are part of the
# features, so even good rows of two windows differ: 2 s of cross-fade spread that to less than a frame's ordinary step.
_MARGIN_ROWS = 75
_FADE_ROWS = 100
_LEAST_OVERLAP = 2 * (2 * _MARGIN_ROWS + _FADE_ROWS)  # columns
# Times come as floats near i / fps: 2.9999999999 is row 3. A millionth of a row is 20 ns.
_ROUNDING = 1e-6
_BATCH = 128  # frames in the longest batch yielded: 10 MB of 50 × 384 tokens


@dataclass(frozen=True, slots=True)
class Window:
    """One run of the encoder: log-mel columns `start` … `start` + 3000, of which rows `first` … `stop` are used.

    Row numbers are the whole sound's. Rows a window shares with the next one are cross-faded.
    """

    start: int
    first: int
    stop: int


def plan(columns: int, boundary: Boundary) -> list[Window]:
    """Return the windows of a sound; together they give floor(columns / 2) rows, and never fewer than one.

    `reference`: one after the other, as LatentSync cuts them. `overlap`: evenly spread, each but the only one whole.
    """
    total = max(1, columns // 2)
    if boundary == "reference":
        return [Window(start, start // 2, min(total, (start + COLUMNS) // 2)) for start in range(0, 2 * total, COLUMNS)]
    last = 2 * total - COLUMNS
    if last <= 0:
        return [Window(0, 0, total)]
    count = 1 + -(-last // (COLUMNS - _LEAST_OVERLAP))
    # Even starts, so that the rows of all windows lie on one grid.
    starts = [last * k // (count - 1) // 2 * 2 for k in range(count)]
    cuts = [(start + COLUMNS + after) // 4 for start, after in pairwise(starts)]
    firsts = [0, *(cut - _FADE_ROWS // 2 for cut in cuts)]
    stops = [*(cut + _FADE_ROWS // 2 for cut in cuts), total]
    return [Window(*numbers) for numbers in zip(starts, firsts, stops, strict=True)]


def windowed(
    mel: Iterable[NDArray[np.float32]],
    windows: list[Window],
    padding: float,
    encode: Callable[[NDArray[np.float32]], NDArray[np.float32]],
) -> Iterator[NDArray[np.float32]]:
    """Yield consecutive feature rows [n, states, width].

    `mel`: normalised log-mel [m, 80] in batches; `padding`: what stands behind its end; `encode`: log-mel [3000, 80] to
    rows [1500, states, width]. Holds one window of columns and of rows.
    """
    source = iter(mel)
    held, begin = np.zeros((0, 0), np.float32), 0
    tail = None  # rows of the last window that the next one fades in over
    for window, after in zip(windows, [*windows[1:], None], strict=True):
        batches = [held[window.start - begin :]] if held.size else []
        count = sum(len(batch) for batch in batches)
        while count < COLUMNS and (batch := next(source, None)) is not None:
            batches.append(batch)
            count += len(batch)
        held, begin = np.concatenate(batches) if batches else held, window.start
        columns = held[:COLUMNS]
        if len(columns) < COLUMNS:
            bands = columns.shape[1]
            columns = np.concatenate([columns, np.full((COLUMNS - len(columns), bands), padding, np.float32)])
        offset = window.start // 2
        rows = encode(columns)[window.first - offset : window.stop - offset]
        if tail is not None and len(tail):
            share = ((np.arange(len(tail)) + 0.5) / len(tail)).astype(np.float32)[:, None, None]
            rows[: len(tail)] = tail * (1 - share) + rows[: len(tail)] * share
        shared = window.stop - after.first if after else 0
        yield rows[: len(rows) - shared]
        tail = rows[len(rows) - shared :].copy()


def framewise(
    rows: Iterable[NDArray[np.float32]], times: NDArray[np.float64], before: int, after: int
) -> Iterator[AudioFeatures]:
    """Yield float32 [n, (before + 1 + after) · states, width] of the frames at `times` (s, not decreasing).

    The frame at t sees the rows floor(50 t) − before … + after, each clamped to the first and the last there is;
    row-major, the states of a row fastest (FACTS §4).
    """
    centre = np.floor(np.asarray(times, np.float64) * ROWS_PER_SECOND + _ROUNDING).astype(np.int64)
    held, first, done = None, 0, 0
    for chunk in rows:
        held = chunk if held is None else np.concatenate([held, chunk])
        end = first + len(held)
        ready = int(np.searchsorted(centre, end - after, side="left"))
        yield from _tokens(held, first, centre[done:ready], before, after, done)
        done = max(done, ready)
        if done == len(centre):
            return
        # What the next frame still sees; the last row stays for frames behind the end.
        keep = int(np.clip(centre[done] - before, first, end - 1))
        held, first = held[keep - first :], keep
    if held is not None:
        yield from _tokens(held, first, centre[done:], before, after, done)


def _tokens(
    held: NDArray[np.float32], first: int, centre: NDArray[np.int64], before: int, after: int, start: int
) -> Iterator[AudioFeatures]:
    reach = np.arange(-before, after + 1)
    for begin in range(0, len(centre), _BATCH):
        index = np.clip(centre[begin : begin + _BATCH, None] + reach - first, 0, len(held) - 1)
        values = held[index]  # [n, rows, states, width]
        yield AudioFeatures(start + begin, values.reshape(len(index), -1, values.shape[-1]))
