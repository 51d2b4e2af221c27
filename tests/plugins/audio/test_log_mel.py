"""The log-mel against its golden, its formula, and every cutting of the stream."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from lipsync_audio.log_mel import BANDS, LOWEST, SAMPLE_RATE, log_mel_rows, mel_filters, scaled
from lipsync_core.types import AudioBlock

Array = NDArray[np.float32]


def cut(samples: Array, *sizes: int) -> Iterator[AudioBlock]:
    """Yield blocks of `sizes`, then what is left as one."""
    start = 0
    for size in (*sizes, len(samples)):
        yield AudioBlock(start, samples[start : start + size].copy())
        start = min(start + size, len(samples))


def all_rows(samples: Array, *sizes: int) -> Array:
    return np.concatenate([np.zeros((0, BANDS), np.float32), *log_mel_rows(cut(samples, *sizes))])


def tensor(file: Path, name: str) -> NDArray[Any]:
    """Read one float32 tensor of a safetensors file: length of the header, JSON header, data."""
    data = file.read_bytes()
    header = 8 + int.from_bytes(data[:8], "little")
    entry = json.loads(data[8:header])[name]
    begin, end = entry["data_offsets"]
    return np.frombuffer(data[header + begin : header + end], "<f4").reshape(entry["shape"])


def decoded(file: Path) -> Array:
    """Decode to signed 16-bit mono 16 kHz, as the reference does."""
    with av.open(str(file)) as container:
        resampler = av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE)
        frames = [part for frame in container.decode(audio=0) for part in resampler.resample(frame)]
        frames += resampler.resample(None)
        return np.concatenate([frame.to_ndarray().ravel() for frame in frames]).astype(np.float32) / 32768


def noise(count: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(0.0, 0.1, count).astype(np.float32)


def direct(samples: NDArray[np.float64]) -> NDArray[np.float64]:
    """The definition, one frame at a time, in double precision."""
    padded = np.pad(samples, 200, mode="reflect")
    window = np.sin(np.pi * np.arange(400) / 400) ** 2
    frames = [padded[160 * k : 160 * k + 400] * window for k in range(len(samples) // 160)]
    power = np.abs(np.fft.fft(frames)[:, :201]) ** 2
    return np.log10(np.maximum(power @ mel_filters().astype(np.float64), 1e-10))


def test_matches_whisper_on_12_seconds(shared_reference: Path) -> None:
    rows = all_rows(decoded(shared_reference / "tiny_whisper_12s.wav"), 1000, 37)
    golden = tensor(shared_reference / "tiny_whisper_12s.safetensors", "mel").T
    assert rows.shape == golden.shape
    np.testing.assert_allclose(scaled(rows, float(rows.max())), golden, atol=1e-4)


def test_matches_whisper_beyond_30_seconds(shared_reference: Path) -> None:
    rows = all_rows(decoded(shared_reference / "tiny_whisper_35s.flac"))
    result = scaled(rows, float(rows.max()))
    file = shared_reference / "tiny_whisper_35s.safetensors"
    assert len(result) == 3500
    for first, last in ((0, 100), (2950, 3050), (3400, 3500)):
        golden = tensor(file, f"mel_cols_{first}_{last}").T
        np.testing.assert_allclose(result[first:last], golden, atol=1e-4)
    np.testing.assert_allclose(result.mean(axis=1), tensor(file, "mel_col_mean"), atol=1e-5)


def test_matches_the_training_pairs_on_a_real_clip(shared_data: Path) -> None:
    rows = all_rows(decoded(shared_data / "ls_demo1.mp4"))
    with np.load(shared_data / "mouth_shapes" / "mouth_shapes.npz") as pairs:
        stored = pairs["ls_demo1.mel"].astype(np.float32)
    # float16 storage and two decoders: half a percent of the range of 2.
    np.testing.assert_allclose(scaled(rows, float(rows.max())), stored, atol=1e-2)


def test_the_definition() -> None:
    samples = noise(5000, 1)
    np.testing.assert_allclose(all_rows(samples), direct(samples.astype(np.float64)), atol=2e-4)


def test_filters_are_triangles_of_unit_area_in_order() -> None:
    bank = mel_filters()
    assert bank.shape == (201, BANDS)
    centres = bank.argmax(axis=0) * 40.0
    assert (np.diff(centres) >= 0).all()
    # 1 kHz is mel 15 and the bands are 45.245 / 81 mel apart, so the bands below it are evenly spaced.
    assert centres[25] == pytest.approx(26 * 45.245 / 81 * 200 / 3, abs=21)
    wide = bank[:, 60:]
    np.testing.assert_allclose(wide.sum(axis=0) * 40.0, 1.0, atol=0.05)


@pytest.mark.parametrize(("hertz", "band"), [(200.0, 4), (1000.0, 26), (4000.0, 62)])
def test_a_tone_is_loudest_in_its_band(hertz: float, band: int) -> None:
    time = np.arange(16000) / SAMPLE_RATE
    rows = all_rows(np.sin(2 * np.pi * hertz * time).astype(np.float32))
    assert abs(int(rows[50].argmax()) - band) <= 1


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 200_000), st.lists(st.integers(0, 90_000), max_size=6))
def test_any_cutting_gives_the_same_rows(count: int, sizes: list[int]) -> None:
    samples = noise(count)
    whole = all_rows(samples)
    assert len(whole) == count // 160
    np.testing.assert_array_equal(all_rows(samples, *sizes), whole)


@pytest.mark.parametrize(("count", "rows"), [(0, 0), (1, 0), (159, 0), (160, 1), (200, 1), (201, 1), (320, 2)])
def test_very_short_sounds(count: int, rows: int) -> None:
    result = all_rows(noise(count))
    assert result.shape == (rows, BANDS)
    assert np.isfinite(result).all()


def test_digital_silence_is_the_lowest_value() -> None:
    assert (all_rows(np.zeros(16000, np.float32)) == LOWEST).all()


def test_scaling_keeps_eight_below_the_peak() -> None:
    rows = np.array([[-10.0, -6.5, 0.0, 2.0]], np.float32)
    np.testing.assert_allclose(scaled(rows, 2.0), [[-0.5, -0.5, 1.0, 1.5]])


def test_a_gap_between_blocks_is_an_error() -> None:
    blocks = [AudioBlock(0, noise(1000)), AudioBlock(1001, noise(1000))]
    with pytest.raises(ValueError, match="expected sample 1000, got 1001"):
        list(log_mel_rows(blocks))
