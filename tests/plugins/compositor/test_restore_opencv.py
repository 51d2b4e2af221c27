from __future__ import annotations

import importlib
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
from lipsync_compositor.feather_opencv import FeatherOpencv, FeatherOptions
from lipsync_compositor.plugin import lipsync_register_backends
from lipsync_compositor.restore_opencv import RestoreOpencv, RestoreOptions
from lipsync_core.backends import StageKind
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
    white_rim,
)

exact_warps = pytest.mark.skipif(int(cv2.__version__.split(".")[0]) < 5, reason="OpenCV 4 places samples to 1/32 px")


def _restore(work: Work, region: str, feather: float = 0.05) -> NDArray[np.uint8]:
    options = RestoreOptions.model_validate({"region": region, "feather_eye_distances": feather})
    return RestoreOpencv(options).composite(*work).pixels


# The reference's results, and the twin's


def test_latentsyncs_paste_back_at_256(shared_reference: Path) -> None:
    work, golden = golden_256(shared_reference)
    check_against(_restore(work, "crop")[0], golden)


def test_latentsyncs_paste_back_at_512(shared_reference: Path) -> None:
    work, golden = golden_512(shared_reference)
    check_against(_restore(work, "crop")[0][::3, ::3], golden)


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


@exact_warps
@settings(max_examples=40)
@given(affines, st.integers(0, 1000), st.sampled_from(["crop", "mask"]), st.floats(0, 0.3))
def test_it_gives_what_restore_torch_gives(matrix: NDArray[np.float64], seed: int, region: str, feather: float) -> None:
    pytest.importorskip("torch")
    from lipsync_compositor.restore_torch import RestoreOptions as TorchOptions
    from lipsync_compositor.restore_torch import RestoreTorch

    rng = np.random.default_rng(seed)
    smooth = cv2.GaussianBlur(rng.random((SIDE, SIDE, 3), np.float32), (0, 0), 1.0)[None]
    work = make_work(matrix, seed=seed, generated=np.asarray(smooth * 1.6 - 0.3, np.float32))  # some beyond 0…1
    chosen = {"region": region, "feather_eye_distances": feather, "device": "cpu"}
    expected = RestoreTorch(TorchOptions.model_validate(chosen)).composite(*work).pixels
    error = np.abs(_restore(work, region, feather).astype(int) - expected)
    assert error.max() <= 1
    assert error.mean() <= 0.01


# Region crop


@exact_warps
@settings(max_examples=40)
@given(affines, st.integers(0, 1000))
def test_the_box_holds_all_that_changes(matrix: NDArray[np.float64], seed: int) -> None:
    """The whole frame as the box gives the same picture."""
    work = make_work(matrix, seed=seed)
    with pytest.MonkeyPatch.context() as patch:
        whole = paste.Boxes(np.zeros((1, 2), np.int64), W, H)
        patch.setattr(restore_opencv, "boxes_around", lambda *_: whole)
        expected = {region: _restore(work, region).astype(int) for region in ("crop", "mask")}
    for region, pixels in expected.items():
        assert np.abs(_restore(work, region) - pixels).max() <= 1, region


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


@exact_warps
def test_a_small_face_gets_latentsyncs_white_rim() -> None:
    """What lies outside the crop is white in the reference; where the soft edge is one pixel wide, that shows."""
    matrix = make_matrix(0.3, 2.3, 0.75, 55, 45)
    black = {"frames": np.zeros((1, H, W, 3), np.uint8), "generated": np.zeros((1, SIDE, SIDE, 3), np.float32)}
    rim = _restore(make_work(matrix, **black), "crop")[0, ..., 0]
    assert np.abs(rim - white_rim(matrix)).max() <= 1


def test_levels_are_truncated_as_in_the_reference() -> None:
    """A face of 100.9 levels over one of 100 gives 100 everywhere."""
    even = {"frames": np.full((1, H, W, 3), 100, np.uint8), "generated": np.full((1, SIDE, SIDE, 3), 100.9 / 255)}
    even["generated"] = even["generated"].astype(np.float32)
    inner = _restore(make_work(make_matrix(0, 1, 1, 55, 45), **even), "crop")[0, 35:55, 45:65]
    assert (inner == 100).all()


# Region mask


