"""Which provider an option means, and what is said where it does not work. The GPUs here are made up."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ort = pytest.importorskip("onnxruntime", reason="needs onnxruntime (extra onnx)")

from lipsync_core.errors import BackendError, SettingsError  # noqa: E402
from lipsync_core.models import providers_onnx  # noqa: E402
from lipsync_core.models.providers_onnx import CPU, Provider, available, first_line, pick_provider, tried  # noqa: E402

CUDA, TENSORRT, DIRECTML = "CUDAExecutionProvider", "TensorrtExecutionProvider", "DmlExecutionProvider"


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv("LIPSYNC_CACHE", str(tmp_path))
    providers_onnx.start.cache_clear()
    providers_onnx.warn_once.cache_clear()
    yield
    providers_onnx.start.cache_clear()


class FakeRuntime:
    """An onnxruntime built with `built`, of which only `works` start; `error` is raised instead where it is given."""

    def __init__(self, built: list[str], works: list[str], error: Exception | None = None) -> None:
        self.built = [*built, "AzureExecutionProvider", "CPUExecutionProvider"]
        self.works = [*works, "CPUExecutionProvider"]
        self.error = error
        self.asked: list[list[tuple[str, dict[str, str]]]] = []

    def session(self, model: Any, options: Any, *, providers: Any, enable_fallback: int) -> Any:
        assert enable_fallback == 0  # onnxruntime's own falls back with a print
        self.asked.append(providers)
        if self.error and providers[0][0] not in self.works:
            raise self.error
        started = [name for name, _ in providers if name in self.works]
        return type("Session", (), {"get_providers": lambda self: started})()


def fake(monkeypatch: pytest.MonkeyPatch, *arguments: Any) -> FakeRuntime:
    runtime = FakeRuntime(*arguments)
    monkeypatch.setattr(ort, "get_available_providers", lambda: list(runtime.built))
    monkeypatch.setattr(ort, "InferenceSession", runtime.session)
    return runtime


def pick(option: str, settings: dict[str, str] | None = None, *, fallback: bool = False) -> Provider:
    return pick_provider(option, settings or {}, allow_cpu_fallback=fallback)


def test_the_probe_is_a_graph() -> None:
    session = ort.InferenceSession(providers_onnx._PROBE, providers=["CPUExecutionProvider"])
    assert session.run(None, {"x": np.array([3], np.float32)})[0] == [3]


def test_this_machine_has_the_cpu() -> None:
    assert available()[-1] == "cpu"
    assert pick("cpu") == CPU
    assert pick("CPUExecutionProvider") == CPU
    assert pick("cpu", {"arena_extend_strategy": "kSameAsRequested"}).chain() == [
        ("CPUExecutionProvider", {"arena_extend_strategy": "kSameAsRequested"})
    ]


def test_auto_takes_a_gpu_that_works(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    fake(monkeypatch, [TENSORRT, CUDA], [TENSORRT, CUDA])
    assert pick("auto").name == CUDA
    assert not caplog.records
    assert available() == ["tensorrt", "cuda", "cpu"]


def test_what_auto_would_take_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    fake(monkeypatch, [TENSORRT, CUDA, DIRECTML, "MIGraphXExecutionProvider"], [DIRECTML])
    assert list(tried()) == [
        ("cuda", "it did not start"),
        ("MIGraphXExecutionProvider", "it did not start"),
        ("directml", ""),
    ]


def test_auto_takes_the_cpu_where_nothing_else_is_there(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fake(monkeypatch, ["CoreMLExecutionProvider"], ["CoreMLExecutionProvider"])
    assert pick("auto") == CPU
    assert not caplog.records


def test_auto_says_so_when_a_gpu_does_not_start(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fake(monkeypatch, [CUDA], [])
    assert pick("auto") == CPU
    assert pick("auto") == CPU
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "cannot start CUDAExecutionProvider here: it did not start. The CPU is used." in record.getMessage()
    assert 'pip install "onnxruntime-gpu[cuda,cudnn]"' in record.getMessage()


@pytest.mark.parametrize(
    ("option", "cure"),
    [
        ("cuda", "pip uninstall -y onnxruntime`, then `pip install onnxruntime-gpu`"),
        ("tensorrt", "pip install onnxruntime-gpu"),
        ("directml", "pip install onnxruntime-directml"),
        ("openvino", "pip install onnxruntime-openvino"),
        ("coreml", "built with it"),
        ("cdua", "Did you mean 'cpu'?"),
        ("XyzExecutionProvider", "Known: auto, cpu."),
    ],
)
def test_a_provider_this_build_lacks(monkeypatch: pytest.MonkeyPatch, option: str, cure: str) -> None:
    monkeypatch.setattr("importlib.metadata.packages_distributions", lambda: {"onnxruntime": ["onnxruntime"] * 2})
    fake(monkeypatch, [], [])
    with pytest.raises(SettingsError, match=f"has no provider '{option}': it has cpu") as caught:
        pick(option, fallback=True)
    assert cure in caught.value.cure


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (None, "it did not start"),
        (
            RuntimeError("[ONNXRuntimeError] : 1 : FAIL : CUDA failure 100: no device. \nmore"),
            "CUDA failure 100: no device",
        ),
    ],
)
def test_a_provider_that_falls_to_the_cpu(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception | None, reason: str
) -> None:
    runtime = fake(monkeypatch, [CUDA], [], error)
    with pytest.raises(BackendError, match="cannot start CUDAExecutionProvider here") as caught:
        pick("cuda")
    assert caught.value.cause.endswith(f"here: {reason}.")
    assert caught.value.cure.endswith("or set provider=cpu or allow_cpu_fallback=true.")
    assert pick("cuda", fallback=True) == CPU
    assert "The CPU is used" in caplog.text
    assert len(runtime.asked) == 1  # tried once in a process


def test_what_the_system_says_of_a_library_is_the_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "capi").mkdir()
    (tmp_path / "capi" / "libonnxruntime_providers_cuda.so").write_text("no library")
    monkeypatch.setattr(ort, "__file__", str(tmp_path / "__init__.py"))
    monkeypatch.setattr("sys.platform", "linux")
    fake(monkeypatch, [CUDA], [])
    with pytest.raises(BackendError, match="libonnxruntime_providers_cuda.so: (file too short|invalid ELF header)"):
        pick("cuda")


def test_settings_belong_to_a_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = fake(monkeypatch, [CUDA], [CUDA])
    with pytest.raises(SettingsError, match="provider is auto"):
        pick("auto", {"device_id": "1"})
    provider = pick("cuda", {"device_id": "1", "use_tf32": "1"})
    assert provider.device == ("cuda", 1)
    ((name, settings), cpu) = runtime.asked[-1]
    assert (name, cpu) == (CUDA, ("CPUExecutionProvider", {}))
    assert settings == {"device_id": "1", "use_tf32": "1", "cudnn_conv_algo_search": "HEURISTIC"}


def test_wrong_settings_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    fake(monkeypatch, [CUDA], [], RuntimeError("Unknown provider option: devise_id"))
    with pytest.raises(BackendError, match="Unknown provider option: devise_id") as caught:
        pick("cuda", {"devise_id": "x"})
    assert caught.value.cure.startswith("Check provider_options, or run `pip")
    assert Provider(CUDA, (("device_id", "x"),)).device == ("cuda", 0)


def test_engines_are_kept_by_graph_and_versions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    provider = Provider(TENSORRT, (("device_id", "2"), ("trt_max_workspace_size", "1")))
    chain = provider.chain("ab" * 32, half=True)
    assert [name for name, _ in chain] == [TENSORRT, CUDA, "CPUExecutionProvider"]
    settings = chain[0][1]
    folder = Path(settings["trt_engine_cache_path"])
    assert folder.parent == tmp_path / "tensorrt"
    assert folder.name == f"{'ab' * 8}-onnxruntime-{ort.__version__}-tensorrt-system"
    assert folder.is_dir()
    assert (settings["trt_max_workspace_size"], settings["trt_fp16_enable"], settings["device_id"]) == ("1", "1", "2")
    assert chain[1][1]["device_id"] == "2"
    other = provider.chain("cd" * 32)[0][1]
    assert other["trt_engine_cache_path"] != str(folder)
    assert other["trt_fp16_enable"] == "0"
    monkeypatch.setattr("importlib.metadata.version", lambda name: "10.9" if name == "tensorrt" else "")
    assert provider.chain("ab" * 32)[0][1]["trt_engine_cache_path"].endswith("tensorrt-10.9")


def test_tensorrt_builds_one_engine_for_all_shapes() -> None:
    least, most = {"x": (1, 4), "y": (1, 3, 8, 8)}, {"x": (32, 4), "y": (2, 3, 8, 8)}
    settings = Provider(TENSORRT).chain("ab", shapes=(least, most))[0][1]
    assert settings["trt_profile_min_shapes"] == "x:1x4,y:1x3x8x8"
    assert settings["trt_profile_opt_shapes"] == settings["trt_profile_max_shapes"] == "x:32x4,y:2x3x8x8"
    for name, shapes in ((TENSORRT, None), (CUDA, (least, most)), ("CPUExecutionProvider", (least, most))):
        assert not any("profile" in key for _, own in Provider(name).chain("ab", shapes=shapes) for key in own)


def test_where_float16_is_fast_and_values_can_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    fast = {name: Provider(name).half for name in (CUDA, TENSORRT, DIRECTML, "CPUExecutionProvider")}
    assert fast == {CUDA: True, TENSORRT: True, DIRECTML: True, "CPUExecutionProvider": False}
    assert Provider(DIRECTML).device is None
    assert Provider(TENSORRT).device == ("cuda", 0)


def test_a_message_is_made_readable() -> None:
    text = "[ONNXRuntimeError] : 6 : FAIL : Failed /onnxruntime_src/onnxruntime/core/a.h:84 Reshape was false."
    assert first_line(RuntimeError(text)) == "Failed Reshape was false"
    assert first_line(RuntimeError("")) == "RuntimeError"
    assert len(first_line(RuntimeError("x" * 1000))) == 301
