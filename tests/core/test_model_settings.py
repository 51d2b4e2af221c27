"""Settings that follow the model's own folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lipsync_core import registry as registry_module
from lipsync_core.backends import BackendSpec, StageKind
from lipsync_core.errors import BackendError, SettingsError, WeightsError
from lipsync_core.models import known
from lipsync_core.models.exported import RECORD_FILE, Precision, export_folder
from lipsync_core.models.folder import MODEL_FILE
from lipsync_core.models.store import MODELS_VARIABLE, cache_folder
from lipsync_core.paths import CACHE_VARIABLE
from lipsync_core.registry import Entry, Origin, Registry, State, discover
from lipsync_core.settings import Settings, resolve

SHAPES = {
    "name": "shapes",
    "title": "A model that hears mouth shapes",
    "licence": "CC0-1.0",
    "resolution": 64,
    "audio": {"kind": "mouth-shape", "reach": 3},
    "autoencoder": {"kind": "patch", "weights": "a.safetensors"},
    "unet": {"weights": "u.safetensors", "in_channels": 49, "out_channels": 16, "cross_attention_dim": 56},
    "scheduler": {},
    "sampling": {"steps": 7, "guidance_scale": 1.0},
    "paste": {"grain": 0.5},
}


@pytest.fixture(autouse=True)
def _no_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.delenv(MODELS_VARIABLE, raising=False)


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Registry:
    """All backends, whether or not what they need is installed."""
    monkeypatch.setattr(registry_module, "_present", lambda module: True)
    return discover()


@pytest.fixture
def settle(registry: Registry, tmp_path: Path) -> Any:
    pytest.importorskip("onnxruntime")

    def run(*overrides: str, profile: str = "onnx") -> Settings:
        overrides = ("audio.backend=auto", *overrides)
        return resolve(registry, profile=profile, overrides=overrides, environment={}, folder=tmp_path)

    return run


@pytest.fixture
def shapes(tmp_path: Path) -> Path:
    folder = tmp_path / "shapes"
    folder.mkdir()
    (folder / MODEL_FILE).write_text(json.dumps(SHAPES))
    return folder


def backend(settings: Settings, kind: StageKind = StageKind.AUDIO) -> str:
    return settings.stages[kind].entry.spec.name


def test_the_audio_backend_reads_the_models_audio_part(settle: Any, shapes: Path) -> None:
    settings = settle(f"job.model={shapes}")
    assert backend(settings) == "mouth-shape-numpy"
    values = settings.values()
    assert values["audio.options.reach"] == 3
    assert settings.origin["audio.options.reach"] == "model shapes"
    assert settings.model is not None
    assert settings.model.name == "shapes"
    # Known, though its weights are not here.
    other = settle("job.model=latentsync-1.5")
    assert backend(other) == "whisper-onnx"
    assert other.values()["audio.options.model"] == "latentsync-1.5"


def test_it_has_the_denoisers_runtime(settle: Any) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("diffusers")
    assert backend(settle("job.model=tiny", profile="torch")) == "whisper-torch"
    assert backend(settle("job.model=tiny", profile="onnx")) == "whisper-onnx"


def test_the_model_says_how_it_is_sampled_and_a_setting_outranks_it(settle: Any, shapes: Path) -> None:
    values = settle(f"job.model={shapes}").values()
    assert (values["denoiser.options.steps"], values["denoiser.options.guidance_scale"]) == (7, 1.0)
    settings = settle(f"job.model={shapes}", "denoiser.options.steps=3")
    assert settings.values()["denoiser.options.steps"] == 3
    assert settings.origin["denoiser.options.steps"] == "--set"
    assert settings.origin["denoiser.options.guidance_scale"] == "model shapes"
    assert settle("job.model=latentsync-1.5").values()["denoiser.options.steps"] == 20


def test_a_model_that_nobody_names_is_followed_too(settle: Any, tmp_path: Path) -> None:
    names = ("auto", "facemesh-opencv", "fixed-mask", "latentsync-onnx", "restore-opencv")
    text = "".join(f'[{kind}]\nbackend = "{name}"\n' for kind, name in zip(StageKind, names, strict=True))
    (tmp_path / "plain.toml").write_text(text)
    values = settle(profile=str(tmp_path / "plain.toml")).values()
    assert (values["denoiser.options.model"], values["denoiser.options.steps"]) == ("mini", 4)
    assert values["compositor.options.region"] == "mouth"


def test_the_model_says_what_its_faces_are_given_when_pasted_back(settle: Any, shapes: Path) -> None:
    values = settle(f"job.model={shapes}").values()
    assert (values["compositor.options.grain"], values["compositor.options.sharpen"]) == (0.5, 0.0)
    assert settle(f"job.model={shapes}", "compositor.options.grain=0").values()["compositor.options.grain"] == 0
    feathered = settle(f"job.model={shapes}", "compositor.backend=feather-opencv")
    assert "compositor.options.grain" not in feathered.values()


def test_a_named_encoder_gets_what_the_model_asks_for_too(settle: Any, shapes: Path) -> None:
    settings = settle("audio.backend=mouth-shape-numpy", f"job.model={shapes}")
    assert settings.values()["audio.options.reach"] == 3
    assert settle("audio.backend=mouth-shape-numpy", "job.model=tiny").values()["audio.options.reach"] is None


def test_auto_is_the_best_model_in_the_form_the_denoiser_takes(
    settle: Any, shapes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known, "_described", lambda: ["latentsync-1.6", "latentsync-1.5"])
    with pytest.raises(WeightsError, match="No model is here"):
        settle()
    root = export_folder(cache_folder() / "latentsync-1.5", Precision.FLOAT32)
    root.mkdir(parents=True)
    (root / RECORD_FILE).write_text("{}")
    settings = settle()
    assert settings.model is not None
    assert settings.model.name == "latentsync-1.5"
    values = settings.values()
    assert values["denoiser.options.model"] == values["audio.options.model"] == "latentsync-1.5"
    assert values["job.model"] == "auto"


def test_errors_say_what_to_do(settle: Any, registry: Registry, shapes: Path) -> None:
    with pytest.raises(SettingsError, match="follows the denoiser's model, but it has none"):
        settle(profile="draft")
    with pytest.raises(WeightsError, match="neither a known model nor a folder"):
        settle("job.model=latentsync-9")
    registry.entries = [e for e in registry.entries if e.spec.model_part != "mouth-shape"]
    with pytest.raises(SettingsError, match="No audio backend gives what the model shapes hears: mouth-shape"):
        settle(f"job.model={shapes}")


def test_a_missing_encoder_is_named_with_its_cure(settle: Any, registry: Registry, shapes: Path) -> None:
    spec = BackendSpec(StageKind.AUDIO, "other-onnx", "Missing", "m:C", "m:O", model_part="mouth-shape")
    origin = Origin("other", "other", "1")
    registry.entries = [e for e in registry.entries if e.spec.model_part != "mouth-shape"]
    registry.entries.append(Entry(spec, origin, State.MISSING, "Needs something: pip install it"))
    with pytest.raises(BackendError, match="other-onnx .* missing"):
        settle(f"job.model={shapes}")


def test_a_preview_model_says_so_and_how_to_get_the_full_one(shapes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = known.describe(str(shapes))
    assert known.preview_note(config) is None
    assert known.preview_note(None) is None
    note = known.preview_note(config.model_copy(update={"preview": True}))
    assert note == "preview model, 64 px; `lipsync models pull latentsync-1.6` brings the full one"
    monkeypatch.setattr(known, "_missing", lambda model, root: [])
    note = known.preview_note(config.model_copy(update={"preview": True}))
    assert note == "preview model, 64 px; `--model latentsync-1.6` is the full one"
