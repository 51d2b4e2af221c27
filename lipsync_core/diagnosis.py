"""What `lipsync doctor` finds out about this machine."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import av
import cv2

from lipsync_core import __version__
from lipsync_core.errors import LipsyncError
from lipsync_core.models import known, store
from lipsync_core.models.exported import exports
from lipsync_core.paths import cache_dir
from lipsync_core.registry import State, discover
from lipsync_core.settings import resolve

_ENCODERS = ("libx264", "libvpx-vp9", "aac", "libopus", "flac")
_DECODERS = ("h264", "hevc", "vp9", "av1", "mpeg2video", "prores")
_RUNTIMES = ("torch", "onnxruntime")
_LOW_DISK_BYTES = 2_000_000_000


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: whether it is as it should be, what it is about, and the fact (with the cure where it is not)."""

    good: bool
    topic: str
    text: str


def diagnose() -> Iterator[Finding]:
    """Yield every finding; nothing is downloaded and no backend imported, except to check the default profile."""
    yield Finding(
        True, "version", f"lipsync-core {__version__}, Python {platform.python_version()}, {platform.platform()}"
    )
    yield Finding(True, "cores", f"{os.cpu_count()} logical, OpenCV {cv2.__version__}")
    yield from _codecs()
    yield from _runtimes()
    yield from _weights()
    yield from _models()
    yield from _plugins()
    yield from _disk()


def _codecs() -> Iterator[Finding]:
    wanted: tuple[tuple[str, tuple[str, ...], Literal["r", "w"]], ...]
    wanted = (("encoders", _ENCODERS, "w"), ("decoders", _DECODERS, "r"))
    for topic, names, mode in wanted:
        absent = [name for name in names if not _has_codec(name, mode)]
        text = f"PyAV {av.__version__}: {', '.join(names)}"
        if absent:
            text += f"; without {', '.join(absent)}: install PyAV's own wheel (pip install --force-reinstall av)"
        yield Finding(not absent, topic, text)


def _has_codec(name: str, mode: Literal["r", "w"]) -> bool:
    try:
        av.codec.Codec(name, mode)
    except ValueError:  # PyAV's error for an unknown codec derives from it
        return False
    return True


def _runtimes() -> Iterator[Finding]:
    """Name what could run a neural backend, from metadata alone where it can be: importing torch takes seconds."""
    for module in _RUNTIMES:
        if importlib.util.find_spec(module) is None:
            yield Finding(True, "runtime", f"{module} is not installed; the draft profile does not need it")
        else:
            yield Finding(True, "runtime", f"{module} {_version_of(module)}")
    if importlib.util.find_spec("onnxruntime") is not None:
        yield from _onnxruntime()


def _onnxruntime() -> Iterator[Finding]:
    wheels = _distributions("onnxruntime")
    if len(wheels) > 1:
        names = " ".join(wheels)
        text = f"{' and '.join(wheels)} write over each other's files: run `pip uninstall -y {names}`, then install one"
        yield Finding(False, "runtime", text)
    try:
        from lipsync_core.models import providers_onnx  # noqa: PLC0415 - nothing else here imports onnxruntime
    except Exception as error:  # half of one wheel and half of another fails in any way
        names = " ".join(wheels) or "onnxruntime"
        yield Finding(
            False, "providers", f"onnxruntime cannot be imported: {error}. pip install --force-reinstall {names}"
        )
        return
    yield Finding(True, "providers", f"onnxruntime is built for {', '.join(providers_onnx.available())}")
    for name, reason in providers_onnx.tried():
        text = "starts" if not reason else f"cannot be started: {reason}"
        yield Finding(not reason, "providers", f"{name} {text}")


def _version_of(module: str) -> str:
    return ", ".join(f"({name} {importlib.metadata.version(name)})" for name in _distributions(module))


def _distributions(module: str) -> list[str]:
    return sorted(set(importlib.metadata.packages_distributions().get(module, [])))


def _weights() -> Iterator[Finding]:
    for row in store.status():
        text = f"{row.weight.title}: {row.path if row.path else 'missing. ' + row.cure}"
        yield Finding(row.path is not None or row.weight.optional, "weights", text)


def _models() -> Iterator[Finding]:
    for row in known.status():
        text = f"{row.model.title}: {row.folder or f'not here. lipsync models pull {row.model.name}'}"
        done = [] if row.folder is None else list(exports(row.folder))
        yield Finding(True, "model", f"{text}, exported in {', '.join(done)}" if done else text)


def _plugins() -> Iterator[Finding]:
    registry = discover()
    for problem in registry.problems:
        yield Finding(False, "plugin", f"{problem.origin}: {problem.error}")
    for entry in registry.entries:
        usable = entry.state in (State.READY, State.MISSING)  # an extra nobody asked for is not a fault
        text = f"{entry.spec.kind} {entry.spec.name}: {entry.state}"
        yield Finding(usable, "backend", f"{text}. {entry.detail}" if entry.detail else text)
    try:
        yield Finding(True, "profile", f"{resolve(registry).profile}: every setting is valid")
    except LipsyncError as error:
        yield Finding(False, "profile", str(error))


def _disk() -> Iterator[Finding]:
    for topic, folder in (("cache", cache_dir()), ("temporary", Path(tempfile.gettempdir()))):
        place = next(p for p in (folder, *folder.parents) if p.exists())
        free = shutil.disk_usage(place).free
        writable = os.access(place, os.W_OK)
        text = f"{folder}: {free / 1e9:.1f} GB free" + ("" if writable else ", but it cannot be written to")
        yield Finding(free > _LOW_DISK_BYTES and writable, topic, text)
