"""`whisper-torch` against the vectors made by running LatentSync, and what it does that LatentSync does not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from lipsync_audio.log_mel import log_mel_rows, scaled
from lipsync_audio.whisper_windows import COLUMNS, plan
from lipsync_core.errors import SettingsError, WeightsError
from lipsync_core.models.folder import AudioPart
from lipsync_core.types import AudioBlock

torch = pytest.importorskip("torch", reason="needs torch (extra torch)")
pytest.importorskip("safetensors", reason="needs safetensors (extra torch)")

from lipsync_audio.whisper_encoder_torch import build, positions, random_state  # noqa: E402
from lipsync_audio.whisper_torch import WhisperOptions, WhisperTorch  # noqa: E402
from lipsync_core.models.tensors_torch import read_tensors, write_pickle, write_safetensors  # noqa: E402

FPS = {"25": Fraction(25), "30": Fraction(30), "23.976": Fraction(24000, 1001)}
TINY = AudioPart.model_validate({"kind": "whisper", "weights": "w.pt", "layers": 2, "width": 64, "heads": 2})
# MANIFEST.json allows 1e-3. In float32 8e-6 is reached, and only a tighter bound tells GELU from its tanh form.
TOLERANCE = 1e-4


class Sound:
    """Samples as an audio that can be read again, in uneven blocks."""

    def __init__(self, samples: NDArray[np.float32], block: int = 7919) -> None:
        self.samples, self.block = samples, block

    def __iter__(self) -> Iterator[AudioBlock]:
        for start in range(0, len(self.samples), self.block):
            yield AudioBlock(start, self.samples[start : start + self.block].copy())


def read_sound(path: Path) -> Sound:
    with av.open(str(path)) as container:
        samples = np.concatenate([frame.to_ndarray().reshape(-1) for frame in container.decode(audio=0)])
    assert samples.dtype == np.int16
    return Sound(samples.astype(np.float32) / np.float32(32768))


def synthetic(seconds: float) -> Sound:
    """A voiced, modulated, slightly noisy sound with pauses."""
    t = np.arange(int(seconds * 16_000)) / 16_000
    phase = 2 * np.pi * np.cumsum(120 + 30 * np.sin(2 * np.pi * 0.7 * t)) / 16_000
    tone = sum(np.sin(k * phase) / k * (1 + np.sin(2 * np.pi * (0.5 + 0.31 * k) * t)) for k in range(1, 20))
    envelope = np.clip(np.sin(2 * np.pi * 2.1 * t) + 0.4, 0, None)
    noise = np.random.default_rng(5).normal(0, 0.01, len(t))
    return Sound((0.1 * (tone * envelope + noise)).astype(np.float32))


def times(count: int, fps: Fraction) -> NDArray[np.float64]:
    return np.array([float(i / fps) for i in range(count)])


def features(encoder: WhisperTorch, sound: Sound, at: NDArray[np.float64]) -> NDArray[np.float32]:
    batches = list(encoder.encode(sound, times=at))
    starts = np.cumsum([0, *(len(batch.values) for batch in batches)])
    assert [batch.start for batch in batches] == starts[:-1].tolist()
    return np.concatenate([batch.values for batch in batches])


def whole(encoder: WhisperTorch, sound: Sound) -> NDArray[np.float32]:
    return np.concatenate(list(encoder.rows(sound)))


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def golden_file(shared_reference: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The fixture's weights as a published checkpoint, with a decoder tensor that must not matter."""
    dims = json.loads((shared_reference / "tiny_whisper_config.json").read_text())["dims"]
    tensors = read_tensors(shared_reference / "tiny_whisper.safetensors")
    path = tmp_path_factory.mktemp("golden") / "tiny.pt"
    write_pickle(path, {"dims": dims, "model_state_dict": tensors | {"decoder.ln.weight": torch.ones(64)}})
    return path


@pytest.fixture
def random_file(tmp_path: Path) -> Path:
    path = tmp_path / "random.pt"
    write_pickle(path, WhisperTorch.random_whisper(TINY, 0))
    return path


def encoder(path: Path, **options: Any) -> WhisperTorch:
    return WhisperTorch(WhisperOptions(model=str(path), device="cpu", **options))


@pytest.mark.parametrize("name", ["12s.wav", "35s.flac"])
def test_the_reference_is_met(shared_reference: Path, golden_file: Path, name: str) -> None:
    golden = {
        key: value.numpy()
        for key, value in read_tensors(shared_reference / f"tiny_whisper_{name[:3]}.safetensors").items()
    }
    sound = read_sound(shared_reference / f"tiny_whisper_{name}")
    reference = encoder(golden_file, boundary="reference")
    rows = whole(reference, sound)
    assert len(rows) == int(len(sound.samples) / 320)
    slices = [key for key in golden if key == "feat" or key.startswith("feat_rows")]
    assert slices
    for key in slices:
        first, stop = (0, len(rows)) if key == "feat" else map(int, key.split("_")[2:])
        np.testing.assert_allclose(rows[first:stop], golden[key], atol=TOLERANCE, rtol=0)
    if "feat_row_mean" in golden:
        np.testing.assert_allclose(rows.mean(axis=2), golden["feat_row_mean"], atol=TOLERANCE, rtol=0)
        np.testing.assert_allclose(rows.std(axis=2), golden["feat_row_std"], atol=TOLERANCE, rtol=0)
    for fps, rate in FPS.items():
        table = golden[f"chunk_index_table.fps{fps}"]
        got = features(reference, sound, times(len(table), rate))
        assert got.shape == (len(table), 30, 64)
        for key in (key for key in golden if key.startswith(f"chunk.fps{fps}.")):
            index = int(key.rsplit(".", 1)[1])
            np.testing.assert_allclose(got[index], golden[key], atol=TOLERANCE, rtol=0)


