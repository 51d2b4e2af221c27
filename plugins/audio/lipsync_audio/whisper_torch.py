"""`whisper-torch`: OpenAI Whisper's encoder, every layer's state, as LatentSync is conditioned on it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from lipsync_audio.log_mel import BANDS, LOWEST, SAMPLE_RATE, log_mel_rows, scaled
from lipsync_audio.whisper_encoder_torch import build, dims_of, part_of, random_state
from lipsync_audio.whisper_windows import Boundary, framewise, plan, windowed
from lipsync_core.errors import WeightsError
from lipsync_core.models.device_torch import pick_device, pick_dtype
from lipsync_core.models.folder import AudioPart
from lipsync_core.models.known import open_model
from lipsync_core.models.tensors_torch import Checkpoint, read_checkpoint
from lipsync_core.types import AudioBlock, AudioFeatures

# LatentSync fills a short last window with this, in the normalised log-mel domain: louder than silence, but what its
# weights were trained with (FACTS §4).
_REFERENCE_PADDING = 0.0


class WhisperOptions(BaseModel):
    """Options of `whisper-torch`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = Field(
        default="latentsync-1.6",
        description="A known model, the path of a model folder, or of a Whisper checkpoint such as tiny.pt.",
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


class WhisperTorch:
    """Encodes sound as the states of ten Whisper rows for each video frame, float32 [n, 10 · (layers + 1), width]."""

    sample_rate = SAMPLE_RATE

    def __init__(self, options: WhisperOptions) -> None:
        part, checkpoint, source = _load(options.model)
        self.part = part
        self.feature_shape = part.feature_shape
        self.boundary: Boundary = options.boundary
        self._device = pick_device(options.device)
        self._dtype = pick_dtype(options.dtype, self._device)
        self._net = build(part, checkpoint.tensors, source).to(self._device, self._dtype)

    @classmethod
    def random_whisper(cls, part: AudioPart, seed: int) -> dict[str, Any]:
        """Return a random checkpoint in the published layout, without a decoder; see `lipsync_core.models.tiny`."""
        return {"dims": dims_of(part), "model_state_dict": random_state(part, seed)}

    def encode(self, audio: Iterable[AudioBlock], *, times: NDArray[np.float64]) -> Iterator[AudioFeatures]:
        """Yield the features of the frames at `times` (s, not decreasing); frames outside the sound see its end rows.

        Reads `audio` twice, first for the loudest log-mel cell of the whole clip, and holds one window of 30 s. Raises
        TypeError if `audio` is an iterator, which can be read only once.
        """
        if isinstance(audio, Iterator):
            raise TypeError("audio is read twice: it must be iterable again, not an iterator")
        if len(times) == 0:
            return
        yield from framewise(self.rows(audio), times, self.part.rows_before, self.part.rows_after)

    def rows(self, audio: Iterable[AudioBlock]) -> Iterator[NDArray[np.float32]]:
        """Yield the feature rows of the whole sound, float32 [n, layers + 1, width], 50 a second."""
        peak, columns = LOWEST, 0
        for batch in log_mel_rows(audio):
            peak = max(peak, float(batch.max()))
            columns += len(batch)
        if self.boundary == "reference":
            padding = _REFERENCE_PADDING
        else:
            padding = float(scaled(np.full(1, LOWEST, np.float32), peak)[0])
        mel: Iterable[NDArray[np.float32]] = (scaled(batch, peak) for batch in log_mel_rows(audio))
        if columns == 0:
            mel = [np.empty((0, BANDS), np.float32)]
        yield from windowed(mel, plan(columns, self.boundary), padding, self._encode_window)

    @torch.inference_mode()
    def _encode_window(self, columns: NDArray[np.float32]) -> NDArray[np.float32]:
        mel = torch.from_numpy(np.ascontiguousarray(columns.T))[None]
        rows: NDArray[np.float32] = self._net(mel.to(self._device, self._dtype)).float().cpu().numpy()
        return rows


def _load(model: str) -> tuple[AudioPart, Checkpoint, Path]:
    """Return the encoder's part, its checkpoint and the file it came from."""
    path = Path(model).expanduser()
    if path.is_file():
        checkpoint = read_checkpoint(path)
        return part_of(_dims(checkpoint), path.name, path), checkpoint, path
    folder = open_model(model)
    part = folder.config.audio
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
