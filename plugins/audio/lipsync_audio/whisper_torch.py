"""`whisper-torch`: OpenAI Whisper's encoder, every layer's state, as LatentSync is conditioned on it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from lipsync_audio.whisper_encoder_torch import build, dims_of, part_of, random_state
from lipsync_audio.whisper_stream import WhisperStream
from lipsync_audio.whisper_windows import Boundary
from lipsync_core.errors import WeightsError
from lipsync_core.models.device_torch import pick_device, pick_dtype
from lipsync_core.models.folder import AudioPart, ModelFolder
from lipsync_core.models.known import open_model
from lipsync_core.models.tensors_torch import Checkpoint, read_checkpoint
from lipsync_core.paths import existing

if TYPE_CHECKING:
    from lipsync_core.models.graph_torch import GraphSource


class WhisperOptions(BaseModel):
    """Options of `whisper-torch`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = Field(
        default="auto",
        description="auto: the best that is here; a known model, the path of a model folder, "
        "or of a Whisper checkpoint such as tiny.pt.",
    )
    boundary: Boundary = Field(
        default="overlap",
        description="How sound longer than 30 s is cut: `overlap` cross-fades overlapping windows and pads with "
        "silence; `reference` is LatentSync's way, exact: windows side by side, the last padded with zeros.",
    )
    device: str = Field(default="auto", description="auto, cpu, cuda, cuda:1 or mps.")
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = Field(
        default="auto", description="Precision of the network: auto is float16 on CUDA and float32 elsewhere."
    )


class WhisperTorch(WhisperStream):
    """Whisper's encoder in PyTorch; its weights are read at once."""

    def __init__(self, options: WhisperOptions) -> None:
        part, checkpoint, source = _load(options.model)
        super().__init__(part, options.boundary)
        self._device = pick_device(options.device)
        self._dtype = pick_dtype(options.dtype, self._device)
        self._net = build(part, checkpoint.tensors, source).to(self._device, self._dtype)

    @classmethod
    def random_whisper(cls, part: AudioPart, seed: int) -> dict[str, Any]:
        """Return a random checkpoint in the published layout, without a decoder; see `lipsync_core.models.tiny`."""
        return {"dims": dims_of(part), "model_state_dict": random_state(part, seed)}

    @classmethod
    def export_graphs(cls, folder: ModelFolder) -> Iterator[GraphSource]:
        """Yield the encoder of a model folder; see `lipsync_core.models.export_torch`."""
        from lipsync_audio.whisper_export_torch import whisper_graph  # noqa: PLC0415 - only exporting needs onnx

        yield whisper_graph(folder)

    @torch.inference_mode()
    def _encode_window(self, columns: NDArray[np.float32]) -> NDArray[np.float32]:
        mel = torch.from_numpy(np.ascontiguousarray(columns.T))[None]
        rows: NDArray[np.float32] = self._net(mel.to(self._device, self._dtype)).float().cpu().numpy()
        return rows


def _load(model: str) -> tuple[AudioPart, Checkpoint, Path]:
    """Return the encoder's part, its checkpoint and the file it came from."""
    path = existing(model)
    if path is not None and path.is_file():
        checkpoint = read_checkpoint(path)
        return part_of(_dims(checkpoint), path.name, path), checkpoint, path
    folder = open_model(model)
    part = folder.config.whisper
    path = folder.path(part.weights)
    checkpoint = read_checkpoint(path)
    dims = _dims(checkpoint)
    if dims:
        there = part_of(dims, part.weights, path)
        for name in ("layers", "width", "heads"):
            if getattr(there, name) != getattr(part, name):
                raise WeightsError(
                    f"{path} has {getattr(there, name)} {name}, model.json says {getattr(part, name)}.",
                    "Correct the one that is wrong.",
                )
    return part, checkpoint, path


def _dims(checkpoint: Checkpoint) -> dict[str, Any]:
    dims = checkpoint.extra.get("dims")
    return dims if isinstance(dims, dict) else {}
