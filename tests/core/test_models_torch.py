"""Reading, writing and converting tensors, and the tiny model from backends that stand in for the real ones."""

from __future__ import annotations

import json
import pickle
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from lipsync_core import BackendSpec
from lipsync_core.backends import StageKind
from lipsync_core.errors import BackendError, SettingsError, WeightsError
from lipsync_core.models.folder import MODEL_FILE, AudioPart, AutoencoderPart, ModelFolder, UNetPart
from lipsync_core.registry import Entry, Origin, Registry, State

torch = pytest.importorskip("torch", reason="needs torch (extra torch)")
pytest.importorskip("safetensors", reason="needs safetensors (extra torch)")

from lipsync_core.models import device_torch  # noqa: E402
from lipsync_core.models.convert_torch import convert  # noqa: E402
from lipsync_core.models.tensors_torch import (  # noqa: E402
    convert_tensors,
    read_checkpoint,
    read_tensors,
    write_pickle,
    write_safetensors,
)
from lipsync_core.models.tiny import CONFIG, write_tiny  # noqa: E402


class Stand:
    """Both backends at once: the seed and a number of the part in one tensor each."""

    def __init__(self, options: object) -> None:
        raise AssertionError("the tiny model is made from the class, not from an instance")

    @classmethod
    def random_whisper(cls, part: AudioPart, seed: int) -> dict[str, Any]:
        return {"dims": {"n_audio_state": part.width}, "model_state_dict": cls._state(part.width, seed)}

    @classmethod
    def random_unet(cls, part: UNetPart, seed: int) -> dict[str, Any]:
        return cls._state(part.block_out_channels[1], seed)

    @classmethod
    def random_autoencoder(cls, part: AutoencoderPart, seed: int) -> dict[str, Any]:
        return cls._state(part.block_out_channels[3], seed)

    @staticmethod
    def _state(width: int, seed: int) -> dict[str, Any]:
        return {"a.weight": torch.randn(width, 3, generator=torch.Generator().manual_seed(seed))}


def registry(*names: tuple[StageKind, str]) -> Registry:
    target = f"{__name__}:Stand"
    return Registry(
        entries=[
            Entry(BackendSpec(kind, name, "-", target, target), Origin("t", "t", "1"), State.READY)
            for kind, name in names
        ]
    )


BOTH = ((StageKind.AUDIO, "whisper-torch"), (StageKind.DENOISER, "latentsync-torch"))


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    write_tiny(tmp_path / "tiny", 3, registry(*BOTH))
    return tmp_path / "tiny"


def test_the_tiny_model_has_the_published_layout(tiny: Path) -> None:
    folder = ModelFolder.open(tiny)
    assert folder.config == CONFIG
    unet = torch.load(tiny / "latentsync_unet.pt", weights_only=True)
    assert set(unet) == {"global_step", "state_dict"}
    assert unet["state_dict"]["a.weight"].shape == (64, 3)
    whisper = torch.load(tiny / "whisper" / "tiny.pt", weights_only=True)
    assert set(whisper) == {"dims", "model_state_dict"}
    assert read_tensors(tiny / "vae" / "diffusion_pytorch_model.safetensors")["a.weight"].shape == (32, 3)


def test_the_tiny_model_depends_on_the_seed_alone(tiny: Path, tmp_path: Path) -> None:
    for name, seed in (("same", 3), ("other", 4)):
        write_tiny(tmp_path / name, seed, registry(*BOTH))
    for part in ("audio", "autoencoder", "unet"):
        weights = getattr(CONFIG, part).weights
        first, same, other = (read_tensors(tmp_path / name / weights) for name in ("tiny", "same", "other"))
        assert torch.equal(first["a.weight"], same["a.weight"])
        assert not torch.equal(first["a.weight"], other["a.weight"])


def test_a_tiny_model_replaces_no_other(tiny: Path) -> None:
    with pytest.raises(WeightsError, match="holds a model already"):
        write_tiny(tiny, 0, registry(*BOTH))


def test_a_tiny_model_needs_both_backends(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="latentsync-torch"):
        write_tiny(tmp_path / "tiny", 0, registry(BOTH[0]))
    lacking = registry(*BOTH)
    lacking.entries = [Entry(e.spec, e.origin, State.MISSING, "pip install it") for e in lacking.entries]
    with pytest.raises(BackendError, match="pip install it"):
        write_tiny(tmp_path / "tiny", 0, lacking)
    assert not (tmp_path / "tiny").exists()


def test_a_model_without_a_whisper_has_nothing_of_it_to_convert(tmp_path: Path) -> None:
    packaged = ModelFolder.open(Path(str(files("lipsync_core.models"))) / "mini")
    (tmp_path / MODEL_FILE).write_text(packaged.config.model_dump_json())
    assert convert(tmp_path) == []


