"""The encoder: shapes, times, streaming, silence, options, and a speaker it was not trained on."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import ValidationError

from lipsync_audio.log_mel import LOWEST, log_mel_rows
from lipsync_audio.mouth_shape_numpy import MouthShapeNumpy, MouthShapeOptions, _RowSample, band_statistics
from lipsync_audio.plugin import lipsync_register_backends
from lipsync_core.errors import SettingsError, WeightsError
from lipsync_core.types import AudioBlock

Array = NDArray[np.float32]
RATE = 16_000


class Sound:
    """Samples as an iterable that can be gone through again, cut at `cuts`."""

    def __init__(self, samples: Array, cuts: list[int] | None = None) -> None:
        self.samples = samples
        self.edges = sorted({0, len(samples), *(c % (len(samples) + 1) for c in cuts or [])})
        self.passes = 0

    def __iter__(self) -> Iterator[AudioBlock]:
        self.passes += 1
        for start, stop in zip(self.edges, self.edges[1:], strict=False):
            yield AudioBlock(start, self.samples[start:stop].copy())


@cache
def encoder(*, hidden: bool = False) -> MouthShapeNumpy:
    return MouthShapeNumpy(MouthShapeOptions(hidden=hidden))


def speech(seconds: float, seed: int = 0) -> Array:
    """Syllables of band-limited noise, four a second, over faint noise."""
    rng = np.random.default_rng(seed)
    count = round(seconds * RATE)
    time = np.arange(count) / RATE
    buzz = sum(np.sin(2 * np.pi * 120 * k * time) / k for k in range(1, 20))
    envelope = np.maximum(np.sin(2 * np.pi * 2 * time + rng.uniform(0, 6)), 0) ** 2
    return (0.1 * buzz * envelope + rng.normal(0, 0.002, count)).astype(np.float32)


def values(sound: Sound | Array, times: NDArray[np.float64], *, hidden: bool = False) -> Array:
    """Return features [N, dim], having checked that the batches follow each other."""
    if not isinstance(sound, Sound):
        sound = Sound(sound)
    chosen = encoder(hidden=hidden)
    batches = list(chosen.encode(sound, times=times))
    start = 0
    for batch in batches:
        assert batch.start == start
        assert batch.values.shape[1:] == chosen.feature_shape
        start += len(batch.values)
    assert start == len(times)
    return np.concatenate([np.zeros((0, chosen.feature_shape[1]), np.float32)] + [b.values[:, 0] for b in batches])


def test_shape_and_type() -> None:
    assert encoder().sample_rate == RATE
    assert encoder().feature_shape == (1, 8)
    assert encoder(hidden=True).feature_shape == (1, 137)
    sound = Sound(speech(2.0))
    result = values(sound, np.arange(50) / 25)
    assert result.dtype == np.float32
    assert result.shape == (50, 8)
    assert sound.passes == 2
    assert result[:, 0].std() > 0.1


def test_hidden_features_give_the_shape_through_the_linear_head() -> None:
    times = np.arange(70) / 30
    both = values(speech(2.0), times, hidden=True)
    np.testing.assert_array_equal(both[:, :8], values(speech(2.0), times))
    again = both[:, 8:136] @ encoder().head_weight.T + encoder().head_bias
    np.testing.assert_allclose(both[:, :8], again, atol=1e-5)


@settings(max_examples=8, deadline=None)
@given(st.lists(st.integers(0, 10**6), max_size=8), st.floats(0.0, 14.0))
def test_any_cutting_gives_the_same_features(cuts: list[int], seconds: float) -> None:
    samples = speech(seconds)
    times = np.arange(-3, round(seconds * 24) + 5) / 24
    whole = values(samples, times, hidden=True)
    np.testing.assert_array_equal(values(Sound(samples, cuts), times, hidden=True), whole)


def test_windowed_equals_whole() -> None:
    """Go round the windows: normalise the whole log-mel, run the net once, interpolate with np.interp."""
    samples = speech(35.0)
    times = np.sort(np.random.default_rng(1).uniform(-1, 37, 900))
    net = encoder().net
    rows = np.concatenate(list(log_mel_rows(Sound(samples))))
    peak = float(rows.max())
    mel = (np.maximum(np.pad(rows, ((203, 400), (0, 0)), constant_values=LOWEST), peak - 8) + 4) / 4
    mean, std = band_statistics(mel[203:-400], (peak + 4) / 4)
    shape = net.shape(net.hidden((mel - mean) / std))
    centres = np.arange(len(shape)) / 25 - 1.4  # the context is 63 rows of 10 ms, the silence before the sound 203
    expected = np.stack([np.interp(times, centres, shape[:, k]) for k in range(8)], axis=1)
    np.testing.assert_allclose(values(samples, times), expected, atol=2e-4)


def test_frame_rates_agree_where_they_meet() -> None:
    samples = speech(4.0)
    slow = values(samples, np.arange(100) / 25)
    np.testing.assert_allclose(values(samples, np.arange(200) / 50)[::2], slow, atol=1e-6)
    odd = np.sort(np.concatenate([np.arange(100) / 25, np.random.default_rng(2).uniform(0, 4, 77)]))
    np.testing.assert_allclose(values(samples, odd)[np.searchsorted(odd, np.arange(100) / 25)], slow, atol=1e-6)


@settings(max_examples=10)
@given(st.lists(st.floats(0, 2.5), min_size=1, max_size=300), st.integers(0, 3))
def test_neighbours_are_the_shapes_around_each_frame(times: list[float], reach: int) -> None:
    shown, sound = np.sort(times), Sound(speech(2.0))
    batches = list(MouthShapeNumpy(MouthShapeOptions(reach=reach)).encode(sound, times=shown))
    tokens = 2 * reach + 1
    got = np.concatenate([batch.values for batch in batches]).reshape(len(shown), tokens, tokens, 8)
    assert [batch.start for batch in batches] == np.cumsum([0, *(len(b.values) for b in batches)])[:-1].tolist()
    for token, later in enumerate(range(-reach, reach + 1)):
        np.testing.assert_allclose(got[:, token, token], values(sound, shown + later / 25)[:, :8], atol=1e-5)
        assert not np.delete(got[:, token], token, axis=1).any()


def test_hidden_and_neighbours_exclude_each_other() -> None:
    with pytest.raises(SettingsError, match="hidden and reach exclude each other"):
        MouthShapeNumpy(MouthShapeOptions(hidden=True, reach=2))


def test_shapes_are_spread_out_to_a_speakers_usual_deviation() -> None:
    times, sound = np.arange(75) / 25, Sound(speech(3.0))

    def heard(spread: float | None, times: NDArray[np.float64] = times, sound: Sound = sound) -> NDArray[np.float32]:
        encoder = MouthShapeNumpy(MouthShapeOptions(reach=0, spread=spread))
        return np.concatenate([part.values[:, 0] for part in encoder.encode(sound, times=times)])

    flat = heard(None)
    deviation = float(flat[:, 0].std())
    # All eight by the same factor, which brings the opening's deviation there.
    spread = heard(1.7 * deviation)
    gain = float(spread[:, 0].std()) / deviation
    assert gain == pytest.approx(1.7, rel=0.05)  # the frames are not quite the net's rows
    np.testing.assert_allclose(spread, gain * flat, rtol=1e-4, atol=1e-5)
    # No more than 2.5-fold, and nothing is made smaller.
    np.testing.assert_allclose(heard(9 * deviation), 2.5 * flat, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(heard(0.2 * deviation), flat, rtol=1e-4, atol=1e-6)
    # It is the sound that counts, not what is asked of it: a resumed job, or a resting mouth, asks for a few frames.
    for few in (times[50:], times[7:8]):
        np.testing.assert_allclose(heard(1.7 * deviation, few), spread[np.isin(times, few)], rtol=1e-4, atol=1e-5)
    # Half a second has no deviation to speak of.
    short = Sound(speech(0.5))
    np.testing.assert_allclose(heard(9.0, times[:12], short), heard(None, times[:12], short), atol=1e-6)


def test_spread_needs_reach() -> None:
    with pytest.raises(SettingsError, match="spread needs reach"):
        MouthShapeNumpy(MouthShapeOptions(spread=1.0))


def test_between_rows_it_is_linear() -> None:
    at = values(speech(2.0), np.array([1.0, 1.01, 1.04]))
    np.testing.assert_allclose(at[1], 0.75 * at[0] + 0.25 * at[2], atol=1e-5)


def test_times_outside_the_sound_are_silence() -> None:
    samples = speech(2.0)
    result = values(samples, np.array([-1e6, -2.0, 1.0, 5.0, 1e6]))
    for row in (0, 1, 3):
        np.testing.assert_allclose(result[row], result[4], atol=1e-5)
    assert result[4, 0] < -0.3  # the mouth is shut
    assert result[4, 0] < values(samples, np.arange(50) / 25)[:, 0].mean()


def test_digital_silence_around_speech_changes_nothing_in_it() -> None:
    samples = speech(4.0)
    around = np.zeros(6 * RATE, np.float32)
    plain = values(samples, np.arange(100) / 25)
    padded = values(np.concatenate([around, samples, around]), 6 + np.arange(100) / 25)
    np.testing.assert_allclose(padded, plain, atol=0.1)


@pytest.mark.parametrize("level", [0.0, 1e-5])
def test_a_silent_clip_keeps_the_mouth_shut_and_still(level: float) -> None:
    noise = np.random.default_rng(3).uniform(-level, level, 5 * RATE).astype(np.float32)
    result = values(noise, np.arange(125) / 25)
    assert np.isfinite(result).all()
    assert (result[:, 0] < -0.3).all()
    assert result[:, 0].std() < 0.1


@pytest.mark.parametrize("count", [0, 1, 159, 160, 800])
def test_very_short_sounds(count: int) -> None:
    result = values(speech(1.0)[:count], np.array([-1.0, 0.0, 0.02, 0.5, 3.0]))
    assert np.isfinite(result).all()


def test_no_frames_no_features() -> None:
    assert list(encoder().encode(Sound(speech(1.0)), times=np.zeros(0))) == []


def test_sound_that_can_be_read_only_once_is_refused() -> None:
    with pytest.raises(TypeError, match="read twice"):
        list(encoder().encode(iter(Sound(speech(1.0))), times=np.zeros(1)))


def test_memory_does_not_grow_with_length() -> None:
    class Noise:
        def __init__(self, seconds: int) -> None:
            self.seconds = seconds

        def __iter__(self) -> Iterator[AudioBlock]:
            rng = np.random.default_rng(4)
            for second in range(self.seconds):
                yield AudioBlock(second * RATE, rng.standard_normal(RATE, dtype=np.float32))

    def peak(seconds: int) -> int:
        times = np.arange(seconds * 25) / 25
        tracemalloc.start()
        count = sum(len(batch.values) for batch in encoder().encode(Noise(seconds), times=times))
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert count == len(times)
        return used

    assert peak(200) < 1.1 * peak(90)


def test_loudness_of_the_file_does_not_matter() -> None:
    samples = speech(3.0)
    times = np.arange(75) / 25
    np.testing.assert_allclose(values(samples * np.float32(0.05), times), values(samples, times), atol=0.02)


def loudness(samples: Array, times: NDArray[np.float64]) -> Array:
    return values(samples, times, hidden=True)[:, 136]


def hiss(seconds: float, decibels: float, seed: int = 5) -> Array:
    """White noise so far from full scale."""
    noise = np.random.default_rng(seed).standard_normal(round(seconds * RATE), dtype=np.float32)
    return noise * np.float32(10 ** (decibels / 20))


def test_loudness_is_decibels_below_the_speech() -> None:
    samples = np.concatenate([hiss(2.0, -20.0), hiss(1.0, -50.0), hiss(2.0, -20.0), np.zeros(RATE, np.float32)])
    times = np.arange(-10, 170) / 25
    level = loudness(samples, times)
    assert level.dtype == np.float32
    at = np.rint(times * 25)
    np.testing.assert_allclose(level[(at > 2) & (at < 48)], 0.0, atol=2.5)
    np.testing.assert_allclose(level[(at > 52) & (at < 73)], -31.0, atol=2.5)
    np.testing.assert_array_equal(level[(at < -1) | (at > 127)], -60.0)
    # It changes where the sound does: half way down within a frame of 2 s, and up within one of 3 s.
    loud = level > -15
    assert loud[at == 49].all()
    assert not loud[at == 51].any()
    assert not loud[at == 74].any()
    assert loud[at == 76].all()


@pytest.mark.parametrize("pause", [np.zeros(57 * RATE, np.float32), hiss(57.0, -65.0)])
def test_loudness_does_not_depend_on_how_much_of_the_clip_is_speech_or_how_loud_it_is(pause: Array) -> None:
    times = np.arange(75) / 25
    plain = loudness(speech(3.0), times)
    np.testing.assert_allclose(loudness(np.concatenate([speech(3.0), pause]), times)[:-3], plain[:-3], atol=1.0)
    np.testing.assert_allclose(loudness(speech(3.0) * np.float32(0.05), times), plain, atol=1.0)


def test_a_click_does_not_make_speech_quiet() -> None:
    samples = speech(6.0)
    times = np.arange(150) / 25
    clicked = samples.copy()
    clicked[RATE : RATE + 40] = 0.9
    away = np.abs(times - 1.0) > 0.1
    np.testing.assert_allclose(loudness(clicked, times)[away], loudness(samples, times)[away], atol=2.0)


@pytest.mark.parametrize("level", [0.0, 1e-5])
def test_a_silent_clip_is_as_quiet_as_can_be(level: float) -> None:
    noise = np.random.default_rng(3).uniform(-level, level, 2 * RATE).astype(np.float32)
    np.testing.assert_array_equal(loudness(noise, np.arange(50) / 25), -60.0)


def test_loudness_window_by_window_equals_the_whole() -> None:
    samples = speech(25.0)
    rows = np.concatenate(list(log_mel_rows(Sound(samples)))).mean(axis=1)
    top = rows[rows >= rows.max() - 2.5]
    level = np.clip(10 * (rows - np.percentile(top, 90)), -60, 0)
    expected = [level[4 * k - 2 : 4 * k + 3].mean() for k in range(1, 620)]
    np.testing.assert_allclose(loudness(samples, np.arange(1, 620) / 25), expected, atol=1e-3)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 9000), min_size=1, max_size=8))
def test_the_sample_of_rows_is_evenly_spaced(sizes: list[int]) -> None:
    sample, count = _RowSample(), 0
    for size in sizes:
        sample.add(np.repeat(np.arange(count, count + size, dtype=np.float32)[:, None], 80, axis=1))
        count += size
    kept = sample.rows[: sample.count, 0]
    np.testing.assert_array_equal(kept, np.arange(0, count, sample.every))
    assert len(kept) > 4096 or sample.every == 1


def test_options_forbid_extras_and_are_frozen(tmp_path: Path) -> None:
    with pytest.raises(ValidationError):
        MouthShapeOptions.model_validate({"hiden": True})
    options = MouthShapeOptions()
    with pytest.raises(ValidationError):
        options.hidden = True  # type: ignore[misc]
    assert all(field.description for field in MouthShapeOptions.model_fields.values())


def test_weights_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no such file"):
        MouthShapeNumpy(MouthShapeOptions(weights=tmp_path / "nothing.npz"))


def test_packaged_weights_say_what_they_were_made_from() -> None:
    net = encoder().net
    held_back = {"grid_s30", "grid_uC", "grid_uD", "ls_1"}
    assert set(net.metadata["left_out"]) == held_back
    assert not held_back & set(net.metadata["speakers"])
    assert all(clip["licence"] and clip["source"] for clip in net.metadata["clips"].values())
    assert (net.spread > 0).all()


def test_the_spec_names_what_exists() -> None:
    (spec,) = [spec for spec in lipsync_register_backends() if spec.name == "mouth-shape-numpy"]
    module, _, name = spec.factory.partition(":")
    assert (module, name) == (MouthShapeNumpy.__module__, MouthShapeNumpy.__name__)
    assert spec.options == f"{MouthShapeOptions.__module__}:{MouthShapeOptions.__name__}"


@pytest.mark.parametrize(
    ("clip", "least"), [("grid_dp_s30_pbbm3n.mpg", 0.4), ("grid_rz_sbia1a.mpg", 0.5), ("ls_demo1.mp4", 0.25)]
)
def test_follows_the_mouth_of_a_speaker_it_never_saw(shared_data: Path, clip: str, least: float) -> None:
    file = shared_data / clip
    with np.load(shared_data / "mouth_shapes" / "mouth_shapes.npz") as pairs:
        truth = pairs[f"{file.stem}.shape"]
    with av.open(str(file)) as container:
        resampler = av.AudioResampler(format="s16", layout="mono", rate=RATE)
        frames = [part for frame in container.decode(audio=0) for part in resampler.resample(frame)]
        frames += resampler.resample(None)
        samples = np.concatenate([frame.to_ndarray().ravel() for frame in frames]).astype(np.float32) / 32768
    result = values(samples, np.arange(len(truth)) / 25)
    assert np.corrcoef(result[:, 0], truth[:, 0])[0, 1] > least
    # Played backwards, the same sound does not fit.
    assert np.corrcoef(result[::-1, 0], truth[:, 0])[0, 1] < least
