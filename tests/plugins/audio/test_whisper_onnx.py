"""`whisper-onnx` against its torch twin and the vectors made by running LatentSync."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("onnxruntime", reason="needs onnxruntime (extra onnx)")

from lipsync_audio.whisper_onnx import WhisperOnnx, WhisperOnnxOptions
from lipsync_core.errors import SettingsError, WeightsError
from lipsync_core.registry import State, discover
from lipsync_core.stages import AudioEncoder, Closable
from lipsync_core.types import AudioBlock

TOLERANCE = 1e-4  # MANIFEST.json allows 1e-3
HALF_TOLERANCE = 1e-2  # in float16; the values' root mean square is about 1


class Sound:
    """Samples as an audio that can be read again, in uneven blocks."""

    def __init__(self, samples: NDArray[np.float32], block: int = 7919) -> None:
        self.samples, self.block = samples, block

    def __iter__(self) -> Iterator[AudioBlock]:
        for start in range(0, len(self.samples), self.block):
            samples = self.samples[start : start + self.block].copy()
            samples.flags.writeable = False
            yield AudioBlock(start, samples)


def read_sound(path: Path) -> Sound:
    with av.open(str(path)) as container:
        samples = np.concatenate([frame.to_ndarray().reshape(-1) for frame in container.decode(audio=0)])
    return Sound(samples.astype(np.float32) / np.float32(32768))


def hiss(seconds: float, seed: int = 0) -> Sound:
    return Sound(np.random.default_rng(seed).standard_normal(int(16_000 * seconds), np.float32) / 10)


def make(model: Path, **options: Any) -> WhisperOnnx:
    return WhisperOnnx(
        WhisperOnnxOptions.model_validate({"model": str(model), "provider": "cpu", "threads": 1} | options)
    )


def features(encoder: Any, sound: Sound, at: NDArray[np.float64]) -> NDArray[np.float32]:
    batches = list(encoder.encode(sound, times=at))
    starts = np.cumsum([0, *(len(batch.values) for batch in batches)])
    assert [batch.start for batch in batches] == starts[:-1].tolist()
    return np.concatenate([batch.values for batch in batches])


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", TOLERANCE), ("float16", HALF_TOLERANCE)])
@pytest.mark.parametrize("name", ["12s.wav", "35s.flac"])
def test_the_reference_is_met(
    shared_reference: Path, exported_golden: Path, name: str, precision: str, tolerance: float
) -> None:
    from safetensors.numpy import load_file

    golden = load_file(shared_reference / f"tiny_whisper_{name[:3]}.safetensors")
    encoder = make(exported_golden, boundary="reference", precision=precision)
    sound = read_sound(shared_reference / f"tiny_whisper_{name}")
    rows = np.concatenate(list(encoder.rows(sound)))
    assert len(rows) == len(sound.samples) // 320
    slices = [key for key in golden if key == "feat" or key.startswith("feat_rows")]
    assert slices
    for key in slices:
        first, stop = (0, len(rows)) if key == "feat" else map(int, key.split("_")[2:])
        np.testing.assert_allclose(rows[first:stop], golden[key], atol=tolerance, rtol=0)
    chunks = [key for key in golden if key.startswith("chunk.fps25.")]
    assert chunks
    got = features(encoder, sound, np.arange(len(golden["chunk_index_table.fps25"])) / 25)
    for key in chunks:
        np.testing.assert_allclose(got[int(key.rsplit(".", 1)[1])], golden[key], atol=tolerance, rtol=0)


@pytest.mark.parametrize("boundary", ["overlap", "reference"])
@pytest.mark.parametrize("seconds", [0.0, 1.0, 40.0])
def test_torch_gives_the_same(exported_tiny: Path, boundary: str, seconds: float) -> None:
    from lipsync_audio.whisper_torch import WhisperOptions, WhisperTorch

    options = {"model": str(exported_tiny), "boundary": boundary, "device": "cpu", "dtype": "float32"}
    twin, ours = WhisperTorch(WhisperOptions.model_validate(options)), make(exported_tiny, boundary=boundary)
    at, sound = np.arange(-2, int(seconds * 25) + 5) / 25, hiss(seconds)
    np.testing.assert_allclose(features(ours, sound, at), features(twin, sound, at), atol=TOLERANCE, rtol=0)
    assert ours.feature_shape == twin.feature_shape == (30, 64)
    assert ours.sample_rate == twin.sample_rate == 16_000


def test_two_threads_share_the_graph_and_keep_what_they_were_given(exported_tiny: Path) -> None:
    at = np.arange(50) / 25
    jobs = [(make(exported_tiny), hiss(2.0, seed), at) for seed in range(2)]
    want = [features(make(exported_tiny), sound, at) for _, sound, _ in jobs]
    with ThreadPoolExecutor(2) as pool:
        got = list(pool.map(lambda job: features(*job), jobs))
    features(jobs[0][0], hiss(2.0, 9), at)
    assert all((g == w).all() for g, w in zip(got, want, strict=True))
    assert jobs[0][0]._graph is jobs[1][0]._graph is not None


def test_the_graph_is_loaded_when_needed_and_let_go(exported_tiny: Path) -> None:
    encoder = make(exported_tiny, threads=2)  # a session of its own
    assert isinstance(encoder, Closable)
    typed: AudioEncoder = encoder
    encoder.close()
    assert encoder._graph is None
    want = features(typed, hiss(1.0), np.arange(10) / 25)
    assert encoder._graph is not None
    inner = weakref.ref(encoder._graph.inner)
    encoder.close()
    encoder.close()
    gc.collect()
    assert inner() is None
    np.testing.assert_allclose(features(typed, hiss(1.0), np.arange(10) / 25), want, atol=TOLERANCE)


def test_no_frames_and_audio_that_reads_once(exported_tiny: Path) -> None:
    encoder = make(exported_tiny)
    assert list(encoder.encode(hiss(1.0), times=np.empty(0))) == []
    with pytest.raises(TypeError, match="iterable again"):
        next(encoder.encode(iter(hiss(1.0)), times=np.zeros(1)))
    assert encoder._graph is None


def test_what_does_not_fit_is_an_error_at_once(exported_tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no provider 'npu'"):
        make(exported_tiny, provider="npu")
    root = tmp_path / "model"
    (root / "onnx" / "float32").mkdir(parents=True)
    for file in ("model.json", "onnx/float32/export.json"):
        (root / file).write_bytes((exported_tiny / file).read_bytes())
    with pytest.raises(WeightsError, match="lacks the graph whisper"):
        make(root)


def test_the_registry_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lipsync_core.registry._present", lambda module: module != "onnxruntime")
    (entry,) = [entry for entry in discover().entries if entry.spec.name == "whisper-onnx"]
    assert entry.state is State.MISSING
    assert 'pip install "lipsync-core[onnx]"' in entry.detail
