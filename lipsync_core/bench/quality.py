"""How good the outputs are that were timed: the same figures as `lipsync eval`, beside speed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lipsync_core.errors import LipsyncError
from lipsync_core.quality import evaluate, pixels
from lipsync_core.registry import Registry

Figures = dict[str, dict[str, float | None]]

# SyncNet's lip-sync error, distance and confidence (Chung and Zisserman, "Out of time", 2016). Its weights are not at
# hand here, so the places are there and nothing is claimed.
LSE: Final = ("lse_d", "lse_c")


def of_jobs(
    outputs: Mapping[str, Path],
    reference: str,
    source: Path,
    truth: Path | None,
    registry: Registry,
) -> tuple[dict[str, Figures], list[str]]:
    """Measure dubbed videos, contender → file; returns contender → against what → figures, and what to say of it.

    reference: the contender that others are compared with. truth: someone really saying it, where there is such.
    """
    figures: dict[str, Figures] = {}
    notes: list[str] = []

    def look(path: Path) -> evaluate.Video | None:
        found, reason = look_at(path, registry)
        notes.extend(f"{path.name} is not measured: {why}" for why in [reason] if why)
        return found

    shown = {name: look(path) for name, path in outputs.items()}
    before, said = look(source), None if truth is None else look(truth)
    wanted = shown.get(reference)
    for name, video in shown.items():
        mine = figures[name] = {}
        if video is None:
            continue
        if wanted is not None and name != reference:
            mine["reference"] = _figures(evaluate.against_reference, video, wanted, notes)
        if before is not None:
            mine["source"] = _figures(evaluate.against_source, video, before, notes)
        if said is not None:
            mine["truth"] = _figures(evaluate.against_truth, video, said, notes) | dict.fromkeys(LSE)
    return figures, notes


def look_at(path: Path, registry: Registry) -> tuple[evaluate.Video | None, str]:
    """Find a video's faces; returns None and why where that cannot be."""
    try:
        return evaluate.look_at(path, registry), ""
    except LipsyncError as error:
        return None, str(error)


def _figures(measure: Any, output: evaluate.Video, other: evaluate.Video, notes: list[str]) -> dict[str, float | None]:
    try:
        return dict(measure(output, other))
    except LipsyncError as error:
        notes.append(f"{output.path.name} is not measured against {other.path.name}: {error}")
        return {}


def of_stage(outputs: Mapping[str, Path], reference: str) -> dict[str, Figures]:
    """Compare the kept outputs of one stage, contender → .npz, with the reference's."""
    arrays = {name: _read(path) for name, path in outputs.items()}
    wanted = arrays.get(reference)
    if wanted is None:
        return {name: {} for name in outputs}
    return {
        name: {} if name == reference else {"reference": dict(apart(mine, wanted))} for name, mine in arrays.items()
    }


def apart(mine: Mapping[str, NDArray[Any]], theirs: Mapping[str, NDArray[Any]]) -> dict[str, float]:
    """Return how far two stages' outputs are apart; nothing of those whose shapes differ.

    Pictures: max, mean (0…255), psnr (dB), ssim, and of the mouth's box. landmarks, px: mean distance, and the same of
    the crop's corner. Other values: max, mean, and rms as a share of the reference's.
    """
    found: dict[str, float] = {}
    for name in sorted(set(mine) & set(theirs) - {"box"}):
        a, b = mine[name], theirs[name]
        if a.shape != b.shape:
            continue
        if name == "pictures":
            found |= _pictures(a, b, theirs["box"])
        elif name in ("landmarks", "frame_to_crop"):
            points = np.linalg.norm((a - b).reshape(-1, 2) if name == "landmarks" else a[:, :, 2] - b[:, :, 2], axis=-1)
            key = "landmarks_px" if name == "landmarks" else "crop_px"
            found[key] = float(np.nanmean(points)) if np.isfinite(points).any() else float("nan")
        else:
            difference, scale = a - b, float(np.sqrt(np.square(b, dtype=np.float64).mean()))
            rms = float(np.sqrt(np.square(difference, dtype=np.float64).mean()))
            found |= {"max": float(np.abs(difference).max()), "mean": float(np.abs(difference).mean())}
            found["relative_rms"] = rms / scale if scale else float("nan")
    return found


def _pictures(mine: NDArray[Any], theirs: NDArray[Any], boxes: NDArray[Any]) -> dict[str, float]:
    whole, mouth = pixels.Difference(), pixels.Difference()
    for a, b, (x, y, width, height) in zip(mine, theirs, boxes.tolist(), strict=True):
        whole.add(a, b)
        cut = np.s_[y : y + height, x : x + width]
        mouth.add(a[cut], b[cut])
    return whole.figures("") | mouth.figures("mouth_")


def _read(path: Path) -> dict[str, NDArray[Any]]:
    with np.load(path, allow_pickle=False) as store:
        return dict(store)