def test_converting_keeps_every_value_and_names_the_new_files(tiny: Path) -> None:
    before = {part: read_checkpoint(tiny / getattr(CONFIG, part).weights) for part in ("audio", "unet", "autoencoder")}
    done = convert(tiny)
    assert [(old.name, new.name) for old, new in done] == [
        ("tiny.pt", "tiny.safetensors"),
        ("latentsync_unet.pt", "latentsync_unet.safetensors"),
    ]
    config = ModelFolder.open(tiny).config
    assert config.unet.weights == "latentsync_unet.safetensors"
    assert config.audio.weights == "whisper/tiny.safetensors"
    assert config.autoencoder == CONFIG.autoencoder
    for part, old in before.items():
        new = read_checkpoint(tiny / getattr(config, part).weights)
        assert new.tensors.keys() == old.tensors.keys()
        assert all(torch.equal(new.tensors[key], old.tensors[key]) for key in old.tensors)
        assert new.extra == old.extra
    assert before["audio"].extra == {"dims": {"n_audio_state": 64}}
    assert convert(tiny) == []
    assert (tiny / "latentsync_unet.pt").is_file()


def test_a_failed_conversion_leaves_the_description_as_it_was(tiny: Path) -> None:
    (tiny / "latentsync_unet.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(WeightsError, match="cannot be read as a model file"):
        convert(tiny)
    assert ModelFolder.open(tiny).config == CONFIG
    assert not list(tiny.rglob("*.partial"))


class Evil:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


def test_a_pickle_that_would_run_something_is_refused_and_runs_nothing(tmp_path: Path) -> None:
    mark = tmp_path / "it ran"
    torch.save({"state_dict": {"a": torch.zeros(1)}, "x": Evil(mark)}, tmp_path / "zipped.pt")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps({"state_dict": {}, "x": Evil(mark)}, protocol=2))
    for name in ("zipped.pt", "plain.pt"):
        with pytest.raises(WeightsError, match="cannot be read as a model file"):
            read_checkpoint(tmp_path / name)
    assert not mark.exists()


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("content", [b"", b"\x80", b"PK\x03\x04 cut", b"\xff" * 64])
def test_a_damaged_file_is_one_error(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"bad{suffix}"
    path.write_bytes(content)
    with pytest.raises(WeightsError) as caught:
        read_checkpoint(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", None])
def test_every_published_nesting_is_read(tmp_path: Path, key: str | None, legacy: bool) -> None:
    state = {"a": torch.arange(4.0), "b": torch.ones(2, dtype=torch.float16)}
    content = {key: state, "global_step": 7} if key else state
    torch.save(content, tmp_path / "x.pt", _use_new_zipfile_serialization=not legacy)
    found = read_checkpoint(tmp_path / "x.pt")
    assert found.tensors.keys() == state.keys()
    assert all(torch.equal(found.tensors[name], state[name]) for name in state)
    assert found.extra == ({"global_step": 7} if key else {})


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_converting_empties_the_checkpoint_and_keeps_the_values(tmp_path: Path, suffix: str, dtype: Any) -> None:
    tensors = {"a": torch.randn(70, 1000), "b": torch.randn(3)}
    file = tmp_path / f"model{suffix}"
    write_pickle(file, tensors) if suffix == ".pt" else write_safetensors(file, tensors)
    checkpoint = read_checkpoint(file)
    assert checkpoint.mapped
    converted = convert_tensors(checkpoint, dtype, torch.device("cpu"))
    assert not checkpoint.tensors
    assert all(torch.equal(converted[name], tensors[name].to(dtype)) for name in tensors)


def test_a_file_without_tensors_is_refused(tmp_path: Path) -> None:
    for content in ([torch.zeros(1)], {"a": 1}, {}):
        torch.save(content, tmp_path / "x.pt")
        with pytest.raises(WeightsError, match="holds no tensors by name"):
            read_checkpoint(tmp_path / "x.pt")


def test_shared_and_strided_tensors_survive_safetensors(tmp_path: Path) -> None:
    base = torch.arange(6.0).reshape(2, 3)
    tensors = {"a": base, "b": base, "t": base.T, "row": base[1]}
    write_safetensors(tmp_path / "x.safetensors", tensors, {"dims": {"n": 1}})
    found = read_checkpoint(tmp_path / "x.safetensors")
    assert all(torch.equal(found.tensors[name], tensors[name]) for name in tensors)
    assert found.extra == {"dims": {"n": 1}}


def test_what_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(WeightsError, match="cannot be written"):
        write_pickle(tmp_path / "taken", {"a": 1})
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_a_wrong_model_json_is_not_converted(tiny: Path) -> None:
    (tiny / MODEL_FILE).write_text(json.dumps({"format": 2}))
    with pytest.raises(WeightsError, match="format"):
        convert(tiny)


def test_devices_and_precisions() -> None:
    cpu = device_torch.pick_device("cpu")
    assert cpu.type == "cpu"
    assert device_torch.pick_dtype("auto", cpu) is torch.float32
    assert device_torch.pick_dtype("auto", torch.device("cuda")) is torch.float16
    assert device_torch.pick_dtype("bfloat16", cpu) is torch.bfloat16
    with pytest.raises(SettingsError, match="is no device"):
        device_torch.pick_device("gpu")
    with pytest.raises(SettingsError, match="has no device 'cuda:99'"):
        device_torch.pick_device("cuda:99")
