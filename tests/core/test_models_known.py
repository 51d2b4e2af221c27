from __future__ import annotations

import hashlib
import json
import logging
import shutil
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from lipsync_core.errors import WeightsError
from lipsync_core.models import known, manifest
from lipsync_core.models.folder import MODEL_FILE, ModelConfig, ModelFolder
from lipsync_core.models.known import Verdict
from lipsync_core.models.manifest import HubFile, KnownModel
from lipsync_core.models.store import MODELS_VARIABLE, cache_folder
from lipsync_core.paths import CACHE_VARIABLE

NAMES = ("latentsync_unet.pt", "whisper/tiny.pt", "vae/diffusion_pytorch_model.safetensors", "vae/config.json")


@pytest.fixture(autouse=True)
def _no_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.delenv(MODELS_VARIABLE, raising=False)
    known._warn_once.cache_clear()


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> KnownModel:
    """A model with LatentSync's description and layout and files of one line."""
    entries = tuple(
        HubFile(
            file=name,
            repository="someone/toy",
            path=name,
            revision="main",
            size=len(name),
            sha256=hashlib.sha256(name.encode()).hexdigest(),
        )
        for name in NAMES
    )
    model = KnownModel(name="toy", title="A toy", licence="CC0-1.0", description="latentsync-1.5.json", files=entries)
    monkeypatch.setattr(manifest, "models", lambda: {"toy": model})
    return model


def put(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    return root


def test_the_packaged_models_are_described_and_whole() -> None:
    models = manifest.models()
    assert list(models) == ["latentsync-1.6", "latentsync-1.5", "mini", "insightface-buffalo-l"]
    for name, resolution in (("latentsync-1.5", 256), ("latentsync-1.6", 512)):
        text = files("lipsync_core.models").joinpath(models[name].description or "").read_text()
        config = ModelConfig.model_validate(json.loads(text))
        assert (config.name, config.resolution) == (name, resolution)
        assert config.audio.feature_shape == (50, 384)
        assert config.unet.motion is not None
        weights = {config.audio.weights, config.autoencoder.weights, config.unet.weights}
        assert weights <= {file.file for file in models[name].files}
        assert config.autoencoder.downscale == 8


def test_a_packaged_model_needs_no_network_and_can_be_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("the network was asked"))
    packaged = known.folder_of("mini")
    assert packaged == known.pull("mini") == Path(str(files("lipsync_core.models"))) / "mini"
    monkeypatch.setenv("LIPSYNC_MODELS", str(tmp_path))
    shutil.copytree(packaged, tmp_path / "mini")
    assert known.folder_of("mini") == tmp_path / "mini"


def test_a_packaged_model_that_is_damaged_is_to_be_reinstalled(monkeypatch: pytest.MonkeyPatch) -> None:
    gone = KnownModel(name="toy", title="A toy", licence="CC0-1.0", packaged="nowhere")
    monkeypatch.setattr(manifest, "models", lambda: {"toy": gone})
    with pytest.raises(WeightsError, match="reinstall"):
        known.folder_of("toy")


@pytest.mark.parametrize("origin", [{}, {"packaged": "mini", "files": "some"}])
def test_a_model_is_either_packaged_or_on_the_hub(toy: KnownModel, origin: dict[str, Any]) -> None:
    given = {"name": "x", "title": "X", "licence": "CC0-1.0"} | origin
    if "files" in given:
        given["files"] = toy.files
    with pytest.raises(ValidationError, match="either packaged or"):
        KnownModel.model_validate(given)