def test_the_loudest_cell_of_the_whole_clip_sets_the_floor(random_file: Path) -> None:
    quiet, loud = synthetic(2.0).samples * 0.001, synthetic(1.0).samples
    net = encoder(random_file, boundary="reference")
    alone = whole(net, Sound(quiet))
    before = whole(net, Sound(np.concatenate([quiet, loud])))
    assert np.abs(alone[:80] - before[:80]).max() > 0.1


@pytest.mark.parametrize("boundary", ["overlap", "reference"])
@pytest.mark.parametrize("seconds", [35.0, 12.0])
def test_the_cutting_of_the_sound_changes_nothing(random_file: Path, boundary: str, seconds: float) -> None:
    net = encoder(random_file, boundary=boundary)
    samples = synthetic(seconds).samples
    first, second = (whole(net, Sound(samples, block)) for block in (1000, 160_000))
    np.testing.assert_array_equal(first, second)


def test_overlap_has_no_glitch_at_thirty_seconds(random_file: Path) -> None:
    """Around 30 s, against one window that lies 15 s later and so has that place in its middle."""
    sound = synthetic(50.0)
    log_mel = np.concatenate(list(log_mel_rows(sound)))
    mel = scaled(log_mel, float(log_mel.max()))
    near = slice(1495, 1505)
    inside = slice(near.start - 750, near.stop - 750)

    def errors(boundary: str, *, positional: bool) -> tuple[float, float]:
        net = encoder(random_file, boundary=boundary)
        if not positional:  # positions differ between any two windows and are part of the features
            net._net.positional_embedding.zero_()
        shifted = net._encode_window(mel[1500 : 1500 + COLUMNS])[inside]
        rows = whole(net, sound)[near]
        step = np.linalg.norm(np.diff(rows, axis=0) - np.diff(shifted, axis=0), axis=2).max()
        usual = np.median(np.linalg.norm(np.diff(shifted, axis=0), axis=2))
        off = np.linalg.norm(rows - shifted, axis=2).max() / np.linalg.norm(shifted, axis=2).mean()
        return float(off), float(step / usual)

    reference_off, _ = errors("reference", positional=False)
    overlap_off, _ = errors("overlap", positional=False)
    assert reference_off > 0.2
    assert overlap_off < reference_off / 10
    _, reference_step = errors("reference", positional=True)
    _, overlap_step = errors("overlap", positional=True)
    assert reference_step > 3
    assert overlap_step < 2


def test_overlap_pads_with_silence(random_file: Path) -> None:
    """Digital silence behind a sound changes nothing; LatentSync's padding is another thing than silence."""
    speech = synthetic(4.0).samples
    longer = np.concatenate([speech, np.zeros(20 * 16_000, np.float32)])
    for boundary, equal in (("overlap", True), ("reference", False)):
        net = encoder(random_file, boundary=boundary)
        # The last rows differ either way: at a sound's end the frames are reflected.
        error = np.abs(whole(net, Sound(speech))[:190] - whole(net, Sound(longer))[:190]).max()
        assert bool(error < 0.02) is equal


def test_no_more_than_one_window_is_held(random_file: Path) -> None:
    """Nothing is encoded before it is asked for, and an hour of plan costs nothing."""
    net = encoder(random_file, boundary="overlap")
    done = []
    inner = net._encode_window

    def counted(columns: NDArray[np.float32]) -> NDArray[np.float32]:
        done.append(1)
        return inner(columns)

    net._encode_window = counted  # type: ignore[method-assign]
    stream = net.encode(synthetic(70.0), times=times(1000, Fraction(25)))
    next(stream)
    assert len(done) == 1
    assert sum(len(batch.values) for batch in stream) == 1000 - 128
    assert len(done) == 2  # 40 s of video need two of the three windows
    assert plan(360_000, "overlap")[-1].start == 360_000 - COLUMNS


@pytest.mark.parametrize("samples", [0, 1, 100, 200, 319, 321])
@pytest.mark.parametrize("boundary", ["overlap", "reference"])
def test_a_sound_too_short_for_a_row_has_one(random_file: Path, samples: int, boundary: str) -> None:
    net = encoder(random_file, boundary=boundary)
    sound = Sound(np.zeros(samples, np.float32))
    got = features(net, sound, np.array([-1.0, 0.0, 5.0]))
    assert got.shape == (3, 30, 64)
    assert np.isfinite(got).all()
    np.testing.assert_array_equal(got[0], got[2])


