"""The packaged profiles: each resolves, and its parts fit each other."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from lipsync_core import registry as registry_module
from lipsync_core.api import make_stages
from lipsync_core.backends import StageKind
from lipsync_core.errors import SettingsError
from lipsync_core.registry import Registry, discover
from lipsync_core.settings import Settings, available_profiles, resolve

TORCH = ["torch", "torch-reference", "tiny"]


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Registry:
    """All backends, whether or not what they need is installed."""
    monkeypatch.setattr(registry_module, "_present", lambda module: True)
    return discover()


@pytest.fixture
def settle(registry: Registry, tmp_path: Path) -> Any:
    def run(profile: str, *overrides: str) -> Settings:
        return resolve(registry, profile=profile, overrides=overrides, environment={}, folder=tmp_path)

    return run


def test_each_profile_is_named_like_its_file_and_says_what_it_is(registry: Registry) -> None:
    packaged = {Path(file.name).stem for file in (files("lipsync_core") / "profiles").iterdir()}
    assert set(TORCH) | {"draft"} <= packaged
    profiles = available_profiles(registry)
    for name in packaged:
        assert profiles[name].summary


@pytest.mark.parametrize("name", TORCH)
def test_the_torch_profiles_resolve_to_latentsyncs_stages(settle: Any, name: str) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("diffusers")
    settings = settle(name, *(["job.model=latentsync-1.5"] if name == "torch" else []))
    backends = {kind: stage.entry.spec.name for kind, stage in settings.stages.items()}
    assert backends == {
        StageKind.AUDIO: "whisper-torch",
        StageKind.ALIGNER: "insightface-onnx" if name == "torch-reference" else "facemesh-opencv",
        StageKind.MASKER: "fixed-mask",
        StageKind.DENOISER: "latentsync-torch",
        StageKind.COMPOSITOR: "restore-torch",
    }
    values = settings.values()
    assert values["audio.options.model"] == values["denoiser.options.model"]
    if name != "torch-reference":
        assert values["aligner.options.geometry"] == "latentsync"
        assert values["compositor.options.region"] == "mask"
        assert settings.job.timing == "source"


def test_the_reference_profile_is_exact_in_every_stage(settle: Any) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("diffusers")
    values = settle("torch-reference").values()
    exact = {
        "audio.options.boundary": "reference",
        "aligner.options.smoothing": "reference",
        "aligner.options.channel_order": "rgb",
        "aligner.options.face": "largest",
        "denoiser.options.steps": 20,
        "denoiser.options.guidance_scale": 1.5,
        "denoiser.options.scheduler": "ddim",
        "denoiser.options.cache": "none",
        "denoiser.options.chunk_overlap": 0,
        "denoiser.options.vae": "sample",
        "compositor.options.region": "crop",
        "job.timing": "reference",
        "job.sync_offset_ms": 0.0,
        "job.seed": 1247,
    }
    assert {key: values[key] for key in exact} == exact


@pytest.mark.parametrize("override", ["job.extend=loop", "job.fps=30", "job.length=video"])
def test_the_reference_timing_decides_the_rest_itself(settle: Any, override: str) -> None:
    assert settle("draft", "job.timing=reference").job.timing == "reference"
    key = override.partition("=")[0].removeprefix("job.")
    with pytest.raises(SettingsError, match=rf"--set: job\.timing = 'reference' .* reference decides {key} itself"):
        settle("draft", "job.timing=reference", override)


@pytest.mark.facemodel
def test_the_tiny_profile_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared_data: Path) -> None:
    """Two jobs with one set of backends: the model is made at its first use, and the second job is as the first."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("diffusers")
    from lipsync_core.api import Dubber
    from lipsync_core.errors import WeightsError
    from lipsync_core.models import store
    from lipsync_core.paths import CACHE_VARIABLE

    from .clips import write_sound

    try:
        store.locate("face-landmarker", download=False)
    except WeightsError as error:
        pytest.skip(str(error))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        write_sound(tmp_path / "say.wav", seconds=0.4)
        with Dubber(profile="tiny") as dubber:
            result = dubber.dub(shared_data / "grid_rz_sbwe5n.mpg", "say.wav", "out.mp4")
            again = dubber.dub(shared_data / "grid_rz_sbwe5n.mpg", "say.wav", "again.mp4")
    finally:
        torch.set_num_threads(before)
    assert result.model == "tiny"
    assert Path("again.mp4").read_bytes() == Path("out.mp4").read_bytes()
    assert (again.analysis_cached, again.dubbed) == (True, 10)
    assert (result.frames, result.dubbed) == (10, 10)
    assert Path("out.mp4").stat().st_size > 1000