def test_the_descriptions_hold_the_published_configuration(shared_reference: Path) -> None:
    """Every key of the full-size U-Net, VAE and Whisper fits the numbers in the packaged model.json."""
    text = files("lipsync_core.models").joinpath("latentsync-1.6.json").read_text()
    config = ModelConfig.model_validate(json.loads(text))
    whisper = json.loads((shared_reference / "whisper_tiny_keys.json").read_text())["dims"]
    audio = config.audio
    assert (audio.layers, audio.width, audio.heads) == tuple(
        whisper[f"n_audio_{what}"] for what in ("layer", "state", "head")
    )
    vae = json.loads((shared_reference / "vae_keys_sd_ft_mse.json").read_text())["config"]
    part = config.autoencoder
    for name in ("layers_per_block", "latent_channels", "norm_num_groups"):
        assert getattr(part, name) == vae[name]
    assert list(part.block_out_channels) == vae["block_out_channels"]
    listing = json.loads((shared_reference / "unet_keys_stage2.json").read_text())
    shapes = {row["key"]: row["shape"] for row in next(v for v in listing.values() if isinstance(v, list))}
    unet, motion = config.unet, config.unet.motion
    assert motion is not None
    assert shapes["conv_in.weight"] == [unet.block_out_channels[0], unet.in_channels, 3, 3]
    assert shapes["conv_out.weight"] == [unet.out_channels, unet.block_out_channels[0], 3, 3]
    for level, channels in enumerate(unet.block_out_channels):
        last = unet.layers_per_block - 1
        assert shapes[f"down_blocks.{level}.resnets.{last}.conv2.weight"][0] == channels
        assert f"down_blocks.{level}.resnets.{last + 1}.conv2.weight" not in shapes
    audio_key = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight"
    assert shapes[audio_key] == [unet.block_out_channels[0], unet.cross_attention_dim]
    assert {shape[1] for key, shape in shapes.items() if key.endswith("pos_encoder.pe")} == {motion.max_frames}
    ddim = json.loads((shared_reference / "ddim.json").read_text())
    told = json.dumps(ddim)
    for value in (config.scheduler.beta_start, config.scheduler.beta_end, config.scheduler.train_timesteps):
        assert str(value) in told


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("file", "../x.pt"),
        ("file", "/x.pt"),
        ("path", "a/../../x.pt"),
        ("path", "a\\x.pt"),
        ("repository", "toy"),
        ("repository", "../toy"),
        ("revision", "../main"),
        ("revision", ""),
        ("size", 0),
        ("sha256", "1"),
        ("extra", 1),
    ],
)
def test_a_bad_hub_file_is_refused(field: str, value: object) -> None:
    good = {"file": "x.pt", "repository": "a/b", "path": "x.pt", "revision": "main"}
    HubFile.model_validate(good)
    with pytest.raises(ValidationError):
        HubFile.model_validate(good | {field: value})


@pytest.mark.parametrize("name", ["../toy", "/toy", "..", "", "a/b"])
def test_a_bad_model_name_is_refused(toy: KnownModel, name: str) -> None:
    with pytest.raises(ValidationError):
        KnownModel.model_validate(toy.model_dump() | {"name": name})


def test_a_missing_model_names_the_command_and_the_place(toy: KnownModel) -> None:
    put(cache_folder() / "toy", *NAMES[1:])
    with pytest.raises(WeightsError, match=r"lacks latentsync_unet\.pt\.") as caught:
        known.open_model("toy")
    assert "`lipsync models pull toy`" in caught.value.cure
    assert str(cache_folder() / "toy") in caught.value.cure
    assert MODELS_VARIABLE in caught.value.cure


def test_files_put_there_by_hand_become_a_model_folder(toy: KnownModel) -> None:
    root = put(cache_folder() / "toy", *NAMES)
    folder = known.open_model("toy")
    assert folder.root == root
    assert folder.config.resolution == 256
    assert (root / MODEL_FILE).is_file()


