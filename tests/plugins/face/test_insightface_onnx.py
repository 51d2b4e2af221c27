"""The aligner with a detector made of numbers: the package and its models are not needed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError

from lipsync_core import landmarks as lm
from lipsync_core.errors import WeightsError
from lipsync_core.models import known
from lipsync_core.registry import State, discover
from lipsync_core.stages import FaceAligner
from lipsync_core.types import FaceTrack, FrameBatch, VideoInfo
from lipsync_face import insightface_onnx
from lipsync_face.geometry import LatentSyncGeometry
from lipsync_face.insightface_onnx import InsightFaceAligner, InsightFaceOptions, load_analysis
from lipsync_face.reference import INSIGHT_TO_IBUG, biased_fit, rounded_three_points

from .faces import face_points

H, W = 240, 320
Faces = list[list[SimpleNamespace]]


def a_face(x: float = 160, y: float = 110, *, size: float = 1.0, score: float = 0.9, **box: float) -> SimpleNamespace:
    """A face as insightface gives it, its eyes' middle at (x, y); `box` overrides width or height in px."""
    points = np.full((106, 2), (x, y))
    points[list(INSIGHT_TO_IBUG)] = face_points() * size + (x, y)
    points[[77, 83]] = np.array([(-7, 26), (7, 26)]) * size + (x, y)
    width, height = box.get("width", 100 * size), box.get("height", 120 * size)
    corners = np.array([x - width / 2, y - height / 2, x + width / 2, y + height / 2], np.float32)
    return SimpleNamespace(bbox=corners, det_score=np.float32(score), landmark_2d_106=points.astype(np.float32))


class FakeAnalysis:
    """Gives the faces of one frame after another and keeps what it was shown."""

    def __init__(self, faces: Faces) -> None:
        self._faces = iter(faces)
        self.shown: list[NDArray[np.uint8]] = []

    def get(self, image: NDArray[np.uint8]) -> list[SimpleNamespace]:
        assert image.flags.c_contiguous
        self.shown.append(image)
        return next(self._faces)


def make(monkeypatch: pytest.MonkeyPatch, faces: Faces, **options: Any) -> tuple[InsightFaceAligner, FakeAnalysis]:
    analysis = FakeAnalysis(faces)
    monkeypatch.setattr(insightface_onnx, "load_analysis", lambda root: (analysis, "2.1"))
    return InsightFaceAligner(InsightFaceOptions.model_validate(options)), analysis


def track(aligner: InsightFaceAligner, n: int, *, start: int = 7, pixels: NDArray[np.uint8] | None = None) -> FaceTrack:
    if pixels is None:
        pixels = np.full((n, H, W, 3), 128, np.uint8)

    def batches() -> Iterator[FrameBatch]:
        for first in range(0, n, 3):
            yield FrameBatch(start + first, pixels[first : first + 3])

    (whole,) = aligner.track(batches(), video=VideoInfo(W, H, Fraction(25), n, False))
    return whole


def test_reference_smoothing_is_latentsyncs(monkeypatch: pytest.MonkeyPatch, shared_reference: Path) -> None:
    """The golden video: its 106 points, its matrices, its crops."""
    golden = np.load(shared_reference / "tiny_pipeline.npz")
    faces = [[a_face()] for _ in golden["lmk106"]]
    for face, points in zip(faces, golden["lmk106"], strict=True):
        face[0].landmark_2d_106 = points + 0.25  # rounding takes it away
    aligner, _ = make(monkeypatch, faces, resolution=64, smoothing="reference")
    frames = golden["video_frames"]
    found = track(aligner, len(frames), pixels=frames)
    assert found.found.all()
    wanted = LatentSyncGeometry(64).compose(golden["affine_matrices"].astype(np.float64))
    np.testing.assert_allclose(found.frame_to_crop, wanted, atol=1e-4)
    np.testing.assert_array_equal(found.landmarks, golden["lmk106"][:, list(INSIGHT_TO_IBUG)])
    crops = aligner.crop(FrameBatch(7, frames), found).pixels
    error = np.abs(crops.astype(int) - golden["aligned_faces_chw"].transpose(0, 2, 3, 1))
    assert error.max() <= 4  # 2 with OpenCV 5, which does not round positions to 1/32 px
    assert error.mean() < 0.1


