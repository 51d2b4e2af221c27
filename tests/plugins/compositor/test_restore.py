"""What both paste-back backends must do, each in turn."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import ValidationError

from lipsync_compositor import paste
from lipsync_compositor.feather_opencv import FeatherOpencv, FeatherOptions
from lipsync_compositor.plugin import lipsync_register_backends
from lipsync_core.backends import StageKind
from lipsync_core.stages import Compositor
from lipsync_core.types import MouthMask

from .restoring import (
    OPENCV_5,
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

Restore = Callable[..., NDArray[np.uint8]]
both_regions = pytest.mark.parametrize("region", ["crop", "mask"])
drawn = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(params=["opencv", "torch"])
def runtime(request: pytest.FixtureRequest) -> str:
    if request.param == "torch":
        pytest.importorskip("torch")
    return str(request.param)


@pytest.fixture
def module(runtime: str) -> ModuleType:
    return importlib.import_module(f"lipsync_compositor.restore_{runtime}")


@pytest.fixture
def restore(runtime: str, module: ModuleType) -> Restore:
    def composite(work: Work, region: str, feather: float = 0.05) -> NDArray[np.uint8]:
        options = {"region": region, "feather_eye_distances": feather}
        if runtime == "torch":
            options["device"] = "cpu"
        backend: Compositor = getattr(module, f"Restore{runtime.title()}")(module.RestoreOptions(**options))
        return backend.composite(*work).pixels

    return composite


# Region crop


def test_latentsyncs_paste_back_at_256(restore: Restore, shared_reference: Path) -> None:
    work, golden = golden_256(shared_reference)
    check_against(restore(work, "crop")[0], golden)


def test_latentsyncs_paste_back_at_512(restore: Restore, shared_reference: Path) -> None:
    work, golden = golden_512(shared_reference)
    check_against(restore(work, "crop")[0][::3, ::3], golden)


def test_region_crop_pastes_what_the_denoiser_gave_whatever_the_mask(restore: Restore) -> None:
    frames, faces, mask, generated = make_work(make_matrix(0.2, 0.9, 0.8, 55, 45))
    pasted = restore((frames, faces, mask, generated), "crop")
    nothing = MouthMask(np.zeros_like(mask.generate))
    np.testing.assert_array_equal(restore((frames, faces, nothing, generated), "crop"), pasted)
    assert (pasted != frames.pixels).mean() > 0.2


def test_values_beyond_white_are_resampled_before_they_are_clamped(restore: Restore) -> None:
    """As in the reference, a pixel above 1 brightens its neighbours."""
    generated = np.full((1, SIDE, SIDE, 3), 0.1, np.float32)
    generated[:, ::2] = 1.8
    matrix, ones = make_matrix(0, 0.5, 1, 55, 45), np.ones((1, SIDE, SIDE), np.float32)
    beyond = restore(make_work(matrix, generated=generated, generate=ones), "crop")
    clamped = restore(make_work(matrix, generated=np.minimum(generated, 1), generate=ones), "crop")
    assert beyond[0, 35:55, 45:65].mean() > clamped[0, 35:55, 45:65].mean() + 10


@pytest.mark.skipif(not OPENCV_5, reason="OpenCV 4 places samples to 1/32 px")
def test_a_small_face_gets_latentsyncs_white_rim(restore: Restore) -> None:
    """What lies outside the crop is white in the reference; where the soft edge is one pixel wide, that shows."""
    matrix = make_matrix(0.3, 2.3, 0.75, 55, 45)
    black = {"frames": np.zeros((1, H, W, 3), np.uint8), "generated": np.zeros((1, SIDE, SIDE, 3), np.float32)}
    rim = restore(make_work(matrix, **black), "crop")[0, ..., 0]
    assert np.abs(rim - white_rim(matrix)).max() <= 1


def test_levels_are_truncated_as_in_the_reference(restore: Restore) -> None:
    """A face of 100.9 levels over one of 100 gives 100 everywhere."""
    frames = np.full((1, H, W, 3), 100, np.uint8)
    generated = np.full((1, SIDE, SIDE, 3), 100.9 / 255, np.float32)
    work = make_work(make_matrix(0, 1, 1, 55, 45), frames=frames, generated=generated)
    assert (restore(work, "crop")[0, 35:55, 45:65] == 100).all()


# Region mask


@drawn
@given(affines, st.integers(0, 1000), st.floats(0, 0.3))
def test_pixels_outside_the_warped_mask_stay_byte_for_byte(
    restore: Restore, matrix: NDArray[np.float64], seed: int, feather: float
) -> None:
    work = make_work(matrix, seed=seed)
    out, outside = restore(work, "mask", feather), outside_the_warped_mask(work)
    np.testing.assert_array_equal(out[0][outside], work[0].pixels[0][outside])


@drawn
@given(affines, st.integers(0, 1000))
def test_what_lies_beyond_the_part_resampled_does_not_show(
    restore: Restore, matrix: NDArray[np.float64], seed: int
) -> None:
    """Other pixels there give the same picture, and the whole crop gives it but for sizes rounded otherwise."""
    smooth = cv2.GaussianBlur(np.random.default_rng(seed).random((160, 160, 3), np.float32), (0, 0), 4.0)[None]
    work = make_work(matrix, side=160, generated=smooth, generate=np.zeros((1, 160, 160), np.float32))
    work[2].generate[:, 70:90, 66:95] = 1
    expected = restore(work, "mask")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paste, "SAMPLED", 160)
        assert np.abs(restore(work, "mask").astype(int) - expected).max() <= 2
    rows, columns = paste.part_of_crop((slice(70, 90), slice(66, 95)), matrix, 160)[0]
    kept = work[3].pixels[:, rows, columns].copy()
    work[3].pixels[:] = 7
    work[3].pixels[:, rows, columns] = kept
    np.testing.assert_array_equal(restore(work, "mask"), expected)


@drawn
@given(st.floats(-0.5, 0.5), st.floats(0.5, 2.5), st.floats(20, 90), st.floats(20, 70))
def test_it_shows_what_feather_opencv_shows(restore: Restore, turn: float, size: float, x: float, y: float) -> None:
    """On smooth pictures, where the two ways of resampling agree."""
    yy, xx = np.mgrid[0:SIDE, 0:SIDE].astype(np.float32) / SIDE
    generated = np.stack([0.5 + 0.4 * np.sin(3 * xx), 0.5 + 0.4 * np.cos(2 * yy), xx * yy], axis=-1)[None]
    work = make_work(make_matrix(turn, size, 1.0, x, y), generated=generated)
    expected = FeatherOpencv(FeatherOptions()).composite(*work).pixels.astype(int)
    error = np.abs(restore(work, "mask") - expected)
    # At the mask's hard edge OpenCV 4's rounded sample positions show.
    assert np.quantile(error, 0.99) <= 2
    assert error.mean() < 0.1


def test_deep_inside_the_mask_the_generated_pixels_stand(restore: Restore) -> None:
    work = make_work(np.array([[[1.0, 0, -20], [0, 1.0, -15]]]))
    deep = np.rint(work[3].pixels[0, 30:50, 20:44] * 255).astype(int)
    assert np.abs(restore(work, "mask")[0, 45:65, 40:64] - deep).max() <= 1


def test_a_fine_pattern_is_averaged_where_the_face_is_small(restore: Restore) -> None:
    stripes = np.zeros((1, 128, 128, 3), np.float32)
    stripes[:, ::2] = 1
    matrix = np.array([[[4.0, 0, -100], [0, 4.0, -100]]])
    work = make_work(matrix, side=128, generated=stripes, generate=np.ones((1, 128, 128), np.float32))
    inner = restore(work, "mask", 0.0)[0, 30:52, 30:52]
    assert np.abs(inner.astype(int) - 127).max() <= 8


# Both regions


@drawn
@given(affines, st.integers(0, 1000))
def test_the_box_holds_all_that_changes(
    restore: Restore, module: ModuleType, matrix: NDArray[np.float64], seed: int
) -> None:
    """The whole frame as the box gives the same picture."""
    work = make_work(matrix, seed=seed)
    with pytest.MonkeyPatch.context() as patch:
        whole = paste.Boxes(np.zeros((1, 2), np.int64), W, H)
        patch.setattr(module, "boxes_around", lambda *_: whole)
        expected = {region: restore(work, region).astype(int) for region in ("crop", "mask")}
    for region, pixels in expected.items():
        assert np.abs(restore(work, region) - pixels).max() <= 1, region


@both_regions
def test_a_batch_is_the_frames_one_by_one(restore: Restore, region: str) -> None:
    rng = np.random.default_rng(4)
    matrices = np.concatenate(
        [make_matrix(rng.uniform(-0.3, 0.3), 0.7, 0.8, rng.uniform(-10, 120), rng.uniform(0, 90)) for _ in range(5)]
    )
    work = make_work(matrices, found=[True, True, False, True, True])
    whole = restore(work, region)
    np.testing.assert_array_equal(whole[2], work[0].pixels[2])
    for row in range(5):
        # A batch may choose one size for the picture before the warp; the scale here is the same for all.
        assert np.abs(restore(one_frame(work, row), region)[0].astype(int) - whole[row]).max() <= 1


@both_regions
@pytest.mark.parametrize("place", [(-300, 40), (50, 500), (1000, -1000)])
def test_a_face_outside_the_frame_changes_nothing(restore: Restore, region: str, place: tuple[int, int]) -> None:
    work = make_work(make_matrix(0, 1, 1, *place))
    np.testing.assert_array_equal(restore(work, region), work[0].pixels)


@both_regions
def test_nothing_found_nothing_to_generate_and_no_frames(restore: Restore, region: str) -> None:
    work = make_work(make_matrix(0, 1, 1, 50, 40), found=[False])
    np.testing.assert_array_equal(restore(work, region), work[0].pixels)
    assert len(restore(make_work(np.zeros((0, 2, 3))), region)) == 0
    work = make_work(make_matrix(0, 1, 1, 50, 40), generate=np.zeros((1, SIDE, SIDE), np.float32))
    np.testing.assert_array_equal(restore(work, "mask"), work[0].pixels)


@both_regions
def test_what_is_no_number_spoils_no_other_pixel(restore: Restore, region: str) -> None:
    work = make_work(make_matrix(0.1, 1, 1, 50, 40))
    work[3].pixels[:] = np.nan
    out = restore(work, region)
    if region == "mask":
        outside = outside_the_warped_mask(work)
        np.testing.assert_array_equal(out[0][outside], work[0].pixels[0][outside])
    np.testing.assert_array_equal(out[0, 0], work[0].pixels[0, 0])


@both_regions
def test_the_arguments_are_left_as_they_were(restore: Restore, region: str) -> None:
    work = make_work(make_matrix(0.3, 1, 1, 50, 40))
    arrays = [work[0].pixels, work[1].pixels, work[2].generate, work[3].pixels]
    before = [array.copy() for array in arrays]
    out = restore(work, region)
    assert out.flags.c_contiguous
    assert (out != before[0]).any()
    for array, copy in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(array, copy)


@both_regions
@pytest.mark.parametrize("scale", [0.02, 8.0])
def test_tiny_and_huge_faces(restore: Restore, region: str, scale: float) -> None:
    work = make_work(make_matrix(0.1, scale, 1, 50, 40))
    assert restore(work, region).shape == work[0].pixels.shape


@pytest.mark.parametrize("wrong", [{"region": "face"}, {"feather_eye_distances": -0.1}, {"x": 1}])
def test_wrong_options_are_refused(module: ModuleType, wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        module.RestoreOptions.model_validate(wrong)


def test_the_spec_names_what_is_there(runtime: str) -> None:
    (spec,) = [spec for spec in lipsync_register_backends() if spec.name == f"restore-{runtime}"]
    assert spec.kind is StageKind.COMPOSITOR
    assert spec.requires == ({"opencv": "cv2"}.get(runtime, runtime),)
    module, _, name = spec.factory.partition(":")
    options_module, _, options = spec.options.partition(":")
    made = getattr(importlib.import_module(options_module), options)()
    backend: Compositor = getattr(importlib.import_module(module), name)(made)
    assert callable(backend.composite)
