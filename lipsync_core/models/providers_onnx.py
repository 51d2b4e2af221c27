"""Execution providers of ONNX Runtime: which one an option means, whether it works here, and what it is told.

onnxruntime itself goes on with the CPU, and a line on the terminal, where a provider cannot be started. Here each is
tried once with the smallest graph there is, before a model is read.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.metadata
import io
import logging
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import onnxruntime as ort

from lipsync_core.errors import BackendError, SettingsError
from lipsync_core.paths import cache_dir
from lipsync_core.registry import nearest

_log = logging.getLogger(__name__)

_CPU, _CUDA, _TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"
_OPENVINO = "OpenVINOExecutionProvider"
NAMES: Final = {
    "cpu": _CPU,
    "cuda": _CUDA,
    "tensorrt": _TENSORRT,
    "coreml": "CoreMLExecutionProvider",
    "directml": "DmlExecutionProvider",
    "openvino": _OPENVINO,
}
# What `auto` tries, in order. TensorRT spends minutes on building engines, and CoreML is in every macOS build but runs
# graphs with free axes piecemeal: both only by name.
_AUTO: Final = (_CUDA, "MIGraphXExecutionProvider", NAMES["directml"], _OPENVINO)
_WHEELS: Final = {
    _CUDA: "onnxruntime-gpu",
    _TENSORRT: "onnxruntime-gpu",
    NAMES["directml"]: "onnxruntime-directml",
    _OPENVINO: "onnxruntime-openvino",
}
_CURES: Final = {
    _CUDA: 'Run `pip install "onnxruntime-gpu[cuda,cudnn]"` and update the NVIDIA driver',
    _TENSORRT: 'Install TensorRT and run `pip install "onnxruntime-gpu[cuda,cudnn]"`',
}
_NOT_LOCAL: Final = "AzureExecutionProvider"  # in every build; calls a service
# A graph of one node, y = Identity(x), as the bytes of its protobuf: opset 13, x and y float32 [1].
_PROBE: Final = (
    b'\x08\x07:7\n\x10\n\x01x\x12\x01y"\x08Identity\x12\x01g'
    b"Z\x0f\n\x01x\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01b\x0f\n\x01y\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01"
    b"B\x04\n\x00\x10\r"
)
ShapeRange = tuple[dict[str, tuple[int, ...]], dict[str, tuple[int, ...]]]
FATAL: Final = 4  # onnxruntime's highest severity
_NOISE: Final = re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : |/\S*onnxruntime/\S+:\d+ ")  # its source files
_LONGEST: Final = 300  # characters of onnxruntime's own message that are passed on


@dataclass(frozen=True, slots=True)
class Provider:
    """A provider that works here, by onnxruntime's name, and the user's own settings for it."""

    name: str
    settings: tuple[tuple[str, str], ...] = ()

    @property
    def half(self) -> bool:
        """Whether float16 is the faster precision there."""
        return self.name not in (_CPU, _OPENVINO)

    @property
    def device(self) -> tuple[str, int] | None:
        """Kind and number of the device whose memory values can be kept in; None for main memory."""
        if self.name not in (_CUDA, _TENSORRT):
            return None
        number = dict(self.settings).get("device_id", "0")
        return "cuda", int(number) if number.isdigit() else 0  # onnxruntime says itself what is wrong with it

    def chain(
        self, graph_sha256: str = "", *, half: bool = False, shapes: ShapeRange | None = None
    ) -> list[tuple[str, dict[str, str]]]:
        """Return what a session is to try in order, with settings.

        graph_sha256: hash of its graph's file. half: the graph is a float16 one. shapes: smallest and largest of each
        input with an open axis, where the graph goes to one provider whole.
        """
        own = dict(self.settings)
        if self.name == _CPU:
            return [(_CPU, own)]
        if self.name == _CUDA:
            return [(_CUDA, _cuda_settings() | own), (_CPU, {})]
        if self.name == _TENSORRT:
            device = {"device_id": own["device_id"]} if "device_id" in own else {}
            settings = _tensorrt_settings(graph_sha256, half=half) | _profile(shapes) | own
            return [(_TENSORRT, settings), (_CUDA, _cuda_settings() | device), (_CPU, {})]
        return [(self.name, own), (_CPU, {})]


CPU: Final = Provider(_CPU)


def available() -> list[str]:
    """Return the providers this build of onnxruntime has, by our names where there is one, the CPU last."""
    ours = {name: alias for alias, name in NAMES.items()}
    return [ours.get(name, name) for name in ort.get_available_providers() if name != _NOT_LOCAL]


def tried() -> Iterator[tuple[str, str]]:
    """Try the providers of this build that `auto` would take; yields each and why it cannot be started."""
    ours = {name: alias for alias, name in NAMES.items()}
    for name in _AUTO:
        if name in ort.get_available_providers():
            yield ours.get(name, name), start(Provider(name))


def pick_provider(option: str, settings: dict[str, str], *, allow_cpu_fallback: bool) -> Provider:
    """Return the provider an option means, tried.

    Raises: `SettingsError` where this build of onnxruntime lacks it, `BackendError` where it cannot be started here.
    """
    if option == "auto":
        if settings:
            raise SettingsError(
                "provider_options belong to one provider, but provider is auto.",
                f"Set provider too; this onnxruntime has {', '.join(available())}.",
            )
        return _best()
    provider = Provider(_known(option), tuple(sorted(settings.items())))
    reason = start(provider)
    if reason:
        fall_back(provider, reason, allowed=allow_cpu_fallback)
        return CPU
    return provider


def fall_back(provider: Provider, reason: str, *, allowed: bool) -> None:
    """Warn that the CPU is used instead; raises `BackendError` where that is not allowed."""
    cause = f"onnxruntime {ort.__version__} cannot start {provider.name} here: {reason}."
    cure = _CURES.get(provider.name, "Install what that provider needs")
    if provider.settings:
        cure = f"Check provider_options, or {cure[0].lower()}{cure[1:]}"
    if not allowed:
        raise BackendError(cause, f"{cure}, or set provider=cpu or allow_cpu_fallback=true.")
    warn_once(f"{cause} The CPU is used. {cure}.")


@cache
def warn_once(text: str) -> None:
    """Log a warning; two backends of one job have the same to say."""
    _log.warning("%s", text)


def _best() -> Provider:
    for name in _AUTO:
        if name in ort.get_available_providers():
            provider = Provider(name)
            reason = start(provider)
            if not reason:
                return provider
            fall_back(provider, reason, allowed=True)
    return CPU


def _known(option: str) -> str:
    name = NAMES.get(option, option)
    if name in ort.get_available_providers():
        return name
    if name in _WHEELS:
        # First out with what is there: the wheels overwrite each other's files.
        here = sorted(set(importlib.metadata.packages_distributions().get("onnxruntime", [])))
        cure = f"Run `pip uninstall -y {' '.join(here)}`, then `pip install {_WHEELS[name]}`, or set provider=cpu."
    elif name in NAMES.values():
        cure = "Install an onnxruntime that is built with it, or set provider=cpu."
    else:
        cure = nearest(option, ["auto", *available()])
    raise SettingsError(
        f"This onnxruntime {ort.__version__} has no provider {option!r}: it has {', '.join(available())}.", cure
    )


@cache
def start(provider: Provider) -> str:
    """Try a provider, once in a process; returns why it cannot be started, nothing where it can."""
    options = ort.SessionOptions()
    options.log_severity_level = FATAL
    try:
        printed = _preload() if provider.device else ""
        inner = ort.InferenceSession(_PROBE, options, providers=provider.chain(), enable_fallback=0)
    except Exception as error:
        return _missing_library(provider) or first_line(error)
    if inner.get_providers()[0] == provider.name:
        return ""
    return _missing_library(provider) or printed or "it did not start"


def _preload() -> str:
    """Load CUDA from NVIDIA's wheels where they are installed; returns the first line printed about it."""
    with contextlib.redirect_stdout(io.StringIO()) as out:
        ort.preload_dlls()
    lines = out.getvalue().splitlines()
    return lines[0] if lines else ""


