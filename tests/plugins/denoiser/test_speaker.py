from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lipsync_core.errors import BackendError
from lipsync_core.types import AudioFeatures, FaceTrack
from lipsync_denoiser import mouth_shape as ms
from lipsync_denoiser.own_voice import OwnVoice
from lipsync_denoiser.speaker import (
    TYPICAL_MOST,
    adapt,
    frames_to_adapt,
    gather,
    habits,
    listen,
    measure_heads,
    silence,
    wanted_of_still,
    wanted_shapes,
)

from .drawing import features, landmarks, poses, shapes_of_opening


def _talk(n: int, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=n + 6)
    return np.clip(0.08 + 0.06 * np.convolve(noise, np.ones(7) / np.sqrt(7), "valid"), 0, 0.25)


def _track(opening: np.ndarray, start: int = 0, found: np.ndarray | None = None) -> FaceTrack:
    n = len(opening)
    points = landmarks(shapes_of_opening(opening), poses(n))
    matrix = np.repeat(np.eye(2, 3)[None], n, 0)
    return FaceTrack(start, matrix, np.ones(n, bool) if found is None else found, points, 150)


def test_heads_are_split_by_scene_and_frames_without_a_face_left_out():
    opening = _talk(30)
    found = np.ones(30, bool)
    found[[3, 17]] = False
    track = _track(opening, found=found)
    track.landmarks[~found] = np.nan
    heads = measure_heads([track[:10], track[10:]])
    assert [len(h.frames) for h in heads] == [9, 19]
    assert 3 not in heads[0].frames
    np.testing.assert_allclose(heads[1].shapes[:, ms.OPENING], opening[10:][found[10:]], atol=2e-4)
    rows, inside = heads[1].rows(np.array([9, 10, 17, 18, 29, 40]))
    np.testing.assert_array_equal(inside, [False, True, False, True, True, False])
    np.testing.assert_array_equal(heads[1].frames[rows[inside]], [10, 18, 29])


def test_missing_landmarks_are_an_error_with_a_cure():
    track = _track(_talk(5))
    track.landmarks[2, 50] = np.nan
    with pytest.raises(BackendError, match="lip landmarks"):
        measure_heads([track])


def test_brows_may_be_missing():
    track = _track(_talk(5))
    track.landmarks[:, 17:27] = np.nan
    assert len(measure_heads([track])) == 1


@given(st.integers(0, 1000), st.floats(0.1, 3.0))
def test_targets_keep_to_what_the_speaker_does(seed, amount):
    speaker = habits(shapes_of_opening(_talk(200)), np.zeros(200))
    predicted = features(np.random.default_rng(seed).normal(0, amount, 100))[:, 0, :8].astype(float)
    wanted = wanted_shapes(predicted, np.zeros(100), speaker)
    slack = 1e-9 + 0.35 * (speaker.high - speaker.low)  # making a shape consistent moves lips a little
    for k in (ms.OPENING, ms.WIDTH, ms.CHIN):
        assert (wanted[:, k] >= speaker.low[k] - 1e-9).all()
        assert (wanted[:, k] <= speaker.high[k] + 1e-9).all()
    assert (wanted <= speaker.high + slack).all()


def test_the_opening_asked_for_is_the_predicted_one_at_the_speakers_own_spread():
    own = shapes_of_opening(_talk(400))
    speaker = habits(own, np.zeros(400))
    z = np.random.default_rng(1).normal(0, 0.5, 300)
    wanted = wanted_shapes(features(z)[:, 0, :8].astype(float), np.zeros(300), speaker)
    assert np.corrcoef(wanted[:, ms.OPENING], z)[0, 1] > 0.95
    assert wanted[:, ms.OPENING].std() == pytest.approx(own[:, ms.OPENING].std(), rel=0.25)


