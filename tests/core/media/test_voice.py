from __future__ import annotations

import importlib.util
import wave
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lipsync_core.errors import WeightsError
from lipsync_core.media import voice
from lipsync_core.media.audio import AudioSource
from lipsync_core.media.voice import SAMPLE_RATE, WINDOW, SpeechOnly, bridged, find_speech, speech_segments, spoken

WINDOW_S = WINDOW / SAMPLE_RATE  # .032


def _segments(*runs: tuple[float, int]) -> Any:
    """Segments of runs of (probability, windows), in windows."""
    parts = [np.full(count, probability, np.float32) for probability, count in runs]
    found = speech_segments(parts) / WINDOW_S
    assert (np.diff(found.ravel()) > 0).all()
    return found


def test_speech_is_where_it_is_likely() -> None:
    np.testing.assert_allclose(_segments((0.1, 20), (0.9, 20), (0.1, 20)), [[20, 40]])
    np.testing.assert_allclose(_segments((0.9, 20)), [[0, 20]])
    assert _segments((0.1, 100)).shape == _segments().shape == (0, 2)


def test_a_lower_threshold_ends_speech_than_begins_it() -> None:
    np.testing.assert_allclose(_segments((0.45, 20), (0.9, 20), (0.45, 20), (0.1, 9)), [[20, 60]])
    assert len(_segments((0.49, 50))) == 0


def test_a_dip_of_less_than_a_tenth_of_a_second_ends_nothing() -> None:
    assert len(_segments((0.9, 20), (0.1, 3), (0.9, 20))) == 1
    found = _segments((0.9, 20), (0.1, 5), (0.9, 20))
    np.testing.assert_allclose(found, [[0, 20], [25, 45]])
    # From the first window below, though it then wavers between the thresholds.
    np.testing.assert_allclose(_segments((0.9, 20), (0.1, 1), (0.4, 20), (0.1, 1)), [[0, 20]])


def test_a_click_is_no_speech() -> None:
    assert len(_segments((0.1, 20), (0.9, 7), (0.1, 20))) == 0
    assert len(_segments((0.1, 20), (0.9, 8), (0.1, 20))) == 1


@given(st.lists(st.floats(0, 1, width=32), max_size=200), st.lists(st.integers(0, 200), max_size=5))
def test_it_does_not_matter_how_the_probabilities_come(values: list[float], cuts: list[int]) -> None:
    whole = np.array(values, np.float32)
    np.testing.assert_array_equal(speech_segments([whole]), speech_segments(np.split(whole, sorted(cuts))))


def test_short_pauses_and_a_tenth_of_a_second_around_belong_to_the_speech() -> None:
    speech = np.array([[1.0, 2.0], [2.6, 3.0], [3.8, 4.0]])
    np.testing.assert_allclose(bridged(speech, 5.0), [[0.9, 3.1], [3.7, 4.1]])
    np.testing.assert_allclose(bridged(speech - 0.5, 4.0), [[-np.inf, 2.6], [3.2, np.inf]])
    assert bridged(np.zeros((0, 2)), 9.0).shape == (0, 2)


@given(st.data())
def test_a_frame_speaks_if_anything_is_said_while_it_is_shown(data: st.DataObject) -> None:
    edges = sorted(data.draw(st.sets(st.integers(-20, 60), min_size=0, max_size=8)))
    speech = np.array(edges[: len(edges) // 2 * 2], np.float64).reshape(-1, 2)
    if len(speech) and data.draw(st.booleans()):
        speech[0, 0], speech[-1, 1] = -np.inf, np.inf
    steps = data.draw(st.lists(st.integers(1, 9), min_size=1, max_size=30))
    times = np.cumsum([data.draw(st.integers(-10, 10)), *steps]).astype(np.float64)
    expected = [bool(((speech[:, 0] < until) & (speech[:, 1] > begin)).any()) for begin, until in pairwise(times)]
    assert spoken(speech, times[:-1], times[-1]).tolist() == expected


def _write(path: Path, samples: np.ndarray, rate: int = SAMPLE_RATE) -> AudioSource:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.astype("<i2").tobytes())
    return AudioSource(path)


def test_the_rest_of_the_sound_is_silenced(tmp_path: Path) -> None:
    sound = _write(tmp_path / "a.wav", np.full(5 * SAMPLE_RATE // 2, 16384))
    heard = SpeechOnly(sound, np.array([[0.5, 1.25], [2.0, np.inf]]))
    assert (heard.duration, heard.path) == (sound.duration, sound.path)
    blocks = heard.blocks(8000)
    for _ in range(2):  # it may be iterated again
        samples = np.concatenate([block.samples for block in blocks])
        expected = np.zeros(20000)
        expected[4000:10000] = expected[16000:] = 0.5
        settled = np.ones(20000, bool)
        settled[-100:] = False  # the resampler rings at the end
        np.testing.assert_allclose(samples[settled], expected[settled], atol=1e-3)
    later = np.concatenate([block.samples for block in heard.blocks(8000, offset_s=1.0)])
    assert not later[:12000].any()
    assert later[12001:17999].all()


@pytest.mark.parametrize(("runtime", "model"), [(True, False), (False, True), (False, False)])
def test_what_is_missing_is_named_with_both_pip_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runtime: bool, model: bool
) -> None:
    def locate(name: str) -> Path:
        if not model:
            raise WeightsError(f"The model file {name} is missing.", "Get it.")
        return tmp_path

    monkeypatch.setattr(voice.store, "locate", locate)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object() if runtime else None)
    with pytest.raises(WeightsError) as raised:
        find_speech(_write(tmp_path / "a.wav", np.zeros(SAMPLE_RATE)))
    assert ("onnxruntime" in raised.value.cause) is not runtime
    assert ("Silero" in raised.value.cause) is not model
    for line in ('pip install "lipsync-core[onnx]"', "pip install --no-deps silero-vad=="):
        assert line in raised.value.cure