def test_the_aligner_follows_the_denoisers_crops(settle: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("diffusers")
    from lipsync_core.errors import BackendError, WeightsError
    from lipsync_core.models import store
    from lipsync_core.models.tiny import write_tiny

    try:
        store.locate("face-landmarker", download=False)
    except WeightsError as error:
        pytest.skip(str(error))
    write_tiny(tmp_path / "mine")
    model = f"job.model={tmp_path / 'mine'}"
    settings, stages = make_stages(discover(), settle("torch", model))
    assert stages.aligner.crop_size == stages.denoiser.crop_size == 64
    assert settings.values()["aligner.options.resolution"] == 64
    with pytest.raises(BackendError, match="gives crops of 128 px, but the denoiser latentsync-torch takes 64 px"):
        make_stages(discover(), settle("torch", model, "aligner.options.resolution=128"))


def test_every_backend_with_a_model_gets_the_jobs(settle: Any) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("diffusers")
    settings = settle("torch", "job.model=latentsync-1.5", "audio.options.model=other")
    values = settings.values()
    assert (values["denoiser.options.model"], values["audio.options.model"]) == ("latentsync-1.5", "other")
    assert settings.origin["denoiser.options.model"] == "job.model"
    assert settings.origin["audio.options.model"] == "--set"


@pytest.mark.parametrize("name", ["torch", "onnx"])
def test_where_no_other_model_is_here_it_is_the_packaged_one(
    settle: Any, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch" if name == "torch" else "onnxruntime")
    pytest.importorskip("diffusers")
    monkeypatch.setenv("LIPSYNC_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("LIPSYNC_MODELS", raising=False)
    settings = settle(name)
    values = settings.values()
    assert settings.model is not None
    assert settings.model.preview
    assert values["denoiser.options.model"] == settings.model.name == "mini"
    assert values["audio.backend"] == "mouth-shape-numpy"
    assert values["audio.options.reach"] == 2
    assert values["denoiser.options.steps"] == 4
    assert settings.origin["denoiser.options.steps"] == settings.origin["compositor.options.grain"] == "model mini"


@pytest.mark.facemodel
@pytest.mark.parametrize("model", ["tiny", "auto"])
def test_the_onnx_profile_runs_without_torch(
    model: str, request: pytest.FixtureRequest, shared_data: Path, tmp_path: Path
) -> None:
    """A real clip's first frames, in a process that can import none of what exporting took: `auto` is `mini` there."""
    pytest.importorskip("onnxruntime")
    from lipsync_core.errors import WeightsError
    from lipsync_core.models import store

    from .clips import write_sound

    try:
        store.locate("face-landmarker", download=False)
    except WeightsError as error:
        pytest.skip(str(error))
    write_sound(tmp_path / "say.wav", seconds=0.4)
    chosen = str(request.getfixturevalue("exported_tiny")) if model == "tiny" else "auto"
    code = f"""
import sys
absent = ("torch", "diffusers", "safetensors", "onnx")
sys.modules.update(dict.fromkeys(absent))
from lipsync_core.api import dub
result = dub({str(shared_data / "grid_rz_sbwe5n.mpg")!r}, "say.wav", "out.mp4", profile="onnx",
             flags={{"job.model": {chosen!r}, "denoiser.options.steps": 2}})
assert (result.frames, result.dubbed, result.model) == (10, 10, {"tiny" if model == "tiny" else "mini"!r}), result
assert "onnxruntime" in sys.modules
assert all(sys.modules[name] is None for name in absent)
"""
    environment = os.environ | {"LIPSYNC_CACHE": str(tmp_path / "cache")}
    environment.pop("LIPSYNC_MODELS", None)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out.mp4").stat().st_size > 1000


@pytest.mark.parametrize("name", ["onnx", "tiny-onnx"])
def test_the_onnx_profiles_name_no_backend_of_torch(settle: Any, name: str) -> None:
    pytest.importorskip("onnxruntime")
    settings = settle(name, *(["job.model=latentsync-1.5"] if name == "onnx" else []))
    assert [stage.entry.spec.name for stage in settings.stages.values()] == [
        "whisper-onnx",
        "facemesh-opencv",
        "fixed-mask",
        "latentsync-onnx",
        "restore-opencv",
    ]
    assert settings.values()["denoiser.options.model"] == settings.job.model
