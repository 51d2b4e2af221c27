"""Both backends do what their stages ask for."""

import numpy as np
from lipsync_lipstick.mfcc_kaldi import MfccKaldi, Options

from lipsync_core.testing import AudioEncoderContract, DenoiserContract
from lipsync_core.types import AudioBlock


class TestMfccKaldi(AudioEncoderContract):
    backend = "mfcc-kaldi"


class TestLipstick(DenoiserContract):
    backend = "lipstick"


def test_a_click_is_heard_in_the_frames_beside_it_alone() -> None:
    samples = np.zeros(16000, np.float32)
    samples[8000:8160] = 0.5  # at 0.50…0.51 s
    times = np.arange(25) / 25
    encoded = MfccKaldi(Options()).encode([AudioBlock(0, samples)], times=times)
    energies = np.concatenate([batch.values for batch in encoded])[:, :, 0].max(axis=1)
    heard = energies > energies.min() + 1
    assert np.flatnonzero(heard).tolist() == [12, 13]  # at 0.48 and 0.52 s