def test_the_users_models_folder_comes_first(toy: KnownModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(cache_folder() / "toy", *NAMES)
    monkeypatch.setenv(MODELS_VARIABLE, str(tmp_path / "own"))
    assert known.folder_of("toy") == cache_folder() / "toy"
    own = put(tmp_path / "own" / "toy", *NAMES)
    assert known.folder_of("toy") == own


def test_a_path_is_opened_as_it_is(toy: KnownModel, tmp_path: Path) -> None:
    root = put(cache_folder() / "toy", *NAMES)
    known.folder_of("toy")
    assert known.open_model(str(root)).root == root
    with pytest.raises(WeightsError, match="neither a known model nor a folder"):
        known.open_model(str(tmp_path / "nowhere"))
    with pytest.raises(WeightsError, match="holds no model.json"):
        known.open_model(str(put(tmp_path / "empty", "x")))


def test_verify_tells_good_damaged_and_missing_and_deletes_nothing(toy: KnownModel) -> None:
    root = put(cache_folder() / "toy", *NAMES[:3])
    (root / NAMES[0]).write_text("x" * len(NAMES[0]))
    (root / NAMES[1]).write_text("short")
    assert dict(known.verify("toy")) == {
        NAMES[0]: Verdict.DAMAGED,
        NAMES[1]: Verdict.DAMAGED,
        NAMES[2]: Verdict.GOOD,
        NAMES[3]: Verdict.MISSING,
    }
    assert (root / NAMES[0]).is_file()


def test_a_converted_part_stands_for_its_pickle(toy: KnownModel) -> None:
    root = put(cache_folder() / "toy", *NAMES)
    known.folder_of("toy")
    description = json.loads((root / MODEL_FILE).read_text())
    description["unet"]["weights"] = "latentsync_unet.safetensors"
    (root / MODEL_FILE).write_text(json.dumps(description))
    with pytest.raises(WeightsError, match="latentsync_unet.safetensors"):
        known.folder_of("toy")
    put(root, "latentsync_unet.safetensors")
    (root / "latentsync_unet.pt").unlink()
    assert known.folder_of("toy") == root
    assert dict(known.verify("toy"))["latentsync_unet.safetensors"] is Verdict.UNKNOWN
    assert known.pull("toy") == root  # nothing is missing, so nothing is fetched
    (root / "latentsync_unet.safetensors").unlink()
    with pytest.raises(WeightsError, match="not on the hub"):
        known.pull("toy")


def test_status_says_where_and_how_large(toy: KnownModel) -> None:
    (row,) = known.status()
    assert (row.folder, row.size) == (None, sum(map(len, NAMES)))
    root = put(cache_folder() / "toy", *NAMES)
    (row,) = known.status()
    assert (row.folder, row.size) == (root, sum(map(len, NAMES)))


def test_a_non_commercial_licence_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    put(cache_folder() / "insightface-buffalo-l", "det_10g.onnx", "2d106det.onnx")
    with caplog.at_level(logging.WARNING):
        known.folder_of("insightface-buffalo-l")
        known.folder_of("insightface-buffalo-l")
    assert caplog.text.count("non-commercial research only") == 1


def test_without_huggingface_hub_the_error_says_so(toy: KnownModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "lipsync_core.models.hub", raising=False)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    import lipsync_core.models

    monkeypatch.delattr(lipsync_core.models, "hub", raising=False)
    with pytest.raises(WeightsError, match="pip install huggingface_hub"):
        known.pull("toy")


def test_a_misspelt_name_lists_the_known_ones() -> None:
    with pytest.raises(WeightsError, match=r"latentsync-1\.6"):
        known.folder_of("latentsync-1.7")


def test_a_folder_that_cannot_be_completed_says_why(toy: KnownModel, monkeypatch: pytest.MonkeyPatch) -> None:
    put(cache_folder() / "toy", *NAMES)

    def refuse(self: Path, *args: object, **kwargs: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "write_text", refuse)
    with pytest.raises(WeightsError, match="cannot be written"):
        known.folder_of("toy")


def test_a_model_folder_with_a_path_that_leaves_it_is_refused(tmp_path: Path) -> None:
    text = files("lipsync_core.models").joinpath("latentsync-1.6.json").read_text()
    for bad in ("../unet.pt", "/etc/passwd", "a/../../b.pt"):
        (tmp_path / MODEL_FILE).write_text(text.replace("latentsync_unet.pt", bad))
        with pytest.raises(WeightsError, match="not a plain relative path"):
            ModelFolder.open(tmp_path)


def test_auto_is_the_best_model_that_is_whole(toy: KnownModel, monkeypatch: pytest.MonkeyPatch) -> None:
    second = toy.model_copy(update={"name": "second"})
    monkeypatch.setattr(manifest, "models", lambda: {"toy": toy, "second": second})
    with pytest.raises(WeightsError, match="No model is here: neither toy nor second"):
        known.open_model("auto")
    put(cache_folder() / "toy", *NAMES[:2])
    put(cache_folder() / "second", *NAMES)
    assert known.open_model("auto").root == cache_folder() / "second"
    put(cache_folder() / "toy", *NAMES)
    assert known.open_model("auto").root == cache_folder() / "toy"


def test_folders_with_a_description_need_no_weights(toy: KnownModel, tmp_path: Path) -> None:
    assert known.described_folders("auto") == known.described_folders("toy") == []
    text = files("lipsync_core.models").joinpath("latentsync-1.5.json").read_text()
    for root in (cache_folder() / "toy", tmp_path / "mine", cache_folder() / "tiny"):
        root.mkdir(parents=True)
        (root / MODEL_FILE).write_text(text)
    assert known.described_folders("auto") == known.described_folders("toy") == [cache_folder() / "toy"]
    assert known.described_folders(str(tmp_path / "mine")) == [tmp_path / "mine"]
    assert known.described_folders("tiny") == [cache_folder() / "tiny"]
    assert known.described_folders(str(tmp_path)) == []


def test_the_tiny_model_is_made_at_its_first_use(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("diffusers")
    first = known.open_model("tiny")
    weights = first.path(first.config.unet.weights)
    before = weights.stat().st_mtime_ns
    assert known.open_model("tiny").root == cache_folder() / "tiny"
    assert weights.stat().st_mtime_ns == before
    (cache_folder() / "tiny" / MODEL_FILE).unlink()  # as an interrupted start leaves it
    assert known.open_model("tiny").config.name == "tiny"


def test_without_torch_the_tiny_model_says_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lipsync_core.models.tiny", None)
    with pytest.raises(WeightsError, match=r"needs torch and safetensors.*lipsync-core\[torch\]"):
        known.open_model("tiny")
