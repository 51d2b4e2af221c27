"""How windows and rows are laid out, against LatentSync's own index tables and against plain arithmetic."""

from __future__ import annotations

import json
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from lipsync_audio.whisper_windows import COLUMNS, framewise, plan, windowed

FPS = {"25": Fraction(25), "30": Fraction(30), "23.976": Fraction(24000, 1001)}


def times(count: int, fps: Fraction) -> NDArray[np.float64]:
    return np.array([float(i / fps) for i in range(count)])


@pytest.mark.parametrize("length", ["12s", "35s"])
@pytest.mark.parametrize("fps", FPS)
@pytest.mark.parametrize("piece", [7, 600, 5000])
def test_the_rows_of_a_frame_are_the_references(shared_reference: Path, length: str, fps: str, piece: int) -> None:
    """Equal to its index tables, but for its own rounding: i * 50 / fps in floats, which falls short of a whole row.

    At 23.976 that happens to frame 480 (20.02 s = row 1001 exactly); the true row is kept there.
    """
    load = pytest.importorskip("safetensors.numpy", reason="needs safetensors (extra torch)").load_file
    table = load(shared_reference / f"tiny_whisper_{length}.safetensors")[f"chunk_index_table.fps{fps}"]
    total = int(table.max()) + 1
    number = np.arange(total, dtype=np.float32).reshape(-1, 1, 1)
    pieces = (number[start : start + piece] for start in range(0, total, piece))
    batches = list(framewise(pieces, times(len(table), FPS[fps]), 4, 5))
    got = np.concatenate([batch.values for batch in batches])[..., 0]
    exact = [int(i * 50 / FPS[fps]) for i in range(len(table))]
    rounded = [int(i * 50 / float(FPS[fps])) for i in range(len(table))]
    differs = [i for i in range(len(table)) if exact[i] != rounded[i]]
    assert differs == ([480] if (fps, length) == ("23.976", "35s") else [])
    same = np.setdiff1d(np.arange(len(table)), differs)
    np.testing.assert_array_equal(got[same], table[same])
    for i in differs:
        np.testing.assert_array_equal(got[i], np.clip(exact[i] + np.arange(-4, 6), 0, total - 1))


def test_floats_never_cost_a_row(shared_reference: Path) -> None:
    counts = json.loads((shared_reference / "audio_chunk_counts.json").read_text())["counts_by_fps_then_feature_rows_L"]
    rates = {"23.976": Fraction(24000, 1001), "29.97": Fraction(30000, 1001)}
    for fps, table in counts.items():
        rate = rates.get(fps, Fraction(fps))
        for rows, count in table.items():
            # The last frame is the first whose row lies behind the last one (FACTS §4).
            number = np.arange(int(rows) + 2, dtype=np.float32).reshape(-1, 1, 1)
            (*_, last) = framewise([number], times(count, rate), 0, 0)
            centre = last.values[:, 0, 0]
            assert centre[-1] == int(rows) + 1
            if len(centre) > 1:
                assert centre[-2] <= int(rows)


@given(st.integers(0, 40_000))
@settings(max_examples=300, deadline=None)
def test_plans_cover_every_row_once(columns: int) -> None:
    total = max(1, columns // 2)
    for boundary in ("overlap", "reference"):
        windows = plan(columns, boundary)  # type: ignore[arg-type]
        assert windows[0].first == 0
        assert windows[-1].stop == total
        for window in windows:
            assert window.start % 2 == 0
            assert window.start // 2 <= window.first < window.stop <= (window.start + COLUMNS) // 2
        for one, two in pairwise(windows):
            shared = one.stop - two.first
            assert shared == (100 if boundary == "overlap" else 0)
            if boundary == "overlap":
                assert two.first - two.start // 2 >= 75
                assert (one.start + COLUMNS) // 2 - one.stop >= 75
                assert two.first >= (one.first + 100 if one.first else 0)
    if columns >= COLUMNS:
        assert all(w.start + COLUMNS <= columns for w in plan(columns, "overlap"))


@given(st.integers(1, 9_000), st.integers(1, 4_000), st.sampled_from(["overlap", "reference"]))
@settings(max_examples=60, deadline=None)
def test_windows_join_to_the_rows_of_the_whole(columns: int, piece: int, boundary: Any) -> None:
    """With an encoder that returns the mean of each two columns the joined rows are those of the whole sound."""
    mel = np.random.default_rng(columns).normal(size=(columns, 3)).astype(np.float32)

    def pairs(window: NDArray[np.float32]) -> NDArray[np.float32]:
        assert window.shape == (COLUMNS, 3)
        return window.reshape(-1, 2, 3).mean(axis=1, keepdims=True)

    pieces = (mel[start : start + piece] for start in range(0, columns, piece))
    rows = np.concatenate(list(windowed(pieces, plan(columns, boundary), 9.0, pairs)))
    padded = np.concatenate([mel, np.full((columns % 2, 3), 9.0, np.float32)])
    want = padded.reshape(-1, 2, 3).mean(axis=1, keepdims=True)[: max(1, columns // 2)]
    np.testing.assert_allclose(rows, want, atol=1e-5)


@given(
    st.lists(st.floats(-2.0, 12.0), min_size=1, max_size=300).map(sorted),
    st.integers(1, 500),
    st.integers(1, 200),
    st.integers(0, 6),
    st.integers(0, 6),
)
@settings(max_examples=150, deadline=None)
def test_any_times_see_their_rows(at: list[float], total: int, piece: int, before: int, after: int) -> None:
    number = np.arange(total, dtype=np.float32).reshape(-1, 1, 1)
    pieces = (number[start : start + piece] for start in range(0, total, piece))
    batches = list(framewise(pieces, np.array(at), before, after))
    got = np.concatenate([batch.values for batch in batches])[..., 0]
    centre = np.floor(np.array(at) * 50 + 1e-6)[:, None]
    np.testing.assert_array_equal(got, np.clip(centre + np.arange(-before, after + 1), 0, total - 1))
