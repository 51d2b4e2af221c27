"""Time and difference of the compositor `restore-torch`: `python -m benchmarks.bench_restore_torch`.

CPU seconds a 720p frame on one thread, beside the reference's own (2-core EPYC, one whole-frame pass: 0.175 at 256 px,
0.160 at 512 px), and how far region crop is from the reference's result where the golden vectors are there.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from lipsync_compositor.paste import crop_rectangle
from lipsync_compositor.restore_torch import RestoreOptions, RestoreTorch
from lipsync_core import landmarks as lm
from lipsync_core.types import AlignedFaces, FaceTrack, FrameBatch, GeneratedFaces, MouthMask
from lipsync_face.fixed_mask import generate_area

REFERENCE_CPU_S = {256: 0.175, 512: 0.160}
FRAME = (720, 1280)
FRAMES = 16
REFERENCE = Path(__file__).resolve().parent.parent.parent / "shared" / "reference"
Work = tuple[FrameBatch, AlignedFaces, MouthMask, GeneratedFaces]


def to_square(matrix: NDArray[np.float64], side: int) -> NDArray[np.float64]:
    """Return the map to the stretched square from that to the 3 : 4 crop, both [2, 3]."""
    ratio = side / np.array(crop_rectangle(side))
    mapped = matrix * ratio[:, None]
    mapped[:, 2] += (ratio - 1) / 2
    return mapped


def make_work(side: int, crop_px: int, n: int = FRAMES) -> Work:
    """Return n noisy 720p frames with a slightly turned crop `crop_px` wide in each."""
    rng = np.random.default_rng(0)
    height, width = FRAME
    crop_width, crop_height = crop_rectangle(side)
    scale = crop_width / crop_px
    turn = np.array([[np.cos(0.1), np.sin(0.1)], [-np.sin(0.1), np.cos(0.1)]]) * scale
    matrices = np.empty((n, 2, 3))
    for row in range(n):
        centre = np.array([width / 2, height / 2]) + rng.normal(0, 2, 2)
        shift = (crop_width / 2, crop_height / 2) - turn @ centre
        matrices[row] = to_square(np.column_stack([turn, shift]), side)
    track = FaceTrack(0, matrices, np.ones(n, np.bool_), np.full((n, lm.COUNT, 2), np.nan, np.float32), side)
    pixels = rng.integers(0, 256, (n, side, side, 3), np.uint8)
    generate = np.repeat(generate_area(side)[None], n, axis=0)
    return (
        FrameBatch(0, rng.integers(0, 256, (n, height, width, 3), np.uint8)),
        AlignedFaces(track, pixels),
        MouthMask(generate),
        GeneratedFaces(rng.random((n, side, side, 3), np.float32)),
    )


def seconds_per_frame(restore: RestoreTorch, work: Work, repeats: int) -> float:
    """Return the median CPU time of this process a frame, s."""
    restore.composite(*work)
    times = []
    for _ in range(repeats):
        began = time.process_time()
        restore.composite(*work)
        times.append((time.process_time() - began) / len(work[0].pixels))
    return statistics.median(times)


def read(name: str) -> NDArray[np.uint8]:
    """Return a picture of the golden vectors, RGB."""
    return np.asarray(cv2.imread(str(REFERENCE / name)), np.uint8)[..., ::-1].copy()


def difference() -> str:
    """Return how far region crop is from the reference's picture of its golden frame, at 256 px."""
    if not REFERENCE.is_dir():
        return "golden vectors not found"
    golden: Any = np.load(REFERENCE / "align.npz")
    frame, wanted = read("align_image.png"), read("align_restored_r256.png")
    matrix = to_square(golden["r256.affine_matrix"].astype(np.float64), 256)
    landmarks = np.full((1, lm.COUNT, 2), np.nan, np.float32)
    track = FaceTrack(0, matrix[None], np.ones(1, np.bool_), landmarks, 256)
    face = golden["r256.synth_face_x100_int8"].astype(np.float32).transpose(1, 2, 0)[None] / 100
    work = (
        FrameBatch(0, frame[None]),
        AlignedFaces(track, np.zeros((1, 256, 256, 3), np.uint8)),
        MouthMask(np.ones((1, 256, 256), np.float32)),
        GeneratedFaces(np.ascontiguousarray(face / 2 + 0.5, np.float32)),
    )
    ours = RestoreTorch(RestoreOptions(region="crop", device="cpu")).composite(*work).pixels[0]
    error = np.abs(ours.astype(int) - wanted)
    return f"mean {error.mean():.4f} levels, maximum {error.max()}"


def main() -> None:
    """Print one line for each resolution, face size and region."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    lines = [f"output difference from the reference, 256 px, region crop: {difference()}"]
    for side in (256, 512):
        for crop_px in (200, 360):
            work = make_work(side, crop_px)
            for region in ("crop", "mask"):
                restore = RestoreTorch(RestoreOptions.model_validate({"region": region, "device": "cpu"}))
                spent = seconds_per_frame(restore, work, repeats)
                ratio = REFERENCE_CPU_S[side] / spent
                lines.append(
                    f"{side} px, crop {crop_px} px wide in the frame, {region}: "
                    f"{spent * 1000:5.1f} CPU ms a frame, {ratio:4.1f} x the reference"
                )
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
