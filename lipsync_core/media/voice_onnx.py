"""Silero's voice activity model, run by ONNX Runtime on the CPU: how likely each 32 ms of a sound hold speech."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime as ort
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from lipsync_core.errors import WeightsError
from lipsync_core.media.voice import WINDOW
from lipsync_core.types import AudioBlock

# The graph takes `input` [windows, 576] and the recurrent state `h`, `c` [1, 1, 128], and gives the windows'
# probabilities and the state after the last.
_CONTEXT: Final = 64  # samples of the window before that each window begins with; zeros before the first
_STATE: Final = (1, 1, 128)
_LEAD: Final = 16  # windows of silence put in front: straight from its zero state it misses speech in the first .4 s


def speech_probabilities(audio: Iterable[AudioBlock], model: Path) -> Iterator[NDArray[np.float32]]:
    """Yield the probabilities [k] of consecutive windows of 16 kHz sound; the last window is filled up with silence.

    Holds a block of sound at a time. Raises `WeightsError` where `model` cannot be opened or is another graph.
    """
    session = _open(model)
    h = c = np.zeros(_STATE, np.float32)
    _, h, c = session.run(None, {"input": np.zeros((_LEAD, _CONTEXT + WINDOW), np.float32), "h": h, "c": c})
    held = np.zeros(_CONTEXT, np.float32)
    for samples in _whole_windows(audio):
        held = np.concatenate([held, samples])
        windows = sliding_window_view(held, _CONTEXT + WINDOW)[::WINDOW]
        spoken, h, c = session.run(None, {"input": np.ascontiguousarray(windows), "h": h, "c": c})
        held = held[-_CONTEXT:]
        yield spoken


def _whole_windows(audio: Iterable[AudioBlock]) -> Iterator[NDArray[np.float32]]:
    """Yield the samples in multiples of a window, the end filled up with zeros."""
    rest = np.zeros(0, np.float32)
    for block in audio:
        rest = np.concatenate([rest, block.samples])
        whole = len(rest) // WINDOW * WINDOW
        if whole:
            yield rest[:whole]
            rest = rest[whole:]
    if len(rest):
        yield np.pad(rest, (0, WINDOW - len(rest)))


def _open(model: Path) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1  # the graph is too small for more
    try:
        session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    # Its errors share no base class.
    except Exception as error:
        reason = str(error).split("\n")[0].rstrip(".")
        raise WeightsError(
            f"{model} cannot be opened: {reason}.", "Replace it by Silero's file, or delete it."
        ) from error
    inputs = [given.name for given in session.get_inputs()]
    if inputs != ["input", "h", "c"]:
        raise WeightsError(
            f"{model} takes {', '.join(inputs)} where input, h, c are expected.",
            "Use silero_vad_16k_sequence.onnx of silero-vad 6.2.3.",
        )
    return session