def test_an_open_mouth_is_not_asked_to_laugh_because_laughs_are_open():
    opening = _talk(300)
    shapes = shapes_of_opening(opening)
    shapes[:, ms.WIDTH] -= 0.2 * opening  # speaking, this mouth gets narrower as it opens
    smile = np.zeros(300)
    shapes[250:, ms.WIDTH] += 0.15
    shapes[250:, ms.OPENING] += 0.1
    smile[250:] = 2.5
    speaker = habits(shapes, smile)
    wanted = wanted_shapes(features(np.linspace(-1, 1, 50))[:, 0, :8] * [1, 1, 0, 0, 1, 1, 1, 1], np.zeros(50), speaker)
    assert wanted[-1, ms.OPENING] > wanted[0, ms.OPENING] + 0.05
    assert wanted[-1, ms.WIDTH] < wanted[0, ms.WIDTH]


def test_in_silence_the_mouth_closes_even_where_the_source_never_does():
    speaker = habits(shapes_of_opening(0.1 + _talk(200)), np.zeros(200))
    assert speaker.low[ms.OPENING] > 0.05
    predicted = features(np.linspace(-1, 1, 60))[:, 0, :8].astype(float)
    quiet = np.r_[np.zeros(30), np.ones(30)]
    wanted = wanted_shapes(predicted, quiet, speaker)
    np.testing.assert_allclose(wanted[30:, ms.OPENING], 0.0)
    assert (wanted[:30, ms.OPENING] > 0.05).all()


def _loudness(*pieces: tuple[int, float]) -> np.ndarray:
    """Return loudness float32 of pieces, each (frames, dB)."""
    return np.concatenate([np.full(n, level, np.float32) for n, level in pieces])


def test_a_pause_closes_over_some_frames_and_only_where_it_is_quiet():
    quiet = silence(_loudness((40, -5), (20, -35), (40, -5)), 25.0)
    assert quiet[44:50].min() == pytest.approx(1.0)
    assert quiet[:40].max() == 0.0
    assert quiet[60:].max() == 0.0
    assert (np.diff(quiet[36:50]) >= 0).all()
    assert 0.15 < np.abs(np.diff(quiet)).max() < 0.5


@pytest.mark.parametrize("fps", [24.0, 25.0, 50.0, 60.0])
def test_a_gap_between_words_counts_and_the_closure_of_a_stop_does_not(fps):
    def gap(seconds: float) -> float:
        around = round(fps), -5.0
        return float(silence(_loudness(around, (round(seconds * fps), -40.0), around), fps).max())

    assert gap(0.06) == 0.0
    assert gap(0.14) > 0.75
    assert gap(0.3) == pytest.approx(1.0)


def test_the_mouth_gets_ready_before_the_sound_but_not_before_it_was_closed():
    long = silence(_loudness((30, -5), (50, -40), (30, -5)), 25.0)
    assert long[34:68].min() == pytest.approx(1.0)
    assert long[72:].max() == 0.0
    assert silence(_loudness((30, -5), (25, -40)), 25.0)[-20:].min() == pytest.approx(1.0), "no sound comes"
    first = silence(_loudness((18, -40), (30, -5)), 25.0)
    assert first[:6].min() == pytest.approx(1.0)
    assert first[10:].max() == 0.0
    short = silence(_loudness((30, -5), (6, -40), (30, -5)), 25.0)
    assert short[32:34].min() == pytest.approx(1.0)
    assert short[30:36].min() > 0.5


def test_quiet_consonants_are_no_pause_and_the_edges_of_a_pause_belong_to_it():
    assert silence(_loudness((20, -5), (6, -24), (20, -5)), 25.0).max() == 0.0
    deep = silence(_loudness((20, -5), (2, -24), (2, -32), (2, -24), (20, -5)), 25.0)
    assert deep[22:24].min() == pytest.approx(1.0)


def test_sound_that_is_silent_throughout_is_silence_and_speech_throughout_is_not():
    np.testing.assert_allclose(silence(_loudness((50, -60)), 25.0), 1.0)
    assert silence(_loudness((50, -10)), 25.0).max() == 0.0
    assert silence(_loudness((1, -10)), 25.0).tolist() == [0.0]
    assert silence(_loudness((0, 0)), 25.0).shape == (0,)


