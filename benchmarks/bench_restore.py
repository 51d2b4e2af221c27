"""Time of the crop and of both paste-back backends: `python -m benchmarks.bench_restore`.

Milliseconds of CPU time a 720p frame on one thread, beside the reference's own (2-core EPYC, float32: crop 9 and 18 ms,
restore 170 and 160 ms at 256 and 512 px); how far region `crop` is from the reference's frame where the golden vectors
are there, and how far the two backends are from each other. Backends take turns within a repeat; medians are printed.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from lipsync_compositor import restore_opencv, restore_torch
from lipsync_compositor.paste import crop_rectangle, rescaled
from lipsync_core import landmarks as lm
from lipsync_core.stages import Compositor
from lipsync_core.types import AlignedFaces, FaceTrack, FrameBatch, GeneratedFaces, MouthMask
from lipsync_face.fixed_mask import generate_area
from lipsync_face.geometry import LatentSyncGeometry

REFERENCE_MS = {"crop": {256: 9.0, 512: 18.0}, "restore": {256: 170.0, 512: 160.0}}
FRAME = (720, 1280)
FRAMES = 16
SIDES = (256, 512)
WIDTHS = (200, 360, 600)  # px of the frame that the crop is wide: a speaker sitting, head and shoulders, a face alone
REFERENCE = Path(__file__).resolve().parent.parent.parent / "shared" / "reference"
Work = tuple[FrameBatch, AlignedFaces, MouthMask, GeneratedFaces]


def make_work(side: int, crop_px: int, n: int = FRAMES) -> Work:
    """Return n noisy 720p frames with a slightly turned crop `crop_px` wide in each."""
    rng = np.random.default_rng(0)
    height, width = FRAME
    rectangle = crop_rectangle(side)
    turn = np.array([[np.cos(0.1), np.sin(0.1)], [-np.sin(0.1), np.cos(0.1)]]) * rectangle[0] / crop_px
    centres = np.array([width / 2, height / 2]) + rng.normal(0, 2, (n, 2))
    matrices = np.empty((n, 2, 3))
    matrices[:, :, :2] = turn
    matrices[:, :, 2] = np.array(rectangle) / 2 - centres @ turn.T
    matrices = rescaled(matrices, rectangle, (side, side))
    track = FaceTrack(0, matrices, np.ones(n, np.bool_), np.full((n, lm.COUNT, 2), np.nan, np.float32), side)
    return (
        FrameBatch(0, rng.integers(0, 256, (n, height, width, 3), np.uint8)),
        AlignedFaces(track, rng.integers(0, 256, (n, side, side, 3), np.uint8)),
        MouthMask(np.repeat(generate_area(side)[None], n, axis=0)),
        GeneratedFaces(rng.random((n, side, side, 3), np.float32)),
    )


def backends(region: str) -> dict[str, Compositor]:
    """Return both compositors by name."""
    return {
        "opencv": restore_opencv.RestoreOpencv(restore_opencv.RestoreOptions.model_validate({"region": region})),
        "torch": restore_torch.RestoreTorch(
            restore_torch.RestoreOptions.model_validate({"region": region, "device": "cpu"})
        ),
    }


def cut(work: Work) -> None:
    """Crop as an aligner of geometry `latentsync` does."""
    track = work[1].track
    geometry = LatentSyncGeometry(track.crop_size)
    for frame, matrix in zip(work[0].pixels, track.frame_to_crop, strict=True):
        geometry.cut(frame, matrix, track.crop_size)


def milliseconds(calls: dict[str, Callable[[], Any]], frames: int, repeats: int) -> dict[str, float]:
    """Return the median CPU time a frame of each call, ms; the calls take turns."""
    spent: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(repeats + 1):  # the first is not counted
        for name, call in calls.items():
            began = time.process_time()
            call()
            if turn:
                spent[name].append((time.process_time() - began) * 1000 / frames)
    return {name: statistics.median(times) for name, times in spent.items()}


def read(name: str) -> NDArray[np.uint8]:
    """Return a picture of the golden vectors, RGB."""
    return np.asarray(cv2.imread(str(REFERENCE / name)), np.uint8)[..., ::-1].copy()


def golden_work() -> tuple[Work, NDArray[np.uint8]]:
    """Return the reference's frame at 256 px as work, and what the reference made of it."""
    golden: Any = np.load(REFERENCE / "align.npz")
    matrix = rescaled(golden["r256.affine_matrix"].astype(np.float64)[None], crop_rectangle(256), (256, 256))
    landmarks = np.full((1, lm.COUNT, 2), np.nan, np.float32)
    face = golden["r256.synth_face_x100_int8"].astype(np.float32).transpose(1, 2, 0)[None] / 100
    work = (
        FrameBatch(0, read("align_image.png")[None]),
        AlignedFaces(FaceTrack(0, matrix, np.ones(1, np.bool_), landmarks, 256), np.zeros((1, 256, 256, 3), np.uint8)),
        MouthMask(np.ones((1, 256, 256), np.float32)),
        GeneratedFaces(np.ascontiguousarray(face / 2 + 0.5, np.float32)),
    )
    return work, read("align_restored_r256.png")


def apart(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> str:
    """Return how far two pictures are from each other, in words."""
    error = np.abs(a.astype(int) - b)
    return f"mean {error.mean():.4f} grey levels, at most {error.max()}"


def main() -> None:
    """Print the differences, and one line for each resolution, face size and piece of work."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    out = sys.stdout.write
    if REFERENCE.is_dir():
        work, wanted = golden_work()
        for name, backend in backends("crop").items():
            out(f"restore-{name}, region crop, from the reference's frame: ")
            out(f"{apart(backend.composite(*work).pixels[0], wanted)}\n")
    else:
        out("no golden vectors at hand\n")
    work = make_work(256, 360)
    for region in ("mask", "crop"):
        both = [backend.composite(*work).pixels for backend in backends(region).values()]
        out(f"the two backends from each other on noise, region {region}: {apart(*both)}\n")
    for side in SIDES:
        for crop_px in WIDTHS:
            work = make_work(side, crop_px)
            calls: dict[str, Callable[[], Any]] = {"crop": lambda work=work: cut(work)}
            for region in ("mask", "crop"):
                for name, backend in backends(region).items():
                    calls[f"restore-{name}, region {region}"] = lambda b=backend, work=work: b.composite(*work)
            for name, spent in milliseconds(calls, FRAMES, repeats).items():
                theirs = REFERENCE_MS["crop" if name == "crop" else "restore"][side]
                out(f"{side} px, {crop_px} px wide in the frame, {name}: {spent:5.2f} ms, {theirs / spent:4.1f} x\n")


if __name__ == "__main__":
    main()