@settings(max_examples=60)
@given(affines, st.integers(0, 1000), st.floats(0, 0.3))
def test_pixels_outside_the_warped_mask_stay_byte_for_byte(
    matrix: NDArray[np.float64], seed: int, feather: float
) -> None:
    work = make_work(matrix, seed=seed)
    out, outside = _restore(work, "mask", feather), outside_the_warped_mask(work)
    np.testing.assert_array_equal(out[0][outside], work[0].pixels[0][outside])


@settings(max_examples=30)
@given(st.floats(-0.5, 0.5), st.floats(0.5, 2.5), st.floats(20, 90), st.floats(20, 70))
def test_it_shows_what_feather_opencv_shows(turn: float, size: float, x: float, y: float) -> None:
    """On smooth pictures, where the two ways of resampling agree."""
    yy, xx = np.mgrid[0:SIDE, 0:SIDE].astype(np.float32) / SIDE
    generated = np.stack([0.5 + 0.4 * np.sin(3 * xx), 0.5 + 0.4 * np.cos(2 * yy), xx * yy], axis=-1)[None]
    work = make_work(make_matrix(turn, size, 1.0, x, y), generated=generated)
    expected = FeatherOpencv(FeatherOptions()).composite(*work).pixels.astype(int)
    error = np.abs(_restore(work, "mask") - expected)
    assert np.quantile(error, 0.99) <= 2
    assert error.mean() < 0.1


def test_deep_inside_the_mask_the_generated_pixels_stand() -> None:
    work = make_work(np.array([[[1.0, 0, -20], [0, 1.0, -15]]]))
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
def test_a_batch_is_the_frames_one_by_one(region: str) -> None:
    rng = np.random.default_rng(4)
    matrices = np.concatenate(
        [
            make_matrix(rng.uniform(-0.3, 0.3), rng.uniform(0.5, 1.5), 0.8, rng.uniform(-10, 120), rng.uniform(0, 90))
            for _ in range(5)
        ]
    )
    work = make_work(matrices, found=[True, True, False, True, True])
    whole = _restore(work, region)
    np.testing.assert_array_equal(whole[2], work[0].pixels[2])
    for row in range(5):
        np.testing.assert_array_equal(_restore(one_frame(work, row), region)[0], whole[row])


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
def test_what_is_no_number_spoils_no_other_pixel(region: str) -> None:
    work = make_work(make_matrix(0.1, 1, 1, 50, 40))
    work[3].pixels[:] = np.nan
    out = _restore(work, region)
    if region == "mask":
        outside = outside_the_warped_mask(work)
        np.testing.assert_array_equal(out[0][outside], work[0].pixels[0][outside])
    np.testing.assert_array_equal(out[0, 0], work[0].pixels[0, 0])


@pytest.mark.parametrize("region", ["crop", "mask"])
def test_inputs_are_not_written_to(region: str) -> None:
    work = make_work(make_matrix(0.3, 1, 1, 50, 40))
    for array in (work[0].pixels, work[1].pixels, work[2].generate, work[3].pixels):
        array.flags.writeable = False
    out = _restore(work, region)
    assert out.flags.c_contiguous
    assert (out != work[0].pixels).any()


@pytest.mark.parametrize("region", ["crop", "mask"])
@pytest.mark.parametrize("scale", [0.02, 8.0])
def test_tiny_and_huge_faces(region: str, scale: float) -> None:
    work = make_work(make_matrix(0.1, scale, 1, 50, 40))
    assert _restore(work, region).shape == work[0].pixels.shape


@pytest.mark.parametrize("wrong", [{"region": "face"}, {"feather_eye_distances": -0.1}, {"device": "cpu"}])
def test_wrong_options_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        RestoreOptions.model_validate(wrong)


def test_the_spec_names_what_is_there() -> None:
    (spec,) = [spec for spec in lipsync_register_backends() if spec.name == "restore-opencv"]
    assert spec.kind is StageKind.COMPOSITOR
    assert spec.requires == ("cv2",)
    module, _, name = spec.factory.partition(":")
    backend: Compositor = getattr(importlib.import_module(module), name)(RestoreOptions())
    assert callable(backend.composite)
    assert spec.options == f"{module}:RestoreOptions"


def test_it_needs_no_torch() -> None:
    code = "import sys, lipsync_compositor.restore_opencv; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
