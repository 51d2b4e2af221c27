"""Adaptation of the audio model to one speaker, from the source's own sound and mouth.

The audio features carry eight predicted mouth-shape numbers and the 128 hidden activations they come from. A ridge
regression from the activations to what the prediction missed is centred on the prior by construction: shrunk to
nothing it leaves the prediction as it was.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lipsync_denoiser import mouth_shape
from lipsync_denoiser.head import Floats

log = logging.getLogger(__name__)

_FOLDS: Final = 4
_LEAST_FRAMES: Final = 50  # two seconds; less cannot be cut in four
_LEAST_R: Final = 0.2  # EXEMPLAR.md: used only where cross-validation gives more than this
_LEAST_GAIN: Final = 0.03  # share by which the squared error must fall: below it a 3 s clip cannot tell it from luck
_PENALTIES: Final = (1.0, 3.0, 10.0, 30.0)  # a frame, in variances of one standardised activation


@dataclass(frozen=True, slots=True)
class OwnVoice:
    """Correction to the predicted shapes: `weights` [d, 8] of the activations and `bias` [8]."""

    weights: Floats
    bias: Floats

    def correct(self, predicted: Floats, hidden: Floats | NDArray[np.float32]) -> Floats:
        """Return the corrected shapes [n, 8] of predicted shapes [n, 8] and activations [n, d]."""
        corrected: Floats = predicted + hidden @ self.weights.astype(hidden.dtype) + self.bias
        return corrected


def fit_own_voice(predicted: Floats, hidden: Floats, measured: Floats) -> OwnVoice | None:
    """Fit the correction on the source clip, each of the eight numbers for itself; None where none is worth it.

    predicted, measured: [n, 8] in one unit; hidden: [n, d]; consecutive frames.
    A number is corrected where cross-validation over four consecutive parts gives r above .2 and, with most of the
    parts, a smaller squared error than the prediction alone (shifted and scaled as the training parts say).
    """
    n = len(predicted)
    if n < _LEAST_FRAMES:
        return None
    mean, spread = hidden.mean(axis=0), np.maximum(hidden.std(axis=0), 1e-6)
    inputs = (hidden - mean) / spread
    residual = measured - predicted
    parts = np.array_split(np.arange(n), _FOLDS)

    best_error = np.full(mouth_shape.COUNT, np.inf)
    best_penalty = np.zeros(mouth_shape.COUNT)
    best_held_out = np.zeros_like(predicted)
    for penalty in _PENALTIES:
        held_out = np.empty_like(predicted)
        for part in parts:
            rest = np.setdiff1d(np.arange(n), part)
            weights, bias = _ridge(inputs[rest], residual[rest], penalty)
            held_out[part] = predicted[part] + inputs[part] @ weights + bias
        error = ((held_out - measured) ** 2).mean(axis=0)
        better = error < best_error
        best_error = np.where(better, error, best_error)
        best_penalty = np.where(better, penalty, best_penalty)
        best_held_out[:, better] = held_out[:, better]

    prior = np.empty_like(predicted)
    for part in parts:
        rest = np.setdiff1d(np.arange(n), part)
        prior[part] = predicted[part] + residual[rest].mean(axis=0)
    gains = np.array(
        [1 - _mse(best_held_out[p], measured[p]) / np.maximum(_mse(prior[p], measured[p]), 1e-12) for p in parts]
    )
    overall = 1 - best_error / np.maximum(_mse(prior, measured), 1e-12)
    agreement = np.array([correlation(best_held_out[:, k], measured[:, k]) for k in range(mouth_shape.COUNT)])
    used = (agreement > _LEAST_R) & (overall > _LEAST_GAIN) & ((gains > 0).sum(axis=0) >= _FOLDS - 1)
    log.debug("own voice: r %s, gain %s, used %s", agreement.round(2), overall.round(2), used)
    if not used.any():
        return None
    weights = np.zeros((hidden.shape[1], mouth_shape.COUNT))
    bias = np.zeros(mouth_shape.COUNT)
    for k in np.flatnonzero(used):
        weights[:, k : k + 1], bias[k : k + 1] = _ridge(inputs, residual[:, k : k + 1], float(best_penalty[k]))
    weights /= spread[:, None]
    return OwnVoice(weights, bias - mean @ weights)


def _ridge(inputs: Floats, wanted: Floats, penalty: float) -> tuple[Floats, Floats]:
    """Return weights and an unpenalised bias."""
    centre, bias = inputs.mean(axis=0), wanted.mean(axis=0)
    centred = inputs - centre
    gram = centred.T @ centred + penalty * len(inputs) * np.eye(inputs.shape[1])
    weights = np.linalg.solve(gram, centred.T @ (wanted - bias))
    return weights, bias - centre @ weights


def _mse(first: Floats, second: Floats) -> Floats:
    out: Floats = ((first - second) ** 2).mean(axis=0)
    return out


def correlation(first: Floats, second: Floats) -> float:
    """Return Pearson's r of two series [n]; 0 where one of them does not vary."""
    first, second = first - first.mean(), second - second.mean()
    return float(first @ second) / max(float(np.sqrt((first @ first) * (second @ second))), 1e-12)
