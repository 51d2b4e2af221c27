"""The analysis cache: dubbing the same video into a second language skips pass 1.

One `.npz` a video, named by what the result depends on: the file's content, the aligner, its options and its version.
A file that cannot be read is made anew with one warning; a folder that cannot be written to costs only the reuse.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from lipsync_core.analysis import Analysis
from lipsync_core.errors import OutputError
from lipsync_core.media.index import FrameIndex
from lipsync_core.paths import cache_dir
from lipsync_core.scenes import THRESHOLD
from lipsync_core.types import FaceTrack

log = logging.getLogger(__name__)

_FORMAT = 1  # to be raised when the meaning of a stored field changes
_SUFFIX = ".npz"
_ROWS = 4096
_PER_FRAME = ("frame_to_crop", "found", "landmarks")  # of a track; in the file all tracks' together
_PARTIAL = ".partial"
_bypassed: ContextVar[bool] = ContextVar("lipsync_cache_bypassed", default=False)


def analysis_dir() -> Path:
    """Return the folder of the cached analyses."""
    return cache_dir() / "analysis"


def content_hash(path: Path) -> str:
    """Return a hash of a file's content (BLAKE2b, 160 bits)."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=20)).hexdigest()


def analysis_key(video_hash: str, aligner: str, version: str, options: dict[str, object]) -> str:
    """Return the cache key of one video under one aligner."""
    facts = [_FORMAT, THRESHOLD, video_hash, aligner, version, options]
    return hashlib.blake2b(json.dumps(facts, sort_keys=True).encode(), digest_size=20).hexdigest()


def cached(key: str, compute: Callable[[], Analysis]) -> tuple[Analysis, bool]:
    """Return the analysis under `key` and whether it came from the cache; computes and stores it otherwise."""
    if _bypassed.get():
        return compute(), False
    file = analysis_dir() / f"{key}{_SUFFIX}"
    try:
        return _load(file), True
    except (FileNotFoundError, NotADirectoryError):
        pass
    except Exception as error:  # whatever a damaged file makes NumPy and zlib raise: a cache must never stop a job
        log.warning("The cached analysis %s cannot be used and is made anew: %s", file.name, error)
    analysis = compute()
    try:
        _save(file, analysis)
    except OSError as error:
        log.warning("The analysis cannot be cached in %s: %s", file.parent, error.strerror)
    return analysis, False


@contextmanager
def bypassed() -> Iterator[None]:
    """Neither read nor write the cache inside, for measuring the work that it saves."""
    token = _bypassed.set(True)
    try:
        yield
    finally:
        _bypassed.reset(token)


def usage() -> tuple[int, int]:
    """Return the number of cached analyses and their size in bytes."""
    sizes = [file.stat().st_size for file in _files()]
    return len(sizes), sum(sizes)


def clear() -> int:
    """Delete the cached analyses and return how many there were."""
    files = _files()
    try:
        for file in files:
            file.unlink(missing_ok=True)
    except OSError as error:
        cause = f"The cache {str(analysis_dir())!r} cannot be cleared: {error.strerror}."
        raise OutputError(cause, "Make that folder writable.") from error
    for file in analysis_dir().glob(f"*{_PARTIAL}"):  # of processes that were killed
        file.unlink(missing_ok=True)
    return len(files)


def _files() -> list[Path]:
    folder = analysis_dir()
    return sorted(folder.glob(f"*{_SUFFIX}")) if folder.is_dir() else []


def _save(file: Path, analysis: Analysis) -> None:
    tracks = analysis.tracks
    parts: dict[str, list[NDArray[Any]]] = {
        **{name: [array] for name, array in analysis.index.to_arrays().items()},
        "lengths": [np.array([len(track) for track in tracks])],
        "crop_sizes": [np.array([track.crop_size for track in tracks])],
        **{name: [getattr(track, name) for track in tracks] for name in _PER_FRAME},
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f"{file.stem}.{os.getpid()}.{threading.get_ident()}{_PARTIAL}")
    try:
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, arrays in parts.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as stream:
                    _write(stream, arrays)
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)


def _write(stream: IO[bytes], arrays: list[NDArray[Any]]) -> None:
    """Write what `np.save` writes of the arrays joined, without joining them: those of a long video are large."""
    first, length = np.ascontiguousarray(arrays[0]), sum(map(len, arrays))
    header = np.lib.format.header_data_from_array_1_0(first) | {"shape": (length, *first.shape[1:])}
    np.lib.format.write_array_header_1_0(stream, header)
    for array in arrays:
        for start in range(0, len(array), _ROWS):  # what is written at once is held packed at once
            stream.write(np.ascontiguousarray(array[start : start + _ROWS]).data)


def _load(file: Path) -> Analysis:
    # Opened here: np.load leaves a file it cannot read open.
    with file.open("rb") as stream, np.load(stream, allow_pickle=False) as store:
        index = FrameIndex.from_arrays(store)
        whole = {name: store[name] for name in _PER_FRAME}
        lengths, sizes = store["lengths"], store["crop_sizes"]
    if sum(lengths) != len(index) or len(lengths) != len(sizes):
        raise ValueError("its parts do not belong together")
    tracks, start = [], 0
    for length, size in zip(lengths.tolist(), sizes.tolist(), strict=True):
        rows = slice(start, start + length)
        tracks.append(
            FaceTrack(start, whole["frame_to_crop"][rows], whole["found"][rows], whole["landmarks"][rows], size)
        )
        start += length
    return Analysis(index, tuple(tracks))