@given(st.lists(st.floats(-60, 0, width=32), max_size=80), st.sampled_from([12.0, 25.0, 30.0, 59.94]))
def test_any_loudness_gives_a_share_for_each_frame(levels, fps):
    quiet = silence(np.array(levels, np.float32), fps)
    assert quiet.shape == (len(levels),)
    assert (quiet >= 0.0).all()
    assert (quiet <= 1.0 + 1e-9).all()


def test_the_offset_between_sound_and_mouth_is_taken_out_where_they_go_together():
    opening = _talk(150)
    heads = measure_heads([_track(opening)])
    z = (opening - opening.mean()) / opening.std()
    own = features(0.6 * z + 0.5)
    voice, offset = adapt(heads, own[:, 0, :8].astype(float), own[:, 0, 8:-1], True)
    assert voice is None
    assert offset[ms.OPENING] == pytest.approx(0.5, abs=0.25)
    music = features(np.random.default_rng(5).normal(2.0, 1.0, 150))
    _, offset = adapt(heads, music[:, 0, :8].astype(float), music[:, 0, 8:-1], True)
    np.testing.assert_array_equal(offset, 0.0)


def test_own_voice_can_be_switched_off():
    opening = _talk(200)
    heads = measure_heads([_track(opening)])
    z = (opening - opening.mean()) / opening.std()
    own = features(0.3 * z)
    own[:, 0, 8] = z
    own[:, 0, 9:-1] *= 0.05
    assert adapt(heads, own[:, 0, :8].astype(float), own[:, 0, 8:-1], True)[0] is not None
    assert adapt(heads, own[:, 0, :8].astype(float), own[:, 0, 8:-1], False)[0] is None


def test_a_still_mouth_gets_typical_movements_within_typical_bounds():
    predicted = features(np.linspace(-3, 3, 50))[:, 0, :8].astype(float)
    closed = shapes_of_opening(np.zeros(50))
    wanted = wanted_of_still(predicted, np.zeros(50), closed)
    assert wanted[0, ms.OPENING] == 0.0
    assert wanted[-1, ms.OPENING] == pytest.approx(TYPICAL_MOST)
    assert (np.diff(wanted[:, ms.CHIN]) >= -1e-12).all()
    np.testing.assert_allclose(wanted_of_still(predicted, np.ones(50), closed)[:, ms.OPENING], 0.0)


def test_as_much_is_gathered_as_is_needed():
    values = features(np.arange(6.0))
    batches = [AudioFeatures(0, values[:4]), AudioFeatures(4, values[4:])]
    shapes, hidden = gather(batches, 5)
    np.testing.assert_array_equal(shapes[:, 0], np.arange(6.0))
    np.testing.assert_array_equal(hidden, values[:, 0, 8:136])
    assert len(gather(iter(batches), 3)[0]) == 4
    assert [part.shape for part in gather([], 5)] == [(0, 8), (0, 0)]


def test_all_is_listened_to_in_order_and_corrected():
    values = features(np.arange(6.0))
    values[:, 0, -1] = -np.arange(6.0)
    batches = [AudioFeatures(0, values[:4]), AudioFeatures(4, values[4:])]
    shapes, loudness = listen(batches, None)
    np.testing.assert_array_equal(shapes[:, 0], np.arange(6.0))
    np.testing.assert_array_equal(loudness, -np.arange(6.0))
    voice = OwnVoice(np.random.default_rng(0).normal(size=(128, 8)), np.arange(8.0))
    np.testing.assert_allclose(listen(batches, voice)[0], voice.correct(shapes, values[:, 0, 8:136]), rtol=1e-5)
    assert [part.shape for part in listen([], None)] == [(0, 8), (0,)]


def test_adapting_looks_no_further_than_the_faces_it_needs():
    late = _track(_talk(30), start=40)
    assert frames_to_adapt(measure_heads([_track(_talk(20)), late])) == 70
