"""The small convolutional net from log-mel rows to mouth shape, in NumPy: a handful of matrix products.

Six convolutions without padding, each followed by a normalisation over its channels at one time step, and GELU; then
a linear head. As nothing pads and nothing averages over time, a window of the input gives the rows of the whole.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lipsync_audio.log_mel import BANDS
from lipsync_core.errors import WeightsError

CHANNELS = 128
OUTPUTS = 8
NORM_EPS = 1e-5


class Conv(NamedTuple):
    """One convolution over time."""

    kernel: int
    stride: int
    dilation: int


# Two strides of two take 100 rows a second to 25; the dilations open the window to 0.63 s on either side.
LAYERS = (Conv(3, 1, 1), Conv(5, 2, 1), Conv(5, 2, 1), Conv(5, 1, 1), Conv(5, 1, 2), Conv(5, 1, 4))


def _reach() -> tuple[int, int]:
    """Return (input rows per output row, input rows seen before or after the one an output row is centred on)."""
    step, reach = 1, 0
    for layer in LAYERS:
        reach += step * layer.dilation * (layer.kernel // 2)
        step *= layer.stride
    return step, reach


STEP, CONTEXT = _reach()


def gelu(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return GELU in its tanh form (Hendrycks and Gimpel, 2016), which is also what the training uses."""
    result = x * x * x
    result *= 0.044715
    result += x
    result *= math.sqrt(2.0 / math.pi)
    np.tanh(result, out=result)
    result += 1.0
    result *= x
    result *= 0.5
    return result


def _convolve(x: NDArray[np.float32], taps: NDArray[np.float32], layer: Conv) -> NDArray[np.float32]:
    """Return x [t, in] convolved over time with `taps` [kernel, in, out], without padding."""
    length = (len(x) - (layer.kernel - 1) * layer.dilation - 1) // layer.stride + 1
    stop = (length - 1) * layer.stride + 1
    result: NDArray[np.float32] = x[: stop : layer.stride] @ taps[0]
    for i in range(1, layer.kernel):
        first = i * layer.dilation
        result += x[first : first + stop : layer.stride] @ taps[i]
    return result


def _normalise(x: NDArray[np.float32], weight: NDArray[np.float32], bias: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return x [t, channels] with mean 0 and variance 1 over the channels of each row, then scaled and shifted."""
    centred = x - x.mean(axis=1, keepdims=True)
    spread = np.sqrt(np.mean(centred * centred, axis=1, keepdims=True) + NORM_EPS)
    result: NDArray[np.float32] = centred / spread * weight + bias
    return result


def expected_shapes() -> dict[str, tuple[int, ...]]:
    """Return name and shape of every array of a weight file; `metadata`, a JSON text, comes on top."""
    shapes: dict[str, tuple[int, ...]] = {}
    width = BANDS
    for i, layer in enumerate(LAYERS):
        shapes[f"conv{i}.weight"] = (CHANNELS, width, layer.kernel)
        shapes |= dict.fromkeys((f"conv{i}.bias", f"norm{i}.weight", f"norm{i}.bias"), (CHANNELS,))
        width = CHANNELS
    shapes |= {"head.weight": (OUTPUTS, CHANNELS), "head.bias": (OUTPUTS,), "spread": (OUTPUTS,)}
    return shapes | {"typical_mean": (BANDS,), "typical_std": (BANDS,)}


@dataclass(frozen=True, slots=True)
class ConvNet:
    """The net and what was measured on its training set.

    taps: per layer float32 [kernel, in, 128]. vectors: per layer (bias, norm weight, norm bias), float32 [128] each.
    head_weight float32 [8, 128], head_bias float32 [8]: shape = hidden @ head_weight.T + head_bias.
    spread: float32 [8], what 1 means in each output, in widths of the aligned crop.
    typical_mean, typical_std: float32 [80], of a training clip's scaled log-mel, the mean above the clip's floor.
    metadata: speakers, clips, licences, seed and results of the training.
    """

    taps: tuple[NDArray[np.float32], ...]
    vectors: tuple[tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]], ...]
    head_weight: NDArray[np.float32]
    head_bias: NDArray[np.float32]
    spread: NDArray[np.float32]
    typical_mean: NDArray[np.float32]
    typical_std: NDArray[np.float32]
    metadata: dict[str, Any]

    def hidden(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the last hidden layer float32 [n, 128] of normalised log-mel rows float32 [2 CONTEXT + 1 + r, 80].

        Row j of the n = r // STEP + 1 is centred on input row CONTEXT + j × STEP.
        """
        x = rows
        for layer, taps, (bias, weight, shift) in zip(LAYERS, self.taps, self.vectors, strict=True):
            x = gelu(_normalise(_convolve(x, taps, layer) + bias, weight, shift))
        return x

    def shape(self, hidden: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the eight numbers float32 [n, 8] of hidden rows [n, 128]."""
        result: NDArray[np.float32] = hidden @ self.head_weight.T + self.head_bias
        return result


def load_net(file: Traversable) -> ConvNet:
    """Read a weight file made by the training script (a `pathlib.Path` or a package resource).

    Raises WeightsError if it cannot be read or is not such a file.
    """
    cure = "Give a file made by train_mouth_shape.py, or leave the option out to use the packaged weights."
    try:
        if isinstance(file, Path) and not file.is_file():
            raise FileNotFoundError("there is no such file")
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            arrays = {name: np.asarray(archive[name]) for name in archive.files}
        metadata = json.loads(str(arrays.pop("metadata", "{}")))
    except Exception as error:  # np.load raises OSError, ValueError, EOFError, BadZipFile and more
        reason = str(error) or type(error).__name__
        raise WeightsError(f"The mouth-shape weights {str(file)!r} cannot be read: {reason}.", cure) from error
    for name, shape in expected_shapes().items():
        found = arrays.get(name)
        if found is None or found.shape != shape or found.dtype.kind != "f":
            what = "absent" if found is None else f"{found.dtype} {list(found.shape)}"
            cause = f"The mouth-shape weights {str(file)!r} do not fit: {name} is {what}, not a float {list(shape)}."
            raise WeightsError(cause, cure)
        if not np.isfinite(found).all():
            raise WeightsError(
                f"The mouth-shape weights {str(file)!r} hold values in {name} that are not finite.", cure
            )
    single = {name: np.ascontiguousarray(array, dtype=np.float32) for name, array in arrays.items()}
    layers = range(len(LAYERS))
    return ConvNet(
        taps=tuple(np.ascontiguousarray(single[f"conv{i}.weight"].transpose(2, 1, 0)) for i in layers),
        vectors=tuple((single[f"conv{i}.bias"], single[f"norm{i}.weight"], single[f"norm{i}.bias"]) for i in layers),
        head_weight=single["head.weight"],
        head_bias=single["head.bias"],
        spread=single["spread"],
        typical_mean=single["typical_mean"],
        typical_std=single["typical_std"],
        metadata=metadata,
    )
