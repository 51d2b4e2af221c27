from __future__ import annotations

import wave
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from lipsync_core.errors import WeightsError
from lipsync_core.media.audio import AudioSource
from lipsync_core.media.voice import SAMPLE_RATE, WINDOW, find_speech
from lipsync_core.models import store
from lipsync_core.types import AudioBlock

pytest.importorskip("onnxruntime")

from lipsync_core.media.voice_onnx import speech_probabilities

CONTEXT = 64
LEAD = 16  # windows of silence in front


@pytest.fixture(scope="module")
def silero() -> Path:
    """Silero's own file."""
    try:
        return store.locate("silero-vad", download=False)
    except WeightsError as error:
        pytest.skip(f"needs Silero's model: {error.cure}")


@pytest.fixture(scope="module")
def counting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A graph of the same inputs: a window's probability is its first sample plus the windows seen by earlier calls."""
    onnx = pytest.importorskip("onnx")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    state = [1, 1, 128]

    def value(name: str, shape: list[Any]) -> Any:
        return helper.make_tensor_value_info(name, kind, shape)

    def numbers(name: str, values: list[int]) -> Any:
        return helper.make_tensor(name, onnx.TensorProto.INT64, [len(values)], values)

    nodes = [
        helper.make_node("Slice", ["input", "zero", "one", "one"], ["first"]),  # from 0 to 1 along axis 1
        helper.make_node("Squeeze", ["first", "one"], ["flat"]),
        helper.make_node("ReduceMax", ["h"], ["seen"], keepdims=0),
        helper.make_node("Add", ["flat", "seen"], ["speech_probs"]),
        helper.make_node("Shape", ["flat"], ["count"]),
        helper.make_node("Cast", ["count"], ["float_count"], to=kind),
        helper.make_node("Add", ["h", "float_count"], ["hn"]),
        helper.make_node("Identity", ["c"], ["cn"]),
    ]
    graph = helper.make_graph(
        nodes,
        "counting",
        [value("input", ["n", CONTEXT + WINDOW]), value("h", state), value("c", state)],
        [value("speech_probs", ["n"]), value("hn", state), value("cn", state)],
        [numbers("zero", [0]), numbers("one", [1])],
    )
    path = tmp_path_factory.mktemp("counting") / "counting.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def _blocks(samples: NDArray[np.float32], cuts: list[int]) -> list[AudioBlock]:
    edges = [0, *sorted(min(cut, len(samples)) for cut in cuts), len(samples)]
    return [AudioBlock(a, samples[a:b]) for a, b in pairwise(edges)]


@settings(max_examples=40)
@given(st.integers(0, 5000), st.lists(st.integers(0, 5000), max_size=6))
def test_windows_follow_each_other_with_their_context_and_state(counting: Path, count: int, cuts: list[int]) -> None:
    samples = np.random.default_rng(count).random(count, np.float32)
    parts = list(speech_probabilities(_blocks(samples, cuts), counting))
    assert sum(map(len, parts)) == -(-count // WINDOW)
    padded = np.pad(samples, (CONTEXT, 2 * WINDOW))
    seen = 0
    for part in parts:
        first = padded[np.arange(seen, seen + len(part)) * WINDOW]
        np.testing.assert_allclose(part, first + LEAD + seen, atol=1e-5)
        seen += len(part)


@settings(max_examples=5)
@given(st.lists(st.integers(0, 40000), max_size=4))
def test_the_cut_of_the_blocks_does_not_matter(silero: Path, cuts: list[int]) -> None:
    rng = np.random.default_rng(3)
    samples = (rng.normal(0, 0.1, 40000) * (1 + np.sin(np.arange(40000) / 2000))).astype(np.float32)
    whole = np.concatenate(list(speech_probabilities([AudioBlock(0, samples)], silero)))
    parts = np.concatenate(list(speech_probabilities(_blocks(samples, cuts), silero)))
    np.testing.assert_allclose(parts, whole, atol=1e-5)


def test_neither_silence_nor_noise_nor_a_tone_is_speech(
    silero: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    t = np.arange(3 * SAMPLE_RATE) / SAMPLE_RATE
    noise = np.random.default_rng(0).normal(0, 0.05, len(t))
    for samples in (np.zeros(len(t)), noise, 0.3 * np.sin(2 * np.pi * 440 * t)):
        with wave.open(str(tmp_path / "a.wav"), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(SAMPLE_RATE)
            file.writeframes((samples * 32767).astype("<i2").tobytes())
        caplog.clear()
        assert find_speech(AudioSource(tmp_path / "a.wav")).shape == (0, 2)
        assert "no speech was found in a.wav" in caplog.text


def test_real_speech_is_found_and_the_pause_in_it(silero: Path, shared_data: Path) -> None:
    """The one pause of half a second in this clip; its energy falls to nothing there."""
    (first, second) = find_speech(AudioSource(shared_data / "ls_demo2_dub.wav"))
    assert first[0] == -np.inf
    assert first[1] == pytest.approx(16.32, abs=0.1)
    assert second[0] == pytest.approx(16.89, abs=0.1)


def test_speech_that_begins_at_once_is_found(silero: Path, shared_data: Path) -> None:
    samples = np.concatenate([block.samples for block in AudioSource(shared_data / "ls_demo2_dub.wav").blocks(16000)])
    probabilities = np.concatenate(list(speech_probabilities([AudioBlock(0, samples[3200:16000])], silero)))
    assert (probabilities[1:8] > 0.5).all()


def test_speech_before_background_noise_is_found(silero: Path, shared_data: Path) -> None:
    """GRID's speakers say six words within three seconds of a hissing recording."""
    for name in ("grid_dp_s30_bwwy5n.mpg", "grid_os_s1_bbir6n.mpg", "grid_rz_brbk7n.mpg"):
        ((begin, end),) = find_speech(AudioSource(shared_data / name))
        assert begin < 0.9, name
        assert 1.9 < end < 2.6, name


def test_another_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(b"not a graph")
    with pytest.raises(WeightsError, match=r"a\.onnx cannot be opened"):
        list(speech_probabilities([], tmp_path / "a.onnx"))


def test_another_graph_is_refused(silero: Path) -> None:
    """The package carries graphs of other inputs beside ours."""
    other = silero.with_name("silero_vad_half.onnx")
    if not other.is_file():
        pytest.skip("the other graphs are not there")
    with pytest.raises(WeightsError, match="takes input, state where"):
        list(speech_probabilities([], other))
