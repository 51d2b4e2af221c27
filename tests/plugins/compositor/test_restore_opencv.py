"""What only `restore-opencv` has; the rest is in `test_restore`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import ValidationError

from lipsync_compositor import paste, restore_opencv
from lipsync_compositor.restore_opencv import RestoreOpencv, RestoreOptions

from .restoring import OPENCV_5, SIDE, affines, make_work
from .test_mouth_area import SIDE as FACE_SIDE
from .test_mouth_area import face


def test_latentsyncs_soft_mask(shared_reference: Path) -> None:
    golden = np.load(shared_reference / "align.npz")
    matrix = golden["r256.affine_matrix"].astype(np.float64)
    width, height = paste.crop_rectangle(256)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    area = cv2.warpAffine(np.ones((height, width), np.float32), matrix, (640, 360), flags=flags)
    eroded, soft = restore_opencv.soft_mask(np.asarray(area, np.float32))
    # align_info.json, r256.paste; OpenCV before 5 places samples to 1/32 px
    assert float(area.sum()) == pytest.approx(27836.73, abs=20)
    assert float(eroded.sum()) == pytest.approx(27473.59, abs=20)
    assert float(soft.sum()) == pytest.approx(22306.52, abs=20)
    error = np.abs(soft[::2, ::2] - golden["r256.soft_mask_f16_every2"].astype(np.float32))
    assert error.max() < 2e-3


@pytest.mark.skipif(not OPENCV_5, reason="OpenCV 4 places samples to 1/32 px")
@settings(max_examples=40, deadline=None)
@given(affines, st.integers(0, 1000), st.sampled_from(["crop", "mask", "mouth"]), st.floats(0, 0.3))
def test_it_gives_what_restore_torch_gives(matrix: NDArray[np.float64], seed: int, region: str, feather: float) -> None:
    pytest.importorskip("torch")
    from lipsync_compositor.restore_torch import RestoreOptions as TorchOptions
    from lipsync_compositor.restore_torch import RestoreTorch

    rng = np.random.default_rng(seed)
    smooth = cv2.GaussianBlur(rng.random((SIDE, SIDE, 3), np.float32), (0, 0), 1.0)[None]
    points = face() * np.float32(SIDE / FACE_SIDE) if region == "mouth" else None
    generated = np.asarray(smooth * 1.6 - 0.3, np.float32)  # some beyond 0…1
    work = make_work(matrix, seed=seed, generated=generated, points=points)
    chosen = {"region": region, "feather_eye_distances": feather}
    ours = RestoreOpencv(RestoreOptions.model_validate(chosen)).composite(*work).pixels.astype(int)
    expected = RestoreTorch(TorchOptions.model_validate(chosen | {"device": "cpu"})).composite(*work).pixels
    error = np.abs(ours - expected)
    assert error.max() <= 1
    assert error.mean() <= 0.01


def test_it_has_no_device() -> None:
    with pytest.raises(ValidationError):
        RestoreOptions.model_validate({"device": "cpu"})


def test_it_needs_no_torch() -> None:
    code = "import sys, lipsync_compositor.restore_opencv; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
