"""Reading and writing the tensors of a model: pickles that may hold nothing else, and safetensors.

Imported only where PyTorch is wanted anyway.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from lipsync_core.errors import WeightsError
from lipsync_core.memory import drop_pages

SAFE_SUFFIX: Final = ".safetensors"
_NESTED: Final = ("state_dict", "model_state_dict")  # where LatentSync's and Whisper's checkpoints keep their tensors


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """`tensors` by name, on the CPU; `extra` is what else the file says (`dims`, `global_step`), plain values.

    mapped: the tensors' memory is the file's, mapped.
    """

    tensors: dict[str, Tensor]
    extra: dict[str, Any] = field(default_factory=dict)
    mapped: bool = False


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a model file; see `read_checkpoint`."""
    return read_checkpoint(path).tensors


def convert_tensors(checkpoint: Checkpoint, dtype: torch.dtype, device: torch.device) -> dict[str, Tensor]:
    """Return the tensors in `dtype` on `device`, emptying the checkpoint: its file does not pile up beside them.

    Full-size LatentSync to bfloat16: 3.0 GB at most instead of 8.0.
    """
    converted, tensors = {}, checkpoint.tensors
    for name in list(tensors):
        tensor = tensors.pop(name)
        converted[name] = tensor.to(device, dtype)
        if checkpoint.mapped and converted[name] is not tensor:
            drop_pages(tensor.data_ptr(), tensor.nbytes)
    return converted


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a `.safetensors` file, or a pickle with `weights_only=True`, which runs nothing.

    Tensors of a zipped pickle and of safetensors stay on the disk until they are used.
    Raises: `WeightsError` where the file cannot be read, holds more than plain values, or no tensors.
    """
    try:
        checkpoint = _read_safe(path) if path.suffix == SAFE_SUFFIX else _read_pickle(path)
    except Exception as error:  # a damaged pickle makes the unpickler raise almost anything
        reason = str(error).strip().split("\n")[0].rstrip(".") or type(error).__name__
        raise WeightsError(
            f"{path} cannot be read as a model file: {reason}.", "Restore the original file or pull the model again."
        ) from error
    if not checkpoint.tensors:
        raise WeightsError(f"{path} holds no tensors by name.", "Give the published checkpoint.")
    return checkpoint


def _read_safe(path: Path) -> Checkpoint:
    with safe_open(path, framework="pt") as file:
        extra = {}
        for name, text in (file.metadata() or {}).items():
            with contextlib.suppress(json.JSONDecodeError):  # other writers put plain words there ("format": "pt")
                extra[name] = json.loads(text)
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        return Checkpoint(tensors, extra, mapped=True)


def _read_pickle(path: Path) -> Checkpoint:
    # Only the zip layout can be mapped; older files are one stream.
    mapped = zipfile.is_zipfile(path)
    content = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    if not isinstance(content, Mapping):
        return Checkpoint({})
    nested = next((name for name in _NESTED if isinstance(content.get(name), Mapping)), None)
    table = content if nested is None else content[nested]
    extra = {} if nested is None else {str(name): value for name, value in content.items() if name != nested}
    return Checkpoint({str(name): value for name, value in table.items() if isinstance(value, Tensor)}, extra, mapped)


def write_safetensors(path: Path, tensors: Mapping[str, Tensor], extra: Mapping[str, Any] | None = None) -> None:
    """Write `path` whole or not at all; `extra` holds plain values and goes into the file's metadata as JSON."""
    seen: set[int] = set()
    plain = {}
    for name, tensor in tensors.items():
        # The format refuses two names of one storage.
        shared = tensor.untyped_storage().data_ptr() in seen
        plain[name] = tensor.clone(memory_format=torch.contiguous_format) if shared else tensor.contiguous()
        seen.add(tensor.untyped_storage().data_ptr())
    metadata = {"format": "pt"} | {name: json.dumps(value) for name, value in (extra or {}).items()}
    with _whole(path) as temporary:
        save_file(plain, temporary, metadata)


def write_pickle(path: Path, content: Mapping[str, Any]) -> None:
    """Write a checkpoint in PyTorch's own format, whole or not at all."""
    with _whole(path) as temporary:
        torch.save(dict(content), temporary)


@contextlib.contextmanager
def _whole(path: Path) -> Iterator[Path]:
    # Another process may be writing the same file.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        temporary.replace(path)
    except (OSError, RuntimeError) as error:  # torch's own for a full disk
        raise WeightsError(f"{path} cannot be written: {error}.", "Free space or choose another folder.") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
