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

from lipsync_compositor.feather_opencv import FeatherOpencv, FeatherOptions
from lipsync_compositor.plugin import lipsync_register_backends
from lipsync_core import landmarks as lm
from lipsync_core.backends import StageKind
from lipsync_core.errors import SettingsError
from lipsync_core.stages import Compositor
from lipsync_core.types import AlignedFaces, FaceTrack, FrameBatch, GeneratedFaces, MouthMask

torch = pytest.importorskip("torch")

from lipsync_compositor import paste_torch, restore_torch  # noqa: E402
from lipsync_compositor.restore_torch import RestoreOptions, RestoreTorch  # noqa: E402

H, W, SIDE = 90, 110, 64
Work = tuple[FrameBatch, AlignedFaces, MouthMask, GeneratedFaces]


def _restore(work: Work, region: str, feather: float = 0.05) -> NDArray[np.uint8]:
    options = {"region": region, "feather_eye_distances": feather, "device": "cpu"}
    return RestoreTorch(RestoreOptions.model_validate(options)).composite(*work).pixels


def _work(
    matrices: NDArray[np.float64],
    *,
    side: int = SIDE,
    seed: int = 0,
    found: list[bool] | None = None,
    frames: NDArray[np.uint8] | None = None,
    generated: NDArray[np.float32] | None = None,
    generate: NDArray[np.float32] | None = None,
) -> Work:
    rng = np.random.default_rng(seed)
    n = len(matrices)
    if frames is None:
        frames = rng.integers(0, 256, (n, H, W, 3), dtype=np.uint8)
    if generate is None:
        generate = np.zeros((n, side, side), np.float32)
        generate[:, side // 3 : side - 4, 6 : side - 6] = 1
    if generated is None:
        generated = rng.random((n, side, side, 3), np.float32)
    landmarks = np.full((n, lm.COUNT, 2), np.nan, np.float32)  # the eyes' distance falls back to a part of the side
    track = FaceTrack(3, matrices, np.array(found or [True] * n, np.bool_), landmarks, side)
    crops = rng.integers(0, 256, (n, side, side, 3), dtype=np.uint8)
    return FrameBatch(3, frames), AlignedFaces(track, crops), MouthMask(generate), GeneratedFaces(generated)


def _matrix(turn: float, size: float, stretch: float, x: float, y: float) -> NDArray[np.float64]:
    cos, sin = size * np.cos(turn), size * np.sin(turn)
    linear = np.array([[cos, sin], [-sin * stretch, cos * stretch]])
    return np.column_stack([linear, (SIDE / 2, SIDE / 2) - linear @ (x, y)])[None]


affines = st.builds(
    _matrix,
    st.floats(-3.1, 3.1),
    st.floats(0.3, 3.0),
    st.floats(0.7, 1.4),
    st.floats(-20, W + 20),
    st.floats(-20, H + 20),
)


# The reference's results


def _golden_work(reference: Path, resolution: int, face: NDArray[np.float32]) -> Work:
    golden = np.load(reference / "align.npz")
    frame = cv2.cvtColor(cv2.imread(str(reference / "align_image.png")), cv2.COLOR_BGR2RGB)
    width, height = paste_torch.crop_rectangle(resolution)
    ratio = np.array([resolution / width, resolution / height])
    matrix = golden[f"r{resolution}.affine_matrix"].astype(np.float64) * ratio[:, None]
    matrix[:, 2] += (ratio - 1) / 2
    return _work(
        matrix[None],
        side=resolution,
        frames=frame[None],
        generated=np.ascontiguousarray(face.transpose(1, 2, 0)[None] / 2 + 0.5, np.float32),
        generate=np.ones((1, resolution, resolution), np.float32),
    )


def _check_against(restored: NDArray[np.uint8], golden: NDArray[np.uint8]) -> None:
    """MANIFEST: mean ≤ 0.2 levels and 99.9 % within 3. This code comes closer, so it is held closer."""
    error = np.abs(restored.astype(int) - golden)
    assert error.mean() <= 0.03
    assert error.max() <= 1


def _synthetic_face(reference: Path) -> NDArray[np.float32]:
    return np.load(reference / "align.npz")["r256.synth_face_x100_int8"].astype(np.float32) / 100


def test_latentsyncs_paste_back_at_256(shared_reference: Path) -> None:
    golden = cv2.cvtColor(cv2.imread(str(shared_reference / "align_restored_r256.png")), cv2.COLOR_BGR2RGB)
    work = _golden_work(shared_reference, 256, _synthetic_face(shared_reference))
    _check_against(_restore(work, "crop")[0], golden)


def test_latentsyncs_paste_back_at_512(shared_reference: Path) -> None:
    """The 512 px face is not stored: its smooth part is enlarged from the 256 px one, its checkers drawn again."""

    def checkers(side: int) -> NDArray[np.float64]:
        wave = np.sin(40 * np.arange(side) / side)
        return 0.1 * np.sign(wave * wave[:, None])

    smooth = (_synthetic_face(shared_reference) - checkers(256)).astype(np.float32).transpose(1, 2, 0)
    x, y = np.meshgrid(*[np.arange(512, dtype=np.float32) / 2] * 2)
    large = cv2.remap(smooth, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    face = (large + checkers(512)[..., None]).astype(np.float32).transpose(2, 0, 1)
    restored = _restore(_golden_work(shared_reference, 512, face), "crop")[0]
    _check_against(restored[::3, ::3], np.load(shared_reference / "align.npz")["r512.restored_rows_every3"])


def test_latentsyncs_soft_mask(shared_reference: Path) -> None:
    golden = np.load(shared_reference / "align.npz")
    matrix = golden["r256.affine_matrix"].astype(np.float64)[None]
    boxes = paste_torch.Boxes(np.zeros((1, 2), np.int64), 640, 360)
    width, height = paste_torch.crop_rectangle(256)
    _, area = paste_torch.warp(torch.zeros(1, 1, height, width), matrix, boxes, "bilinear", 1.0)
    eroded, soft = paste_torch.soft_mask(area)
    assert float(area.sum()) == pytest.approx(27836.73, abs=0.5)  # align_info.json, r256.paste
    assert float(eroded.sum()) == pytest.approx(27473.59, abs=0.5)
    assert float(soft.sum()) == pytest.approx(22306.52, abs=0.5)
    error = np.abs(soft[0, ::2, ::2].numpy() - golden["r256.soft_mask_f16_every2"].astype(np.float32))
    assert error.max() < 2e-3


def test_latentsyncs_resized_face(shared_reference: Path) -> None:
    face = torch.from_numpy(_synthetic_face(shared_reference)[None])
    resized = restore_torch._resized(face, *paste_torch.crop_rectangle(256))[0, :, ::8, ::8]
    golden = np.load(shared_reference / "align.npz")["r256.synth_face_resized_every8"]
    np.testing.assert_allclose(resized.numpy(), golden, atol=1e-5)


def test_the_crop_rectangle_is_latentsyncs() -> None:
    assert paste_torch.crop_rectangle(256) == (210, 280)
    assert paste_torch.crop_rectangle(512) == (420, 560)
    assert paste_torch.crop_rectangle(64) == (52, 70)


# Region crop


@settings(max_examples=40, deadline=None)
@given(affines, st.integers(0, 1000))
def test_the_box_holds_all_that_changes(matrix: NDArray[np.float64], seed: int) -> None:
    """The whole frame as the box gives the same picture."""
    work = _work(matrix, seed=seed)
    with pytest.MonkeyPatch.context() as patch:
        whole = paste_torch.Boxes(np.zeros((1, 2), np.int64), W, H)
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
    frames, faces, mask, generated = _work(_matrix(0.2, 0.9, 0.8, 55, 45))
    pasted = _restore((frames, faces, mask, generated), "crop")
    nothing = MouthMask(np.zeros_like(mask.generate))
    np.testing.assert_array_equal(_restore((frames, faces, nothing, generated), "crop"), pasted)
    assert (pasted != frames.pixels).mean() > 0.2


def test_values_beyond_white_are_resampled_before_they_are_clamped() -> None:
    """As in the reference, a pixel above 1 brightens its neighbours."""
    generated = np.full((1, SIDE, SIDE, 3), 0.1, np.float32)
    generated[:, ::2] = 1.8
    matrix, ones = _matrix(0, 0.5, 1, 55, 45), np.ones((1, SIDE, SIDE), np.float32)
    beyond = _restore(_work(matrix, generated=generated, generate=ones), "crop")
    clamped = _restore(_work(matrix, generated=np.minimum(generated, 1), generate=ones), "crop")
    assert beyond[0, 35:55, 45:65].mean() > clamped[0, 35:55, 45:65].mean() + 10


def test_a_small_face_gets_latentsyncs_white_rim() -> None:
    """What lies outside the crop is white in the reference; where the soft edge is one pixel wide, that shows."""
    matrix = _matrix(0.3, 2.3, 0.75, 55, 45)
    black = {"frames": np.zeros((1, H, W, 3), np.uint8), "generated": np.zeros((1, SIDE, SIDE, 3), np.float32)}
    rim = _restore(_work(matrix, **black), "crop")[0, ..., 0]
    width, height = paste_torch.crop_rectangle(SIDE)
    to_crop, flags = paste_torch.rescaled(matrix, SIDE, width, height)[0], cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    face = cv2.warpAffine(np.full((height, width), -1, np.float32), to_crop, (W, H), flags=flags, borderValue=127)
    area = cv2.warpAffine(np.ones((height, width), np.float32), to_crop, (W, H), flags=flags)
    eroded = cv2.erode(area, np.ones((2, 2), np.uint8))
    assert 400 < eroded.sum() < 1600  # so the edge is 1
    soft = cv2.GaussianBlur(cv2.erode(eroded, np.ones((2, 2), np.uint8)), (3, 3), 0.8)
    expected = soft * (eroded * np.clip(face / 2 + 0.5, 0, 1) * 255)
    assert expected.max() > 100
    error = np.abs(rim - expected)[expected > 5]
    assert np.quantile(error, 0.9) < 5  # OpenCV before 5 places samples to 1/32 px


# Region mask


@settings(max_examples=60, deadline=None)
@given(affines, st.integers(0, 1000), st.floats(0, 0.3))
def test_pixels_outside_the_warped_mask_stay_byte_for_byte(
    matrix: NDArray[np.float64], seed: int, feather: float
) -> None:
    work = _work(matrix, seed=seed)
    out = _restore(work, "mask", feather)
    inside = (work[2].generate[0] > 0).astype(np.float32)
    reach = cv2.warpAffine(inside, matrix[0], (W, H), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    outside = cv2.dilate(reach, np.ones((3, 3))) == 0  # OpenCV before 5 places samples to 1/32 px
    np.testing.assert_array_equal(out[0][outside], work[0].pixels[0][outside])


@settings(max_examples=30, deadline=None)
@given(st.floats(-0.5, 0.5), st.floats(0.5, 2.5), st.floats(20, 90), st.floats(20, 70))
def test_it_shows_what_feather_opencv_shows(turn: float, size: float, x: float, y: float) -> None:
    """On smooth pictures, where the two ways of resampling agree."""
    yy, xx = np.mgrid[0:SIDE, 0:SIDE].astype(np.float32) / SIDE
    generated = np.stack([0.5 + 0.4 * np.sin(3 * xx), 0.5 + 0.4 * np.cos(2 * yy), xx * yy], axis=-1)[None]
    work = _work(_matrix(turn, size, 1.0, x, y), generated=generated)
    expected = FeatherOpencv(FeatherOptions()).composite(*work).pixels.astype(int)
    error = np.abs(_restore(work, "mask") - expected)
    # At the mask's hard edge OpenCV 4's rounded sample positions show.
    assert np.quantile(error, 0.99) <= 2
    assert error.mean() < 0.1


def test_deep_inside_the_mask_the_generated_pixels_stand() -> None:
    matrix = np.array([[[1.0, 0, -20], [0, 1.0, -15]]])
    work = _work(matrix)
    deep = np.rint(work[3].pixels[0, 30:50, 20:44] * 255).astype(int)
    assert np.abs(_restore(work, "mask")[0, 45:65, 40:64] - deep).max() <= 1


def test_a_fine_pattern_is_averaged_where_the_face_is_small() -> None:
    stripes = np.zeros((1, 128, 128, 3), np.float32)
    stripes[:, ::2] = 1
    matrix = np.array([[[4.0, 0, -100], [0, 4.0, -100]]])
    work = _work(matrix, side=128, generated=stripes, generate=np.ones((1, 128, 128), np.float32))
    inner = _restore(work, "mask", 0.0)[0, 30:52, 30:52]
    assert np.abs(inner.astype(int) - 127).max() <= 8


# Both


@pytest.mark.parametrize("region", ["crop", "mask"])
def test_a_batch_is_the_frames_one_by_one(region: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(4)
    matrices = np.concatenate(
        [_matrix(rng.uniform(-0.3, 0.3), 0.7, 0.8, rng.uniform(-10, 120), rng.uniform(0, 90)) for _ in range(5)]
    )
    frames, faces, mask, generated = _work(matrices, found=[True, True, False, True, True])
    whole = _restore((frames, faces, mask, generated), region)
    monkeypatch.setattr(restore_torch, "_STEP_PIXELS", 1)
    np.testing.assert_array_equal(whole, _restore((frames, faces, mask, generated), region))
    np.testing.assert_array_equal(whole[2], frames.pixels[2])
    for row in range(5):
        cut = slice(row, row + 1)
        one = (
            FrameBatch(3 + row, frames.pixels[cut]),
            AlignedFaces(faces.track[cut], faces.pixels[cut]),
            MouthMask(mask.generate[cut]),
            GeneratedFaces(generated.pixels[cut]),
        )
        # The picture's size before the warp is a mean over the batch; the scale here is the same for all.
        assert np.abs(_restore(one, region)[0].astype(int) - whole[row]).max() <= 1


@pytest.mark.parametrize("region", ["crop", "mask"])
@pytest.mark.parametrize("place", [(-300, 40), (50, 500), (1000, -1000)])
def test_a_face_outside_the_frame_changes_nothing(region: str, place: tuple[int, int]) -> None:
    work = _work(_matrix(0, 1, 1, *place))
    np.testing.assert_array_equal(_restore(work, region), work[0].pixels)


@pytest.mark.parametrize("region", ["crop", "mask"])
def test_nothing_found_nothing_to_generate_and_no_frames(region: str) -> None:
    work = _work(_matrix(0, 1, 1, 50, 40), found=[False])
    np.testing.assert_array_equal(_restore(work, region), work[0].pixels)
    assert len(_restore(_work(np.zeros((0, 2, 3))), region)) == 0
    work = _work(_matrix(0, 1, 1, 50, 40), generate=np.zeros((1, SIDE, SIDE), np.float32))
    np.testing.assert_array_equal(_restore(work, "mask"), work[0].pixels)


@pytest.mark.parametrize("region", ["crop", "mask"])
def test_the_arguments_are_left_as_they_were(region: str) -> None:
    work = _work(_matrix(0.3, 1, 1, 50, 40))
    before = [work[0].pixels.copy(), work[1].pixels.copy(), work[2].generate.copy(), work[3].pixels.copy()]
    _restore(work, region)
    after = [work[0].pixels, work[1].pixels, work[2].generate, work[3].pixels]
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("region", ["crop", "mask"])
@pytest.mark.parametrize("scale", [0.02, 8.0])
def test_tiny_and_huge_faces(region: str, scale: float) -> None:
    work = _work(_matrix(0.1, scale, 1, 50, 40))
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
