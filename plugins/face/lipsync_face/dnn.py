"""OpenCV's DNN module with MediaPipe's TFLite files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from lipsync_core.errors import WeightsError

CURE = "Give another face_landmarker.task with the aligner's option `weights`, or leave the option out."


class TfliteNet:
    """A network with named outputs."""

    def __init__(self, path: Path, outputs: Sequence[str]) -> None:
        """Open a .tflite file; raises `WeightsError` where OpenCV cannot read it or it lacks one of the outputs.

        OpenCV 5's default engine returns only the first output of these models, and its classic one reads them from
        a path only; the classic engine is the only one in 4.x.
        """
        self._outputs = list(outputs)
        try:
            if hasattr(cv2.dnn, "ENGINE_CLASSIC"):
                self._net = cv2.dnn.readNetFromTFLite(str(path), engine=cv2.dnn.ENGINE_CLASSIC)
            else:
                self._net = cv2.dnn.readNetFromTFLite(str(path))
        except cv2.error as error:
            raise WeightsError(f"OpenCV {cv2.__version__} cannot read the model {path}: {error.err}.", CURE) from error
        missing = set(outputs) - set(self._net.getUnconnectedOutLayersNames())
        if missing:
            raise WeightsError(f"The model {path} has no output {sorted(missing)}.", CURE)

    def run(self, blob: NDArray[Any]) -> list[NDArray[np.float32]]:
        """Return the outputs, in the order asked for, of one input float32 [1, 3, side, side]."""
        self._net.setInput(blob)
        return [np.asarray(output, np.float32) for output in self._net.forward(self._outputs)]


def sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return 1 / (1 + exp(-x)); logits beyond ±100 are clipped, as MediaPipe's graphs do."""
    scores: NDArray[np.float64] = 1 / (1 + np.exp(-np.clip(logits.astype(np.float64), -100, 100)))
    return scores
