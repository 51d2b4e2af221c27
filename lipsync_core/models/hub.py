"""Downloads from the Hugging Face hub, with its progress bar; an interrupted one goes on where it stopped.

`huggingface_hub.hf_hub_download` throws the beginning of an interrupted file away (since its version 2), which for
the 5 GB of a U-Net is too much: so its parts are put together here around a partial file that is kept.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
from pathlib import Path
from typing import Final

from huggingface_hub import get_hf_file_metadata, hf_hub_url
from huggingface_hub.file_download import HfFileMetadata, http_get
from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined] # exported lazily

from lipsync_core import __version__
from lipsync_core.errors import WeightsError
from lipsync_core.models.manifest import HubFile
from lipsync_core.models.store import sha256

SIZE_LIMIT_BYTES: Final = 32 << 30
"""No file of unknown size may be larger; the largest known has 5 GB."""

_logger = logging.getLogger(__name__)


def fetch(file: HubFile, target: Path, cure: str) -> None:
    """Download one file to `target` and verify it; what does not match is deleted.

    A partial file beside it, named after the hub's entity tag so that two revisions never mix, survives an
    interruption. Raises: `WeightsError`, whose cure is `cure`.
    """
    url = hf_hub_url(file.repository, file.path, revision=file.revision)
    try:
        facts = get_hf_file_metadata(url)
        size = _checked_size(file, facts, cure)
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = _partial(target, facts.etag or "")
        _receive(url, partial, size, file, cure)
    except WeightsError:
        raise
    # A hub error, an error of whichever HTTP library it uses, a disk error: they share no base class.
    except Exception as error:
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise WeightsError(f"{file.file} cannot be downloaded from {url}: {reason.rstrip('.')}.", cure) from error
    if file.sha256 is None:
        _logger.warning("%s has no known SHA-256: only its size was checked", file.file)
    elif sha256(partial) != file.sha256:
        partial.unlink()
        raise WeightsError(f"What came from {url} is not {file.file}: another SHA-256.", cure)
    partial.replace(target)
    for stale in target.parent.glob(f".{target.name}.*.partial"):
        stale.unlink()


def _checked_size(file: HubFile, facts: HfFileMetadata, cure: str) -> int:
    if facts.size is None:
        raise WeightsError(f"The hub does not say how large {file.path} of {file.repository} is.", cure)
    if file.size is not None and facts.size != file.size:
        raise WeightsError(
            f"{file.path} of {file.repository} has {facts.size} bytes where {file.size} are expected.", cure
        )
    if facts.size > SIZE_LIMIT_BYTES:
        raise WeightsError(f"{file.path} of {file.repository} is larger than {SIZE_LIMIT_BYTES >> 30} GB.", cure)
    return facts.size


def _partial(target: Path, etag: str) -> Path:
    return target.with_name(f".{target.name}.{hashlib.sha256(etag.encode()).hexdigest()[:16]}.partial")


def _receive(url: str, partial: Path, size: int, file: HubFile, cure: str) -> None:
    """Bring `partial` to its full size, beginning with what it holds already."""
    if partial.is_file() and partial.stat().st_size > size:
        partial.unlink()
    with partial.open("ab") as out:
        held = out.tell()
        free = shutil.disk_usage(partial.parent).free
        if free < size - held:
            raise WeightsError(
                f"{file.file} needs {(size - held) / 1e9:.1f} GB, {partial.parent} has {free / 1e9:.1f} GB left.", cure
            )
        headers = build_hf_headers(library_name="lipsync-core", library_version=__version__)
        http_get(
            url, out, resume_size=held, headers=headers, expected_size=size, displayed_filename=Path(file.file).name
        )
