"""ONNX Runtime sessions: which provider runs a graph, how it is opened, shared and bound, and its errors in words.

Imported only where onnxruntime is wanted anyway. Backends of one process that open the same graph in the same way share
one session; it goes when the last of them lets go of it.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar
from weakref import WeakValueDictionary

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from lipsync_core.errors import BackendError, LipsyncError, WeightsError
from lipsync_core.models.exported import Exported, GraphName, Precision
from lipsync_core.models.providers_onnx import CPU, FATAL, Provider, fall_back, first_line, pick_provider

_log = logging.getLogger(__name__)
_T = TypeVar("_T")
_Text = Annotated[str, Field(coerce_numbers_to_str=True)]  # `--set` and TOML make a number of device_id=1
# What running out of memory is called on the CPU, on CUDA and on DirectML: there is no class of error for it.
_NO_MEMORY: Final = ("failed to allocate memory", "bad allocation", "bad_alloc", "out of memory", "alloc_failed")
_NO_MEMORY_DIRECTML: Final = "8007000e"  # E_OUTOFMEMORY
_DAMAGED: Final = ("InvalidProtobuf", "NoSuchFile")  # onnxruntime's names of such errors
_CPU_INFO: Final = Path("/proc/cpuinfo")
_VNNI: Final = {"avx512_vnni", "avx_vnni"}  # as Linux calls them; AMX does not come without
_NO_DATA: Final = "External data"  # the weights beside the graph: an error of no class of its own


class OnnxOptions(BaseModel):
    """Options every backend on ONNX Runtime has."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = Field(
        "auto", description="auto: the best that is exported; a known model, or the path of a model folder"
    )
    precision: Literal["auto", "float32", "float16", "int8"] = Field(
        "auto", description="which export runs; auto: the first there is, float16 before float32 on a GPU"
    )
    provider: str = Field(
        "auto",
        description="what runs it: auto (a GPU this onnxruntime is built for, else the CPU), cpu, cuda, tensorrt, "
        "coreml, directml, openvino, or another name onnxruntime knows",
    )
    provider_options: dict[str, _Text] = Field(
        default_factory=dict, description="the provider's own settings, as onnxruntime documents them"
    )
    allow_cpu_fallback: bool = Field(
        False, description="run on the CPU, with a warning, where the provider that was named cannot be started"
    )
    threads: int = Field(0, ge=0, description="threads of a graph on the CPU; 0 for one on each physical core")


class NoMemoryError(BackendError):
    """A graph ran out of memory."""


class Runtime:
    """How the graphs of one backend are run: the provider that its options come to on this machine."""

    def __init__(self, options: OnnxOptions) -> None:
        """Settle the provider; raises `SettingsError` where this build lacks it, `BackendError` where it fails."""
        self._options = options
        self.provider: Provider = pick_provider(
            options.provider, options.provider_options, allow_cpu_fallback=options.allow_cpu_fallback
        )

    @property
    def precisions(self) -> list[Precision]:
        """The precisions to look for, the best first."""
        if self._options.precision != "auto":
            return [Precision(self._options.precision)]
        if self.provider.half:
            return [Precision.FLOAT16, Precision.FLOAT32, Precision.INT8]
        return [Precision.FLOAT32, Precision.INT8, Precision.FLOAT16]

    def open(self, exported: Exported, name: GraphName) -> Session:
        """Open a graph, or return the session that another backend has on it.

        Raises: `WeightsError` where the file is missing or damaged, `BackendError` where it cannot be run here.
        """
        return _shared(exported, name, self.provider, self._options)


