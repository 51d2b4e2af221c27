"""What only `restore-torch` has; the rest is in `test_restore`."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from lipsync_compositor import paste
from lipsync_core.errors import SettingsError

from .restoring import make_matrix, make_work, synthetic_face

torch = pytest.importorskip("torch")

from lipsync_compositor import paste_torch, restore_torch  # noqa: E402
from lipsync_compositor.restore_torch import RestoreOptions, RestoreTorch  # noqa: E402


def test_latentsyncs_soft_mask(shared_reference: Path) -> None:
    golden = np.load(shared_reference / "align.npz")
    matrix = golden["r256.affine_matrix"].astype(np.float64)[None]
    boxes = paste.Boxes(np.zeros((1, 2), np.int64), 640, 360)
    area = paste_torch.area_of(paste.crop_rectangle(256), matrix, boxes, torch.device("cpu"))
    eroded, soft = paste_torch.soft_mask(area)
    assert float(area.sum()) == pytest.approx(27836.73, abs=0.5)  # align_info.json, r256.paste
    assert float(eroded.sum()) == pytest.approx(27473.59, abs=0.5)
    assert float(soft.sum()) == pytest.approx(22306.52, abs=0.5)
    error = np.abs(soft[0, ::2, ::2].numpy() - golden["r256.soft_mask_f16_every2"].astype(np.float32))
    assert error.max() < 2e-3


def test_latentsyncs_resized_face(shared_reference: Path) -> None:
    face = torch.from_numpy(synthetic_face(shared_reference)[None])
    resized = restore_torch._resized(face, *paste.crop_rectangle(256))[0, :, ::8, ::8]
    golden = np.load(shared_reference / "align.npz")["r256.synth_face_resized_every8"]
    np.testing.assert_allclose(resized.numpy(), golden, atol=1e-5)


def test_the_area_is_what_sampling_ones_gives() -> None:
    matrix, boxes = make_matrix(0.4, 0.7, 0.9, 40, 30), paste.Boxes(np.zeros((1, 2), np.int64), 90, 80)
    area = paste_torch.area_of((52, 70), matrix, boxes, torch.device("cpu"))
    ones = paste_torch.warp(torch.ones(1, 1, 70, 52), matrix, boxes, "bilinear", "zeros")
    np.testing.assert_allclose(area.numpy(), ones[:, 0].numpy(), atol=1e-4)


def _check_soft_mask(area: NDArray[np.float32]) -> None:
    """Against the same steps by OpenCV (FACTS §7)."""
    eroded = cv2.erode(area, np.ones((2, 2), np.uint8))
    edge = int(np.sqrt(eroded.sum(dtype=np.float32))) // 20
    soft = eroded
    if edge:
        size = 2 * edge + 1
        centre = cv2.erode(eroded, np.ones((2 * edge, 2 * edge), np.uint8))
        sigma = 0.3 * ((size - 1) * 0.5 - 1) + 0.8
        soft = cv2.GaussianBlur(centre, (size, size), sigma, borderType=cv2.BORDER_REFLECT_101)
    ours = paste_torch.soft_mask(torch.from_numpy(area)[None])
    np.testing.assert_allclose(ours[0][0].numpy(), eroded, atol=1e-6)
    np.testing.assert_allclose(ours[1][0].numpy(), soft, atol=1e-5)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 150), st.integers(1, 170), st.integers(0, 1000), st.floats(0, 1))
def test_the_soft_mask_is_what_opencv_gives(height: int, width: int, seed: int, level: float) -> None:
    rng = np.random.default_rng(seed)
    _check_soft_mask(cv2.GaussianBlur((rng.random((height, width)) < level).astype(np.float32), (5, 5), 1))


@pytest.mark.parametrize("side", [19, 20, 59, 60, 61, 140])
def test_the_soft_edge_is_a_twentieth_of_the_side(side: int) -> None:
    area = np.zeros((side + 30, side + 20), np.float32)
    area[12 : 13 + side, 8 : 9 + side] = 1  # the first erosion takes one
    _check_soft_mask(area)


@pytest.mark.parametrize("region", ["crop", "mask"])
def test_a_batch_too_large_at_once_is_taken_in_steps(region: str, monkeypatch: pytest.MonkeyPatch) -> None:
    matrices = np.concatenate([make_matrix(0.1 * row, 0.7, 0.8, 40 + row, 45) for row in range(5)])
    work = make_work(matrices)
    backend = RestoreTorch(RestoreOptions.model_validate({"region": region, "device": "cpu"}))
    whole = backend.composite(*work).pixels
    monkeypatch.setattr(restore_torch, "_STEP_PIXELS", 1)
    np.testing.assert_array_equal(backend.composite(*work).pixels, whole)


@pytest.mark.parametrize("name", ["cuda:99", "gpu"])
def test_a_device_that_is_not_there_is_named(name: str) -> None:
    with pytest.raises(SettingsError, match=name):
        RestoreTorch(RestoreOptions(device=name))
