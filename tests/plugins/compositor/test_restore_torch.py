from __future__ import annotations

import importlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import ValidationError

from lipsync_compositor import paste
from lipsync_compositor.feather_opencv import FeatherOpencv, FeatherOptions
from lipsync_compositor.plugin import lipsync_register_backends
from lipsync_core.backends import StageKind
from lipsync_core.errors import SettingsError
from lipsync_core.stages import Compositor
from lipsync_core.types import MouthMask

from .restoring import (
    SIDE,
    H,
    W,
    Work,
    affines,
    check_against,
    golden_256,
    golden_512,
    make_matrix,
    make_work,
    one_frame,
    outside_the_warped_mask,
    synthetic_face,
    white_rim,
)

torch = pytest.importorskip("torch")

from lipsync_compositor import paste_torch, restore_torch  # noqa: E402
from lipsync_compositor.restore_torch import RestoreOptions, RestoreTorch  # noqa: E402


def _restore(work: Work, region: str, feather: float = 0.05) -> NDArray[np.uint8]:
    options = {"region": region, "feather_eye_distances": feather, "device": "cpu"}
    return RestoreTorch(RestoreOptions.model_validate(options)).composite(*work).pixels


# The reference's results


def test_latentsyncs_paste_back_at_256(shared_reference: Path) -> None:
    work, golden = golden_256(shared_reference)
    check_against(_restore(work, "crop")[0], golden)


def test_latentsyncs_paste_back_at_512(shared_reference: Path) -> None:
    work, golden = golden_512(shared_reference)
    check_against(_restore(work, "crop")[0][::3, ::3], golden)


def test_latentsyncs_soft_mask(shared_reference: Path) -> None:
    golden = np.load(shared_reference / "align.npz")
    matrix = golden["r256.affine_matrix"].astype(np.float64)[None]
    boxes = paste.Boxes(np.zeros((1, 2), np.int64), 640, 360)
    width, height = paste.crop_rectangle(256)
    _, area = paste_torch.warp(torch.zeros(1, 1, height, width), matrix, boxes, "bilinear", 1.0)
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


# Region crop


@settings(max_examples=40, deadline=None)
@given(affines, st.integers(0, 1000))
def test_the_box_holds_all_that_changes(matrix: NDArray[np.float64], seed: int) -> None:
    """The whole frame as the box gives the same picture."""
    work = make_work(matrix, seed=seed)
    with pytest.MonkeyPatch.context() as patch:
        whole = paste.Boxes(np.zeros((1, 2), np.int64), W, H)
        patch.setattr(restore_torch, "boxes_around", lambda *_: whole)
        expected = {region: _restore(work, region).astype(int) for region in ("crop", "mask")}
    for region, pixels in expected.items():
        assert np.abs(_restore(work, region) - pixels).max() <= 1, region


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
@given(st.integers(1, 60), st.integers(1, 70), st.integers(0, 1000), st.floats(0, 1))
def test_the_soft_mask_is_what_opencv_gives(height: int, width: int, seed: int, level: float) -> None:
    rng = np.random.default_rng(seed)
    _check_soft_mask(cv2.GaussianBlur((rng.random((height, width)) < level).astype(np.float32), (5, 5), 1))


@pytest.mark.parametrize("side", [19, 20, 59, 60, 61, 140])
def test_the_soft_edge_is_a_twentieth_of_the_side(side: int) -> None:
    area = np.zeros((side + 30, side + 20), np.float32)
    area[12 : 13 + side, 8 : 9 + side] = 1  # the first erosion takes one
    _check_soft_mask(area)


def test_region_crop_pastes_what_the_denoiser_gave_whatever_the_mask() -> None:
    frames, faces, mask, generated = make_work(make_matrix(0.2, 0.9, 0.8, 55, 45))
    pasted = _restore((frames, faces, mask, generated), "crop")
    nothing = MouthMask(np.zeros_like(mask.generate))
    np.testing.assert_array_equal(_restore((frames, faces, nothing, generated), "crop"), pasted)
    assert (pasted != frames.pixels).mean() > 0.2


