"""`whisper-onnx`: OpenAI Whisper's encoder, every layer's state, exported and run by ONNX Runtime."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from lipsync_audio.whisper_stream import WhisperStream
from lipsync_audio.whisper_windows import Boundary
from lipsync_core.models.exported import GraphName, open_exported
from lipsync_core.models.session_onnx import OnnxOptions, Runtime, Session


class WhisperOnnxOptions(OnnxOptions):
    """Options of `whisper-onnx`."""

    boundary: Boundary = Field(
        default="overlap",
        description="How sound longer than 30 s is cut: `overlap` cross-fades overlapping windows and pads with "
        "silence; `reference` is LatentSync's way, exact: windows side by side, the last padded with zeros.",
    )


class WhisperOnnx(WhisperStream):
    """Whisper's encoder as an ONNX graph, loaded at the first window and kept until `close`."""

    def __init__(self, options: WhisperOnnxOptions) -> None:
        """Settle provider and export; raises a `LipsyncError` where one does not fit."""
        self._runtime = Runtime(options)
        self._exported = open_exported(options.model, self._runtime.precisions)
        self._exported.path(GraphName.WHISPER)  # a missing file is to be known before the analysis of the video
        self._graph: Session | None = None
        super().__init__(self._exported.folder.config.whisper, options.boundary)

    def close(self) -> None:
        """Let the graph go."""
        self._graph = None

    def _encode_window(self, columns: NDArray[np.float32]) -> NDArray[np.float32]:
        graph = self._graph or self._runtime.open(self._exported, GraphName.WHISPER)
        self._graph = graph
        return graph.run(mel=np.ascontiguousarray(columns.T)[None])[0]