def test_reference_takes_the_largest_in_each_frame_and_carries_its_bias_over_a_gap(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    small, large = a_face(90, size=0.9), a_face(230, size=1.05)
    aligner, _ = make(monkeypatch, [[small, large], [small], [], [large, small]], smoothing="reference")
    found = track(aligner, 4)
    assert found.found.tolist() == [True, True, False, True]
    points = np.stack([face.landmark_2d_106 for face in (large, small, large)]).astype(np.float64)
    matrices, _ = biased_fit(rounded_three_points(points), LatentSyncGeometry(256).template)
    np.testing.assert_allclose(found.frame_to_crop[found.found], LatentSyncGeometry(256).compose(matrices))


def test_by_default_one_face_is_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other one gets larger, and stays alone for a while: it is never taken."""
    mine = [a_face(90 + i, size=1.0) for i in range(6)]
    other = [a_face(240, size=0.9 + 0.1 * i) for i in range(6)]
    seen = [[o, m] for m, o in zip(mine, other, strict=True)]
    seen[3] = [other[3]]
    aligner, _ = make(monkeypatch, seen)
    found = track(aligner, 6)
    assert found.found.tolist() == [True, True, True, False, True, True]
    assert (found.landmarks[found.found][:, lm.NOSE_TIP, 0] < 110).all()
    assert np.isnan(found.landmarks[3]).all()


def pictured(places: list[tuple[int, float]]) -> NDArray[np.uint8]:
    """A frame of people at these x, each with a look of its own, the later ones before the earlier."""
    frame = np.full((H, W, 3), 128, np.uint8)
    for person, x in places:
        patches = np.random.default_rng(person).integers(0, 256, (6, 6, 3), np.uint8)
        look = cv2.resize(patches, (96, 90), interpolation=cv2.INTER_CUBIC)
        left = round(x) - 48
        frame[80:170, left : left + 96] = look
    return frame


@pytest.mark.parametrize("step", [9, 65])
def test_somebody_who_passes_before_the_face_is_not_taken_for_it(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """While the other one covers it, one face is found where it was, and it is not followed away; at a run neither."""
    theirs = [*range(260, 50, -step)]
    seen, frames = [[a_face(150)]] * 3, [pictured([(1, 150)])] * 3
    for x in theirs:
        hidden = abs(x - 150) < 40
        seen.append([a_face(x)] if hidden else [a_face(x), a_face(150)])
        frames.append(pictured([(1, 150), (2, x)]))
    aligner, _ = make(monkeypatch, seen)
    found = track(aligner, len(frames), pixels=np.stack(frames))
    apart = np.abs(np.r_[[260] * 3, theirs] - 150)
    assert (apart < 40).any()
    assert not found.found[apart < 40].any()
    assert found.found[apart > 90].all()  # between the two, the one covers part of the other


def test_somebody_who_was_always_alone_is_not_asked_who_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Missed for a frame, then in another light: nobody else can have taken the place."""
    aligner, _ = make(monkeypatch, [[a_face(150)], [a_face(150)], [], [a_face(150)], [a_face(150)]])
    frames = [pictured([(1 if row < 2 else 2, 150)]) for row in range(5)]
    assert track(aligner, 5, pixels=np.stack(frames)).found.tolist() == [True, True, False, True, True]


@pytest.mark.parametrize(("face", "x"), [("left", 80), ("right", 250), ("centre", 150), (1, 150), ("largest", 250)])
def test_the_face_asked_for(monkeypatch: pytest.MonkeyPatch, face: str | int, x: int) -> None:
    three = [a_face(150, size=0.8), a_face(250, size=0.9), a_face(80, size=0.8)]
    aligner, _ = make(monkeypatch, [three] * 2, face=face)
    assert track(aligner, 2).landmarks[:, lm.NOSE_TIP, 0] == pytest.approx(x, abs=1)


def test_a_number_too_high_finds_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    aligner, _ = make(monkeypatch, [[a_face()]], face=1)
    assert not track(aligner, 1).found.any()


@pytest.mark.parametrize(
    ("face", "counts"),
    [
        (a_face(width=50, height=80), True),
        (a_face(width=49, height=100), False),
        (a_face(width=100, height=79), False),
        (a_face(width=150, height=100), True),
        (a_face(width=151, height=100), False),
        (a_face(width=50, height=250), True),
        (a_face(width=50, height=251), False),
        (a_face(score=0.5), True),
        (a_face(score=0.49), False),
    ],
)
def test_latentsyncs_filters(monkeypatch: pytest.MonkeyPatch, face: SimpleNamespace, counts: bool) -> None:
    for smoothing in ("default", "reference"):
        aligner, _ = make(monkeypatch, [[face]], smoothing=smoothing)
        assert track(aligner, 1).found.tolist() == [counts]


def test_default_smoothing_takes_the_jitter_out(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    noise = rng.integers(0, 256, (H, W, 3), np.uint8)
    faces = [[a_face()] for _ in range(24)]
    for (face,) in faces:
        face.landmark_2d_106 = face.landmark_2d_106 + rng.normal(0, 0.8, (106, 2))

    def shake(smoothing: str) -> float:
        aligner, _ = make(monkeypatch, faces, smoothing=smoothing)
        still = np.repeat(np.asarray(cv2.GaussianBlur(noise, (7, 7), 2), np.uint8)[None], 24, axis=0)
        return float(np.abs(np.diff(track(aligner, 24, pixels=still).frame_to_crop[..., 2], axis=0)).mean())

    assert shake("default") < 0.8 * shake("reference")


def test_the_channel_order_is_bgr_and_can_be_latentsyncs(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.zeros((1, H, W, 3), np.uint8)
    pixels[..., 0] = 200  # red
    for order, channel in (("bgr", 2), ("rgb", 0)):
        aligner, analysis = make(monkeypatch, [[]], channel_order=order)
        track(aligner, 1, pixels=pixels)
        assert (analysis.shown[0][..., channel] == 200).all()
        assert analysis.shown[0].sum() == 200 * H * W


def test_no_frames_and_no_face(monkeypatch: pytest.MonkeyPatch) -> None:
    aligner, _ = make(monkeypatch, [[], []])
    assert list(aligner.track([], video=VideoInfo(W, H, Fraction(25), 0, False))) == []
    nothing = track(aligner, 2)
    assert (nothing.start, nothing.found.tolist(), nothing.crop_size) == (7, [False, False], 256)
    typed: FaceAligner = aligner
    assert typed.crop_size == 256
    assert aligner.version == "2-2.1"


class _Installed:
    """Stands for the package; keeps how it was asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.made: dict[str, Any] = {}
        self.prepared: dict[str, Any] = {}
        outer = self

        class FaceAnalysis:
            def __init__(self, **how: Any) -> None:
                outer.made = how

            def prepare(self, **how: Any) -> None:
                outer.prepared = how

        package, app = ModuleType("insightface"), ModuleType("insightface.app")
        package.__version__, app.FaceAnalysis = "2.1", FaceAnalysis  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "insightface", package)
        monkeypatch.setitem(sys.modules, "insightface.app", app)


def test_the_models_are_looked_for_and_their_licence_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    installed = _Installed(monkeypatch)
    with pytest.raises(WeightsError, match=r"lacks det_10g\.onnx and 2d106det\.onnx"):
        load_analysis(tmp_path)
    for name in insightface_onnx.MODEL_FILES:
        (tmp_path / name).touch()
    _, version = load_analysis(tmp_path)
    assert version == "2.1"
    assert "non-commercial" in caplog.text
    assert installed.made == {"name": str(tmp_path), "allowed_modules": ["detection", "landmark_2d_106"]}
    assert installed.prepared == {"ctx_id": 0, "det_thresh": 0.5, "det_size": (512, 512)}
    monkeypatch.setattr(known, "folder_of", lambda name: tmp_path / name)
    load_analysis(None)
    assert installed.made["name"] == str(tmp_path / "insightface-buffalo-l")


def test_without_the_models_the_error_says_how_to_get_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _Installed(monkeypatch)
    monkeypatch.setenv("LIPSYNC_CACHE", str(tmp_path))
    monkeypatch.delenv("LIPSYNC_MODELS", raising=False)
    with pytest.raises(WeightsError, match="lipsync models pull insightface-buffalo-l"):
        load_analysis(None)


def test_the_registry_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lipsync_core.registry._present", lambda module: module != "insightface")
    (entry,) = [entry for entry in discover().entries if entry.spec.name == "insightface-onnx"]
    assert entry.state is State.MISSING
    assert 'pip install "lipsync-core[insightface]"' in entry.detail


@pytest.mark.parametrize(
    "wrong", [{"face": -1}, {"resolution": 250}, {"smoothing": "none"}, {"channel_order": "gbr"}, {"x": 1}]
)
def test_wrong_options_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        InsightFaceOptions.model_validate(wrong)