def test_values_beyond_white_are_resampled_before_they_are_clamped() -> None:
    """As in the reference, a pixel above 1 brightens its neighbours."""
    generated = np.full((1, SIDE, SIDE, 3), 0.1, np.float32)
    generated[:, ::2] = 1.8
    matrix, ones = make_matrix(0, 0.5, 1, 55, 45), np.ones((1, SIDE, SIDE), np.float32)
    beyond = _restore(make_work(matrix, generated=generated, generate=ones), "crop")
    clamped = _restore(make_work(matrix, generated=np.minimum(generated, 1), generate=ones), "crop")
    assert beyond[0, 35:55, 45:65].mean() > clamped[0, 35:55, 45:65].mean() + 10


def test_a_small_face_gets_latentsyncs_white_rim() -> None:
    """What lies outside the crop is white in the reference; where the soft edge is one pixel wide, that shows."""
    matrix = make_matrix(0.3, 2.3, 0.75, 55, 45)
    black = {"frames": np.zeros((1, H, W, 3), np.uint8), "generated": np.zeros((1, SIDE, SIDE, 3), np.float32)}
    rim = _restore(make_work(matrix, **black), "crop")[0, ..., 0]
    expected = white_rim(matrix)
    error = np.abs(rim - expected)[expected > 5]
    assert np.quantile(error, 0.9) < 5  # OpenCV before 5 places samples to 1/32 px


# Region mask


@settings(max_examples=60, deadline=None)
@given(affines, st.integers(0, 1000), st.floats(0, 0.3))
def test_pixels_outside_the_warped_mask_stay_byte_for_byte(
    matrix: NDArray[np.float64], seed: int, feather: float
) -> None:
    work = make_work(matrix, seed=seed)
    out = _restore(work, "mask", feather)
    outside = outside_the_warped_mask(work)
    np.testing.assert_array_equal(out[0][outside], work[0].pixels[0][outside])


@settings(max_examples=30, deadline=None)
@given(st.floats(-0.5, 0.5), st.floats(0.5, 2.5), st.floats(20, 90), st.floats(20, 70))
def test_it_shows_what_feather_opencv_shows(turn: float, size: float, x: float, y: float) -> None:
    """On smooth pictures, where the two ways of resampling agree."""
    yy, xx = np.mgrid[0:SIDE, 0:SIDE].astype(np.float32) / SIDE
    generated = np.stack([0.5 + 0.4 * np.sin(3 * xx), 0.5 + 0.4 * np.cos(2 * yy), xx * yy], axis=-1)[None]
    work = make_work(make_matrix(turn, size, 1.0, x, y), generated=generated)
    expected = FeatherOpencv(FeatherOptions()).composite(*work).pixels.astype(int)
    error = np.abs(_restore(work, "mask") - expected)
    # At the mask's hard edge OpenCV 4's rounded sample positions show.
    assert np.quantile(error, 0.99) <= 2
    assert error.mean() < 0.1


def test_deep_inside_the_mask_the_generated_pixels_stand() -> None:
    matrix = np.array([[[1.0, 0, -20], [0, 1.0, -15]]])
    work = make_work(matrix)
    deep = np.rint(work[3].pixels[0, 30:50, 20:44] * 255).astype(int)
    assert np.abs(_restore(work, "mask")[0, 45:65, 40:64] - deep).max() <= 1


def test_a_fine_pattern_is_averaged_where_the_face_is_small() -> None:
    stripes = np.zeros((1, 128, 128, 3), np.float32)
    stripes[:, ::2] = 1
    matrix = np.array([[[4.0, 0, -100], [0, 4.0, -100]]])
    work = make_work(matrix, side=128, generated=stripes, generate=np.ones((1, 128, 128), np.float32))
    inner = _restore(work, "mask", 0.0)[0, 30:52, 30:52]
    assert np.abs(inner.astype(int) - 127).max() <= 8


