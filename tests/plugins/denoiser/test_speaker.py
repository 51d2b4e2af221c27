from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lipsync_core.errors import BackendError
from lipsync_core.types import AudioFeatures, FaceTrack
from lipsync_denoiser import mouth_shape as ms
from lipsync_denoiser.speaker import (
    TYPICAL_MOST,
    adapt,
    gather,
    habits,
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
    heads = measure_heads([track[:10], track[10:]], (range(0, 10), range(10, 30)))
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
        measure_heads([track], (range(5),))


def test_brows_may_be_missing():
    track = _track(_talk(5))
    track.landmarks[:, 17:27] = np.nan
    assert len(measure_heads([track], (range(5),))) == 1


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


def test_silence_is_where_the_model_stands_still_and_low():
    rng = np.random.default_rng(0)
    hidden = rng.normal(size=(100, 128)).astype(np.float32)
    predicted = rng.normal(0.3, 0.3, (100, 8))
    hidden[40:60], predicted[40:60] = hidden[40], -0.9
    quiet = silence(predicted, hidden)
    assert quiet[44:56].min() == pytest.approx(1.0)
    assert quiet[:36].max() == 0.0
    assert quiet[65:].max() == 0.0
    assert np.abs(np.diff(quiet)).max() < 0.6, "it comes on over some frames"


def test_sound_that_is_silent_throughout_is_silence_and_speech_throughout_is_not():
    still = np.ones((50, 128), np.float32)
    np.testing.assert_allclose(silence(np.full((50, 8), -0.9), still), 1.0)
    rng = np.random.default_rng(0)
    assert silence(rng.normal(size=(50, 8)), rng.normal(size=(50, 128)).astype(np.float32)).max() == 0.0
    assert silence(np.zeros((1, 8)), still[:1]).tolist() == [0.0]
    assert silence(np.zeros((0, 8)), still[:0]).shape == (0,)


def test_the_offset_between_sound_and_mouth_is_taken_out_where_they_go_together():
    opening = _talk(150)
    heads = measure_heads([_track(opening)], (range(150),))
    z = (opening - opening.mean()) / opening.std()
    own = features(0.6 * z + 0.5)
    voice, offset = adapt(heads, own[:, 0, :8].astype(float), own[:, 0, 8:], True)
    assert voice is None
    assert offset[ms.OPENING] == pytest.approx(0.5, abs=0.25)
    music = features(np.random.default_rng(5).normal(2.0, 1.0, 150))
    _, offset = adapt(heads, music[:, 0, :8].astype(float), music[:, 0, 8:], True)
    np.testing.assert_array_equal(offset, 0.0)


def test_own_voice_can_be_switched_off():
    opening = _talk(200)
    heads = measure_heads([_track(opening)], (range(200),))
    z = (opening - opening.mean()) / opening.std()
    own = features(0.3 * z)
    own[:, 0, 8] = z
    own[:, 0, 9:] *= 0.05
    assert adapt(heads, own[:, 0, :8].astype(float), own[:, 0, 8:], True)[0] is not None
    assert adapt(heads, own[:, 0, :8].astype(float), own[:, 0, 8:], False)[0] is None


def test_a_still_mouth_gets_typical_movements_within_typical_bounds():
    predicted = features(np.linspace(-3, 3, 50))[:, 0, :8].astype(float)
    closed = shapes_of_opening(np.zeros(50))
    wanted = wanted_of_still(predicted, np.zeros(50), closed)
    assert wanted[0, ms.OPENING] == 0.0
    assert wanted[-1, ms.OPENING] == pytest.approx(TYPICAL_MOST)
    assert (np.diff(wanted[:, ms.CHIN]) >= -1e-12).all()
    np.testing.assert_allclose(wanted_of_still(predicted, np.ones(50), closed)[:, ms.OPENING], 0.0)


def test_batches_are_gathered_in_order():
    values = features(np.arange(6.0))
    shapes, hidden = gather([AudioFeatures(0, values[:4]), AudioFeatures(4, values[4:])])
    np.testing.assert_array_equal(shapes[:, 0], np.arange(6.0))
    assert hidden.shape == (6, 128)
    assert gather([])[0].shape == (0, 8)
