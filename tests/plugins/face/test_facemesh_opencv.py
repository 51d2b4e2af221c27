"""The aligner on real clips, a few frames each."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError

from lipsync_core import landmarks as lm
from lipsync_core.errors import WeightsError
from lipsync_core.models import store
from lipsync_core.types import FaceTrack, FrameBatch, VideoInfo
from lipsync_face.facemesh_opencv import VERSION, FaceMeshAligner, FaceMeshOptions

pytestmark = pytest.mark.facemodel


@pytest.fixture(scope="module", autouse=True)
def model() -> Path:
    try:
        return store.locate("face-landmarker", download=False)
    except WeightsError as error:
        pytest.skip(str(error))


def read(path: Path, frames: int) -> NDArray[np.uint8]:
    with av.open(str(path)) as container:
        decoded = (frame.to_ndarray(format="rgb24") for frame in container.decode(video=0))
        return np.stack([frame for frame, _ in zip(decoded, range(frames), strict=False)])


def batches(pixels: NDArray[np.uint8], start: int = 0, size: int = 5) -> Iterator[FrameBatch]:
    for first in range(0, len(pixels), size):
        yield FrameBatch(start + first, np.ascontiguousarray(pixels[first : first + size]))


def track(aligner: FaceMeshAligner, pixels: NDArray[np.uint8], start: int = 0) -> FaceTrack:
    height, width = pixels.shape[1:3]
    video = VideoInfo(width, height, Fraction(25), len(pixels), False)
    (whole,) = aligner.track(batches(pixels, start), video=video)
    return whole


@pytest.fixture(scope="module")
def anna(shared_data: Path) -> NDArray[np.uint8]:
    return read(shared_data / "grid_rz_sbwe5n.mpg", 24)


@pytest.fixture(scope="module")
def ben(shared_data: Path) -> NDArray[np.uint8]:
    return read(shared_data / "grid_dp_s30_pbbm3n.mpg", 24)


@pytest.fixture(scope="module")
def aligner() -> FaceMeshAligner:
    return FaceMeshAligner(FaceMeshOptions())


@pytest.fixture(scope="module")
def annas_track(aligner: FaceMeshAligner, anna: NDArray[np.uint8]) -> FaceTrack:
    return track(aligner, anna, start=100)


def test_every_frame_of_a_plain_clip_is_found(annas_track: FaceTrack, anna: NDArray[np.uint8]) -> None:
    assert annas_track.start == 100
    assert len(annas_track) == len(anna)
    assert annas_track.found.all()


def test_the_points_sit_where_their_names_say(annas_track: FaceTrack) -> None:
    points = annas_track.landmarks[0]
    eyes = points[lm.EYE_OUTER_RIGHT, 0] - points[lm.EYE_OUTER_LEFT, 0]
    assert 50 < eyes < 100  # this face is about 132 px high
    x, y = points.T
    assert y[lm.BROW_LEFT].mean() < y[lm.EYE_LEFT].mean() < y[lm.NOSE_BOTTOM] < y[lm.UPPER_LIP_TOP]
    assert y[lm.UPPER_LIP_TOP] < y[lm.UPPER_LIP_INNER] <= y[lm.LOWER_LIP_INNER] < y[lm.LOWER_LIP_BOTTOM] < y[lm.CHIN]
    assert x[lm.MOUTH_LEFT] < x[lm.INNER_LEFT] < x[lm.NOSE_TIP] < x[lm.INNER_RIGHT] < x[lm.MOUTH_RIGHT]
    assert x[lm.EYE_OUTER_LEFT] < x[lm.EYE_INNER_LEFT] < x[lm.EYE_INNER_RIGHT] < x[lm.EYE_OUTER_RIGHT]
    assert (np.diff(x[2:15]) > 0).all()
    gaps = np.linalg.norm(np.diff(points[lm.JAW], axis=0), axis=1)
    assert gaps.max() < 2.5 * gaps.min()
    for lip in (lm.OUTER_LIP, lm.INNER_LIP):  # clockwise as one sees it
        a, b = points[lip], np.roll(points[lip], -1, axis=0)
        assert (a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).sum() > 0


def test_the_inner_lip_opens_with_the_mouth(shared_data: Path, aligner: FaceMeshAligner) -> None:
    clip = read(shared_data / "grid_rz_lrwp9a.mpg", 75)[::3]
    points = track(aligner, clip).landmarks
    opening = np.linalg.norm(points[:, lm.LOWER_LIP_INNER] - points[:, lm.UPPER_LIP_INNER], axis=1)
    assert opening.min() < 1
    assert opening.max() > 8
    frame, face = clip[opening.argmax()], points[opening.argmax()]
    hole = cv2.fillPoly(np.zeros(frame.shape[:2], np.uint8), [np.rint(face[lm.INNER_LIP]).astype(np.int32)], 1)
    lips = cv2.fillPoly(np.zeros(frame.shape[:2], np.uint8), [np.rint(face[lm.OUTER_LIP]).astype(np.int32)], 1)
    red = frame[..., 0].astype(int) - frame[..., 1]
    assert red[(lips == 1) & (hole == 0)].mean() > red[hole == 1].mean()  # lips are redder than what is between


def test_native_crops_are_the_frames_own_pixels(
    aligner: FaceMeshAligner, anna: NDArray[np.uint8], annas_track: FaceTrack
) -> None:
    assert aligner.crop_size is None
    side = annas_track.crop_size
    faces = aligner.crop(FrameBatch(100, anna[:4]), annas_track[:4])
    assert faces.pixels.shape == (4, side, side, 3)
    x, y = (-annas_track.frame_to_crop[0, :, 2]).astype(int)
    inside = anna[0, max(y, 0) : y + side, max(x, 0) : x + side]
    cut = faces.pixels[0, max(-y, 0) : max(-y, 0) + inside.shape[0], max(-x, 0) : max(-x, 0) + inside.shape[1]]
    assert (cut == inside).all()
    assert inside.size > 0.5 * side * side * 3


def test_latentsync_crops_put_every_face_at_the_same_place(anna: NDArray[np.uint8], ben: NDArray[np.uint8]) -> None:
    aligner = FaceMeshAligner(FaceMeshOptions(geometry="latentsync", resolution=128))
    assert aligner.crop_size == 128
    mouths = []
    for clip in (anna[:3], ben[:3]):
        found = track(aligner, clip)
        assert found.crop_size == 128
        assert aligner.crop(FrameBatch(0, clip), found).pixels.shape == (3, 128, 128, 3)
        lips = found.landmarks[0, lm.LIPS].mean(axis=0)
        mouths.append(found.frame_to_crop[0, :, :2] @ lips + found.frame_to_crop[0, :, 2])
    for mouth in mouths:
        assert mouth == pytest.approx((64, 82), abs=10)


@pytest.mark.parametrize(("face", "right"), [("left", False), ("right", True), (0, False), (1, True)])
def test_one_of_two_people_is_chosen(
    anna: NDArray[np.uint8], ben: NDArray[np.uint8], face: str | int, right: bool
) -> None:
    pair = np.concatenate([anna[:3], ben[:3]], axis=2)
    found = track(FaceMeshAligner(FaceMeshOptions.model_validate({"face": face})), pair)
    assert found.found.all()
    assert ((found.landmarks[:, lm.NOSE_TIP, 0] > anna.shape[2]) == right).all()


def test_a_face_that_hides_is_found_again_and_the_other_never_taken(
    aligner: FaceMeshAligner, anna: NDArray[np.uint8], ben: NDArray[np.uint8]
) -> None:
    pair = np.concatenate([anna[:12], ben[:12]], axis=2)
    pair[4:8, :, : anna.shape[2]] = 90
    found = track(FaceMeshAligner(FaceMeshOptions(face="left")), pair)
    assert found.found.tolist() == [True] * 4 + [False] * 4 + [True] * 4
    assert (found.landmarks[found.found][:, :, 0] < anna.shape[2]).all()


def test_no_face_is_no_error(aligner: FaceMeshAligner) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (2, 120, 160, 3), np.uint8)
    found = track(aligner, noise)
    assert not found.found.any()
    assert len(found) == 2
    empty = aligner.crop(FrameBatch(0, noise[:0]), found[:0])
    assert len(empty.pixels) == 0


@pytest.mark.parametrize("size", [(16, 16), (1, 1), (33, 17), (2, 300)])
def test_odd_and_tiny_frames_are_no_error(aligner: FaceMeshAligner, size: tuple[int, int]) -> None:
    assert len(track(aligner, np.full((2, *size, 3), 128, np.uint8))) == 2


def test_no_frames_give_no_track(aligner: FaceMeshAligner) -> None:
    assert list(aligner.track([], video=VideoInfo(10, 10, Fraction(25), 0, False))) == []


@pytest.mark.parametrize("height", [40, 90])
def test_a_small_face_in_a_large_frame_is_found(aligner: FaceMeshAligner, ben: NDArray[np.uint8], height: int) -> None:
    scale = height / 132
    small = cv2.resize(ben[0], None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    frame = np.full((720, 1280, 3), 100, np.uint8)
    frame[400 : 400 + small.shape[0], 900 : 900 + small.shape[1]] = small
    found = track(aligner, frame[None])
    assert found.found.all()
    assert (found.landmarks[0] > (900, 400)).all()


def test_a_large_frame_gives_the_same_points_enlarged(aligner: FaceMeshAligner, ben: NDArray[np.uint8]) -> None:
    large = np.stack([cv2.resize(frame, None, fx=6, fy=6, interpolation=cv2.INTER_CUBIC) for frame in ben[:2]])
    a, b = track(aligner, ben[:2]).landmarks, track(aligner, large).landmarks
    assert np.abs((b + 0.5) / 6 - 0.5 - a).mean() < 0.5


def test_a_track_does_not_depend_on_the_one_before(
    aligner: FaceMeshAligner, anna: NDArray[np.uint8], ben: NDArray[np.uint8], annas_track: FaceTrack
) -> None:
    track(aligner, ben[:3])
    again = track(aligner, anna, start=100)
    assert (again.landmarks == annas_track.landmarks).all()
    assert (again.frame_to_crop == annas_track.frame_to_crop).all()


def test_tracking_is_steadier_than_detecting_each_frame(aligner: FaceMeshAligner, ben: NDArray[np.uint8]) -> None:
    def jitter(points: NDArray[np.float32]) -> float:
        return float(np.linalg.norm(np.diff(points, 2, axis=0), axis=-1).mean())

    each = np.concatenate([track(aligner, frame[None]).landmarks for frame in ben[:16]])
    assert jitter(track(aligner, ben[:16]).landmarks) < 0.8 * jitter(each)


def test_the_version_names_the_model(aligner: FaceMeshAligner, model: Path) -> None:
    assert aligner.version.startswith(f"{VERSION}-64184e22")
    assert FaceMeshAligner(FaceMeshOptions(weights=model)).version == aligner.version


def test_a_file_that_is_no_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="does not exist"):
        FaceMeshAligner(FaceMeshOptions(weights=tmp_path / "absent.task"))


@pytest.mark.parametrize(
    "wrong", [{"face": -1}, {"face": "middle"}, {"resolution": 250}, {"geometry": "square"}, {"min_score": 1}, {"x": 1}]
)
def test_wrong_options_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        FaceMeshOptions.model_validate(wrong)