# Both


@pytest.mark.parametrize("region", ["crop", "mask"])
def test_a_batch_is_the_frames_one_by_one(region: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(4)
    matrices = np.concatenate(
        [make_matrix(rng.uniform(-0.3, 0.3), 0.7, 0.8, rng.uniform(-10, 120), rng.uniform(0, 90)) for _ in range(5)]
    )
    frames, faces, mask, generated = make_work(matrices, found=[True, True, False, True, True])
    whole = _restore((frames, faces, mask, generated), region)
    monkeypatch.setattr(restore_torch, "_STEP_PIXELS", 1)
    np.testing.assert_array_equal(whole, _restore((frames, faces, mask, generated), region))
    np.testing.assert_array_equal(whole[2], frames.pixels[2])
    for row in range(5):
        one = one_frame((frames, faces, mask, generated), row)
        # The picture's size before the warp is a mean over the batch; the scale here is the same for all.
        assert np.abs(_restore(one, region)[0].astype(int) - whole[row]).max() <= 1


@pytest.mark.parametrize("region", ["crop", "mask"])
@pytest.mark.parametrize("place", [(-300, 40), (50, 500), (1000, -1000)])
def test_a_face_outside_the_frame_changes_nothing(region: str, place: tuple[int, int]) -> None:
    work = make_work(make_matrix(0, 1, 1, *place))
    np.testing.assert_array_equal(_restore(work, region), work[0].pixels)


@pytest.mark.parametrize("region", ["crop", "mask"])
def test_nothing_found_nothing_to_generate_and_no_frames(region: str) -> None:
    work = make_work(make_matrix(0, 1, 1, 50, 40), found=[False])
    np.testing.assert_array_equal(_restore(work, region), work[0].pixels)
    assert len(_restore(make_work(np.zeros((0, 2, 3))), region)) == 0
    work = make_work(make_matrix(0, 1, 1, 50, 40), generate=np.zeros((1, SIDE, SIDE), np.float32))
    np.testing.assert_array_equal(_restore(work, "mask"), work[0].pixels)


@pytest.mark.parametrize("region", ["crop", "mask"])
def test_the_arguments_are_left_as_they_were(region: str) -> None:
    work = make_work(make_matrix(0.3, 1, 1, 50, 40))
    before = [work[0].pixels.copy(), work[1].pixels.copy(), work[2].generate.copy(), work[3].pixels.copy()]
    _restore(work, region)
    after = [work[0].pixels, work[1].pixels, work[2].generate, work[3].pixels]
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("region", ["crop", "mask"])
@pytest.mark.parametrize("scale", [0.02, 8.0])
def test_tiny_and_huge_faces(region: str, scale: float) -> None:
    work = make_work(make_matrix(0.1, scale, 1, 50, 40))
    assert _restore(work, region).shape == work[0].pixels.shape


@pytest.mark.parametrize("name", ["cuda:99", "gpu"])
def test_a_device_that_is_not_there_is_named(name: str) -> None:
    with pytest.raises(SettingsError, match=name):
        RestoreTorch(RestoreOptions(device=name))


@pytest.mark.parametrize("wrong", [{"region": "face"}, {"feather_eye_distances": -0.1}, {"x": 1}])
def test_wrong_options_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        RestoreOptions.model_validate(wrong)


def test_the_spec_names_what_is_there() -> None:
    (spec,) = [spec for spec in lipsync_register_backends() if spec.name == "restore-torch"]
    assert spec.kind is StageKind.COMPOSITOR
    assert spec.requires == ("torch",)
    module, _, name = spec.factory.partition(":")
    backend: Compositor = getattr(importlib.import_module(module), name)(RestoreOptions())
    assert callable(backend.composite)
    assert spec.options == f"{module}:RestoreOptions"
