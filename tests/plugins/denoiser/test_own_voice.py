from __future__ import annotations

import numpy as np
import pytest

from lipsync_denoiser import mouth_shape as ms
from lipsync_denoiser.own_voice import correlation, fit_own_voice

N, HIDDEN = 160, 24


def _slow(rng: np.random.Generator, n: int, k: int) -> np.ndarray:
    """Return series that change as slowly as speech does."""
    noise = rng.normal(size=(n + 4, k))
    return np.stack([np.convolve(noise[:, i], np.ones(5) / np.sqrt(5), "valid") for i in range(k)], axis=1)


def _clip(seed: int, planted: tuple[int, ...], n: int = N):
    rng = np.random.default_rng(seed)
    hidden = _slow(rng, n, HIDDEN)
    predicted = _slow(rng, n, ms.COUNT)
    measured = predicted + 0.7 * _slow(rng, n, ms.COUNT)
    for k in planted:
        measured[:, k] += hidden @ np.linspace(-0.6, 0.6, HIDDEN)
    return predicted, hidden, measured


def test_a_planted_relation_is_found_and_helps_on_new_frames():
    voice = fit_own_voice(*_clip(0, (ms.OPENING, ms.CHIN)))
    assert voice is not None
    predicted, hidden, measured = _clip(1, (ms.OPENING, ms.CHIN))
    corrected = voice.correct(predicted, hidden)
    for k in (ms.OPENING, ms.CHIN):
        assert correlation(corrected[:, k], measured[:, k]) > correlation(predicted[:, k], measured[:, k]) + 0.1
    np.testing.assert_array_equal(voice.weights[:, ms.WIDTH], 0.0)
    np.testing.assert_array_equal(corrected[:, ms.WIDTH], predicted[:, ms.WIDTH])


def test_noise_is_refused():
    refused = 0
    for seed in range(20):
        rng = np.random.default_rng(100 + seed)
        hidden, predicted, measured = _slow(rng, 75, 128), _slow(rng, 75, 8), _slow(rng, 75, 8)
        voice = fit_own_voice(predicted, hidden, measured)
        used = 0 if voice is None else int(np.any(voice.weights != 0, axis=0).sum())
        refused += ms.COUNT - used
    assert refused >= 0.85 * 20 * ms.COUNT, f"{refused} of {20 * ms.COUNT} numbers refused"


def test_a_prediction_that_is_right_already_is_left_alone():
    predicted, hidden, _ = _clip(3, ())
    voice = fit_own_voice(predicted, hidden, predicted + 1e-3 * _slow(np.random.default_rng(9), N, 8))
    if voice is not None:
        np.testing.assert_allclose(voice.correct(predicted, hidden), predicted, atol=5e-3)


@pytest.mark.parametrize("n", [0, 1, 49])
def test_a_clip_too_short_to_be_cut_in_four_is_refused(n):
    predicted, hidden, measured = _clip(0, (ms.OPENING,))
    assert fit_own_voice(predicted[:n], hidden[:n], measured[:n]) is None


def test_correlation():
    x = np.arange(10.0)
    assert correlation(x, 3 * x + 1) == pytest.approx(1.0)
    assert correlation(x, -x) == pytest.approx(-1.0)
    assert correlation(x, np.ones(10)) == 0.0