def _missing_library(provider: Provider) -> str:
    """Return the system's own words on why a provider's library does not load; onnxruntime only logs them."""
    stem = {_CUDA: "cuda", _TENSORRT: "tensorrt", _OPENVINO: "openvino"}.get(provider.name)
    file = Path(ort.__file__).parent / "capi" / f"libonnxruntime_providers_{stem}.so"
    if stem is None or sys.platform != "linux" or not file.is_file():
        return ""
    try:
        ctypes.CDLL(str(file))
    except OSError as error:
        return str(error)
    return ""


def _cuda_settings() -> dict[str, str]:
    return {
        # The default searches all convolution algorithms anew for each number of frames that occurs.
        "cudnn_conv_algo_search": "HEURISTIC",
        "use_tf32": "0",  # float32 is to be float32; float16 is the fast one
    }


def _tensorrt_settings(graph_sha256: str, *, half: bool) -> dict[str, str]:
    """Keep engines, which take minutes to build, for as long as graph, onnxruntime and TensorRT stay the same."""
    versions = f"onnxruntime-{ort.__version__}-tensorrt-{_tensorrt_version()}"
    folder = cache_dir() / "tensorrt" / f"{graph_sha256[:16] or 'probe'}-{versions}"
    folder.mkdir(parents=True, exist_ok=True)
    return {
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(folder),
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": str(folder.parent),
        "trt_fp16_enable": str(int(half)),
    }


def _profile(shapes: ShapeRange | None) -> dict[str, str]:
    """Have one engine built for all shapes that occur, and fastest for the largest, that of a whole chunk.

    Without it an engine is built anew, in minutes, for each shape beyond those seen before
    (https://onnxruntime.ai/docs/execution-providers/TensorRT-ExecutionProvider.html#explicit-shape-range).
    """
    if not shapes:
        return {}
    least, most = (
        ",".join(f"{name}:{'x'.join(map(str, shape))}" for name, shape in extent.items()) for extent in shapes
    )
    return {"trt_profile_min_shapes": least, "trt_profile_opt_shapes": most, "trt_profile_max_shapes": most}


def _tensorrt_version() -> str:
    for name in ("tensorrt", "tensorrt-cu13", "tensorrt-cu12"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return importlib.metadata.version(name)
    return "system"


def first_line(error: Exception) -> str:
    """Return the first line of onnxruntime's message, without its code, places in its source and full stop."""
    lines = _NOISE.sub("", str(error).strip()).splitlines()
    text = lines[0].rstrip(". ") if lines else type(error).__name__
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


# Whatever it has to say of failing comes as an exception too, or is found out by `start`; the rest is noise on the
# terminal. This is the logger of what belongs to no session, such as loading a provider.
ort.set_default_logger_severity(FATAL)