def test_no_frames_and_audio_that_reads_once(random_file: Path) -> None:
    net = encoder(random_file)
    assert list(net.encode(synthetic(1.0), times=np.empty(0))) == []
    with pytest.raises(TypeError, match="iterable again"):
        next(net.encode(iter(synthetic(1.0)), times=np.zeros(1)))


def test_bfloat16_is_near(random_file: Path) -> None:
    sound, at = synthetic(3.0), times(75, Fraction(25))
    exact = features(encoder(random_file), sound, at)
    coarse = features(encoder(random_file, dtype="bfloat16"), sound, at)
    assert coarse.dtype == np.float32
    assert 0 < np.abs(exact - coarse).mean() < 0.03


def test_full_size_keys_and_shapes_are_the_published_ones(shared_reference: Path) -> None:
    listing = json.loads((shared_reference / "whisper_tiny_keys.json").read_text())
    part = AudioPart.model_validate({"kind": "whisper", "weights": "tiny.pt"})
    state = random_state(part, 0)
    assert {key: list(value.shape) for key, value in state.items()} == {
        row["key"]: row["shape"] for row in listing["encoder"]
    }
    parameters = build(part, state, "random").parameters()
    assert sum(parameter.numel() for parameter in parameters) == listing["num_encoder_parameters"]
    dims = WhisperTorch.random_whisper(part, 0)["dims"]
    assert {k: v for k, v in dims.items() if "audio" in k or k == "n_mels"} == {
        k: v for k, v in listing["dims"].items() if "audio" in k or k == "n_mels"
    }


def test_positions_are_whispers(shared_reference: Path) -> None:
    stored = read_tensors(shared_reference / "tiny_whisper.safetensors")["encoder.positional_embedding"].float()
    assert (positions(64) - stored).abs().max() < 1e-3  # stored in float16


def test_a_model_folder_is_read_and_checked(tmp_path: Path, random_file: Path) -> None:
    from lipsync_core.models.tiny import CONFIG

    root = tmp_path / "model"
    (root / "whisper").mkdir(parents=True)
    (root / "model.json").write_text(CONFIG.model_dump_json())
    with pytest.raises(WeightsError, match=r"lacks whisper/tiny\.pt"):
        encoder(root)
    random_file.replace(root / "whisper" / "tiny.pt")
    net = encoder(root)
    assert net.feature_shape == (30, 64)
    assert net.sample_rate == 16_000
    wrong = CONFIG.model_copy(update={"audio": CONFIG.audio.model_copy(update={"heads": 4})})
    (root / "model.json").write_text(wrong.model_dump_json())
    with pytest.raises(WeightsError, match=r"has 2 heads, model\.json says 4"):
        encoder(root)


def test_safetensors_give_the_same(tmp_path: Path, random_file: Path) -> None:
    content = WhisperTorch.random_whisper(TINY, 0)
    write_safetensors(tmp_path / "same.safetensors", content["model_state_dict"], {"dims": content["dims"]})
    sound, at = synthetic(1.0), times(25, Fraction(25))
    np.testing.assert_array_equal(
        features(encoder(random_file), sound, at), features(encoder(tmp_path / "same.safetensors"), sound, at)
    )


def test_a_checkpoint_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    content = WhisperTorch.random_whisper(TINY, 0)
    state = content["model_state_dict"]
    key = "encoder.blocks.1.attn.key.weight"
    cases = {
        rf"lacks {key}": {name: value for name, value in state.items() if name != key},
        rf"{key} has shape \[64, 32\]": state | {key: torch.zeros(64, 32)},
        r"encoder\.blocks\.2\.extra, which the model does not have": state | {"encoder.blocks.2.extra": torch.zeros(1)},
    }
    for message, changed in cases.items():
        write_pickle(tmp_path / "x.pt", content | {"model_state_dict": changed})
        with pytest.raises(WeightsError, match=message):
            encoder(tmp_path / "x.pt")
    for dims in ({}, content["dims"] | {"n_mels": 128}, content["dims"] | {"n_audio_head": "2"}):
        write_pickle(tmp_path / "x.pt", {"dims": dims, "model_state_dict": state})
        with pytest.raises(WeightsError, match="no Whisper checkpoint"):
            encoder(tmp_path / "x.pt")
    write_pickle(tmp_path / "x.pt", content | {"dims": content["dims"] | {"n_audio_head": 5}})
    with pytest.raises(WeightsError, match="5 heads do not divide the width 64"):
        encoder(tmp_path / "x.pt")


def test_options_are_checked(random_file: Path) -> None:
    with pytest.raises(WeightsError, match="neither a known model nor a folder"):
        WhisperTorch(WhisperOptions(model="no such model"))
    with pytest.raises(SettingsError, match="is no device"):
        WhisperTorch(WhisperOptions(model=str(random_file), device="gpu"))
