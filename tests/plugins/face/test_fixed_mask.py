from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from lipsync_core.types import AlignedFaces, FaceTrack
from lipsync_face.fixed_mask import FixedMasker, FixedMaskOptions


def faces(n: int, side: int) -> AlignedFaces:
    track = FaceTrack(0, np.zeros((n, 2, 3)), np.ones(n, np.bool_), np.zeros((n, 68, 2), np.float32), side)
    return AlignedFaces(track, np.zeros((n, side, side, 3), np.uint8))


def generate(n: int, side: int) -> np.ndarray:
    return FixedMasker(FixedMaskOptions()).mask(faces(n, side)).generate


def test_every_pixel_is_the_references(shared_reference: Path) -> None:
    profile = json.loads((shared_reference / "mask_profile.json").read_text())
    wanted = np.zeros((256, 256), np.float32)
    segments = profile["row_segments"]
    ends = [segment["from_row"] for segment in segments[1:]] + [256]
    for segment, end in zip(segments, ends, strict=True):
        for first, last in segment["black_runs_inclusive_x"]:
            wanted[segment["from_row"] : end, first : last + 1] = 1
    assert wanted.sum() == profile["black_pixels"]
    assert (generate(1, 256)[0] == wanted).all()


@pytest.mark.parametrize("side", [64, 128, 384, 512])
def test_other_sizes_are_resized_as_the_reference_does(shared_reference: Path, side: int) -> None:
    info = json.loads((shared_reference / "align_info.json").read_text())[f"mask_resized.{side}"]
    keep = 1 - generate(1, side)[0].astype(np.float64)
    assert keep.sum() == pytest.approx(info["sum"], rel=1e-6)
    assert np.count_nonzero((keep > 0) & (keep < 1)) == info["nonbinary_pixels"]
    latents = np.load(shared_reference / "align.npz")[f"mask_latents.{side}"]
    np.testing.assert_allclose(keep[::8, ::8], latents, atol=1e-6)


def test_every_crop_has_its_own_copy() -> None:
    masks = generate(3, 64)
    assert masks.shape == (3, 64, 64)
    masks[0] = 5
    assert masks[1].max() <= 1
    assert generate(1, 64).max() <= 1
    assert generate(0, 64).shape == (0, 64, 64)