class Session:
    """One graph, ready to run; any thread may use it."""

    def __init__(self, file: Path, inner: Any, provider: Provider) -> None:
        self._file = file
        self.inner = inner
        self.provider = provider

    def run(self, **inputs: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """Return the graph's outputs, new arrays, in order; raises `BackendError` where it fails."""
        outputs: list[NDArray[np.float32]] = self.guarded(lambda: self.inner.run(None, inputs))
        return outputs

    def bind(self, output: str, array: NDArray[np.float32]) -> Binding:
        """Return a binding whose runs write the graph's `output` into `array`."""
        return Binding(self, output, array)

    def guarded(self, call: Callable[[], _T]) -> _T:
        """Return what a call to onnxruntime gives; raises `BackendError` for whatever it raises."""
        try:
            return call()
        except Exception as error:
            raise _run_error(self._file, self.provider, error) from error


class Binding:
    """A session with its inputs laid ready, for running again with little of them changed.

    Not for several threads at once. An input stays until it is put anew. On the CPU it is the given array itself, so
    that must live and change no more than is meant; on CUDA its memory on the device is used again.
    """

    def __init__(self, session: Session, output: str, array: NDArray[np.float32]) -> None:
        self._session = session
        self._device = session.provider.device
        self._array = array
        self._values: dict[str, Any] = {}
        self._binding = session.inner.io_binding()
        self._binding.bind_ortvalue_output(output, ort.OrtValue.ortvalue_from_numpy(array))

    def put(self, name: str, array: NDArray[np.float32]) -> None:
        """Bind an input, or its new content of the same shape."""
        self._session.guarded(lambda: self._put(name, np.ascontiguousarray(array)))

    def _put(self, name: str, array: NDArray[np.float32]) -> None:
        value = self._values.get(name)
        if value is None or self._device is None:
            value = ort.OrtValue.ortvalue_from_numpy(array, *(self._device or ("cpu", 0)))
            self._values[name] = value
        else:
            value.update_inplace(array)
        # Again for new content too: where the graph wants it elsewhere than it lies, binding copies it there.
        self._binding.bind_ortvalue_input(name, value)

    def run(self) -> NDArray[np.float32]:
        """Run, and return the array the output was bound to."""
        self._session.guarded(lambda: self._session.inner.run_with_iobinding(self._binding))
        return self._array


_lock = threading.Lock()
_sessions: WeakValueDictionary[tuple[object, ...], Session] = WeakValueDictionary()


def _shared(exported: Exported, name: GraphName, provider: Provider, options: OnnxOptions) -> Session:
    file = exported.path(name)
    stat = file.stat()
    threads = options.threads or usable_cores()
    key = (file.resolve(), stat.st_mtime_ns, stat.st_size, provider, options.allow_cpu_fallback, threads)
    with _lock:
        session = _sessions.get(key)
        if session is None:
            _log.debug("opening %s with %s, %s threads", file, provider.name, threads)
            session = _load(exported, name, provider, options, threads)
            _sessions[key] = session
        return session


def _load(exported: Exported, name: GraphName, provider: Provider, options: OnnxOptions, threads: int) -> Session:
    file, record = exported.path(name), exported.record
    half = record.precision is Precision.FLOAT16
    settings = ort.SessionOptions()
    settings.log_severity_level = FATAL  # errors come as exceptions; warnings are about what it then handles itself
    settings.intra_op_num_threads = threads
    # Waiting threads sleep: spinning takes the cores from decoding, aligning and encoding, which run beside.
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    quantise_exactly(settings)
    try:
        graph = record.graphs[name]
        # A graph with onnxruntime's own operators comes to TensorRT in pieces, whose inputs nobody has named.
        whole = graph.lengths and not record.fused
        shapes = (graph.extent(most=False), graph.extent(most=True)) if whole else None
        chain = provider.chain(graph.sha256, half=half, shapes=shapes)
        inner = ort.InferenceSession(file, settings, providers=chain, enable_fallback=0)
    except Exception as error:
        raise _load_error(file, provider, error) from error
    used = inner.get_providers()[0]
    if used != provider.name:
        fall_back(provider, f"it did not take {file.name}", allowed=options.allow_cpu_fallback)
        provider = CPU
    return Session(file, inner, provider)


def _load_error(file: Path, provider: Provider, error: Exception) -> LipsyncError:
    if _is_no_memory(error):
        return _no_memory(file, provider)
    kind, reason = type(error).__name__, first_line(error)
    if kind in _DAMAGED or reason.startswith(_NO_DATA):
        return WeightsError(f"{file} cannot be loaded: {reason}.", "Delete its folder and export again.")
    return BackendError(
        f"onnxruntime {ort.__version__} cannot load {file} for {provider.name}: {reason}.",
        "Update onnxruntime, export again with this version, or set provider=cpu.",
    )


def _run_error(file: Path, provider: Provider, error: Exception) -> BackendError:
    if _is_no_memory(error):
        return _no_memory(file, provider)
    return BackendError(
        f"onnxruntime {ort.__version__} failed at {file.name} on {provider.name}: {first_line(error)}.",
        "Update onnxruntime and the provider's driver, or set provider=cpu.",
    )


def _no_memory(file: Path, provider: Provider) -> NoMemoryError:
    return NoMemoryError(
        f"{file.name} ran out of memory on {provider.name}.", "Close other programs or use another provider."
    )


def _is_no_memory(error: Exception) -> bool:
    text = str(error).lower()
    return isinstance(error, MemoryError) or any(part in text for part in (*_NO_MEMORY, _NO_MEMORY_DIRECTML))


def quantise_exactly(settings: Any) -> None:
    """Have the products of 8-bit numbers exact in a session of these settings.

    On x86 without VNNI they overflow unless onnxruntime is told to take kernels of half the speed
    (onnxruntime_session_options_config_keys.h); told so, it takes them on processors with VNNI too, for nothing.
    """
    settings.add_session_config_entry("session.x64quantprecision", "0" if _has_vnni() else "1")


@cache
def _has_vnni() -> bool:
    """Say whether the processor is known to have instructions that add up 8-bit products in 32 bits."""
    if not _CPU_INFO.is_file():
        return False
    lines = _CPU_INFO.read_text(encoding="utf-8", errors="replace").splitlines()
    flags = next((line for line in lines if line.startswith("flags")), "")
    return not _VNNI.isdisjoint(flags.split())


@cache
def usable_cores() -> int:
    """Return how many threads to compute with: one for each physical core this process may use, but two where it can.

    Elsewhere than on Linux 0, onnxruntime's own count. On Linux that counts cores a container does not have, and then
    complains that it cannot pin threads to them. Threads that share a core gain little where there are many, but two on
    a single one, as virtual machines show it, made the model `mini` half as fast again (26 frames a second against 17).
    """
    if sys.platform != "linux":
        return 0
    cores, threads = set(), os.sched_getaffinity(0)
    for number in threads:
        file = Path(f"/sys/devices/system/cpu/cpu{number}/topology/thread_siblings_list")
        cores.add(file.read_text(encoding="ascii") if file.is_file() else str(number))
    return max(len(cores), min(2, len(threads)))
