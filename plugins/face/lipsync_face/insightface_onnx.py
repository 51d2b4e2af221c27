"""The aligner `insightface-onnx`: SCRFD and the 106 points of InsightFace's buffalo_l, as LatentSync aligns faces.

The pack may not be used commercially; `facemesh-opencv` gives the same geometry without it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from lipsync_core import landmarks as lm
from lipsync_core.errors import WeightsError
from lipsync_core.models import known
from lipsync_core.paths import existing
from lipsync_core.types import AlignedFaces, FaceTrack, FrameBatch, VideoInfo
from lipsync_face.blazeface import Detection
from lipsync_face.geometry import DEFAULT_RESOLUTION, LatentSyncGeometry, fit_similarity
from lipsync_face.likeness import LIKE, likeness, look
from lipsync_face.motion import MotionMeter
from lipsync_face.reference import INSIGHT_TO_IBUG, biased_fit, rounded_three_points, three_points_106
from lipsync_face.search import choose
from lipsync_face.smoothing import smooth, smooth_steady
from lipsync_face.tracking import CROWD_S, NEAR_SQUARE, REACH, REACH_MAX, REACH_PER_S, REMEMBERED_S, SIZE_RATIO

VERSION: Final = "2"  # goes into the analysis cache's key: raise it when the same frames give other tracks
MODEL: Final = "insightface-buffalo-l"
MODEL_FILES: Final = ("det_10g.onnx", "2d106det.onnx")
INSIGHT_POINTS: Final = 106
ABSENT: Final = np.full((INSIGHT_POINTS, 2), np.nan)
STILL: Final = np.eye(2, 3)

# latentsync/utils/face_detector.py of the reference (FACTS §6)
INPUT_SIDE: Final = 512
SCORE: Final = 0.5
WIDTH_MIN, HEIGHT_MIN = 50, 80  # px
ASPECT_MIN, ASPECT_MAX = 0.2, 1.5  # width over height

_logger = logging.getLogger(__name__)


class InsightFaceOptions(BaseModel):
    """Options of `insightface-onnx`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    face: Literal["largest", "left", "right", "centre"] | Annotated[int, Field(ge=0)] = Field(
        default="largest", description="which face to dub; a number counts from the image's left, from 0"
    )
    resolution: Annotated[int, Field(ge=64, le=1024, multiple_of=8)] | None = Field(
        default=None, description="side of the crop in px; none: what the denoiser takes"
    )
    zoom: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="how much the crop is enlarged; none: what the denoiser takes"
    )
    smoothing: Literal["default", "reference"] = Field(
        default="default",
        description="default: one face followed through each shot, its points without jitter; "
        "reference: each frame by itself, the chosen face anew, as LatentSync does",
    )
    channel_order: Literal["bgr", "rgb"] = Field(
        default="bgr", description="what the models are shown: bgr, which they were trained with, or rgb as LatentSync"
    )
    root: Path | None = Field(
        default=None, description="folder of det_10g.onnx and 2d106det.onnx; the pulled pack if not given"
    )


class InsightFaceAligner:
    """Finds one face in a shot and cuts it out by LatentSync's three points."""

    def __init__(self, options: InsightFaceOptions) -> None:
        self._options = options
        self._analysis, used = load_analysis(options.root)
        self.version = f"{VERSION}-{used}"
        self._geometry = LatentSyncGeometry(options.resolution or DEFAULT_RESOLUTION, options.zoom or 1.0)
        self.crop_size: int | None = self._geometry.crop_size

    def track(self, frames: Iterable[FrameBatch], *, video: VideoInfo) -> Iterator[FaceTrack]:
        """Follow one face through the frames of one scene; yields one track when the scene ends."""
        start: int | None = None
        last: tuple[int, Detection] | None = None  # frame and place of the face followed
        count = 0
        points, motion = bytearray(), bytearray()  # that grow in place: joined at the end, arrays would be held twice
        meter = MotionMeter()
        memory = _Memory(float(video.fps))
        exact = self._options.smoothing == "reference"
        for batch in frames:
            start = batch.start if start is None else start
            for frame in batch.pixels:
                found = self._find(frame)
                if last is None or exact:
                    face = self._choose(found, frame.shape[1])
                else:
                    lost = count - last[0]  # 1: it was there in the frame before
                    memory.notice(found, last[1])
                    near = _near(found, last[1], lost / float(video.fps))
                    face = next((one for one in near if memory.is_same(frame, one, lost > 1)), None)
                step, seen = STILL, ABSENT
                if face is None:
                    meter.reset()
                elif not exact:
                    memory.learn(frame, face)
                    last = (count, face)
                    step = meter.step(frame, face.points[list(INSIGHT_TO_IBUG)])
                if face is not None:
                    seen = face.points
                points += seen.astype(np.float32).tobytes()  # as the network gave them
                motion += step.tobytes()
                count += 1
        if start is not None:
            points_of = np.frombuffer(points, np.float32).reshape(-1, INSIGHT_POINTS, 2)
            yield self._finish(start, points_of, np.frombuffer(motion).reshape(-1, 2, 3))

    def crop(self, frames: FrameBatch, track: FaceTrack) -> AlignedFaces:
        """Cut the crops of `track` (all found) out of the same frames."""
        side = track.crop_size
        pixels = np.empty((len(track), side, side, 3), np.uint8)
        for out, frame, matrix in zip(pixels, frames.pixels, track.frame_to_crop, strict=True):
            out[:] = self._geometry.cut(frame, matrix, side)
        return AlignedFaces(track, pixels)

    def _find(self, frame: NDArray[np.uint8]) -> list[Detection]:
        """Return the faces of a frame that LatentSync would accept, with their 106 points."""
        shown = frame[..., ::-1] if self._options.channel_order == "bgr" else frame
        faces = []
        for face in self._analysis.get(np.ascontiguousarray(shown)):
            box = np.asarray(face.bbox, np.float64)
            width, height = box[2] - box[0], box[3] - box[1]
            fits = width >= WIDTH_MIN and height >= HEIGHT_MIN and ASPECT_MIN <= width / height <= ASPECT_MAX
            if fits and face.det_score >= SCORE and face.landmark_2d_106 is not None:
                faces.append(Detection(box, np.asarray(face.landmark_2d_106, np.float64), float(face.det_score)))
        return faces

    def _choose(self, faces: list[Detection], width: int) -> Detection | None:
        if self._options.face == "largest":  # by area, where `choose` takes the longer side
            return max(faces, key=_area, default=None)
        return choose(faces, self._options.face, width)

    def _finish(self, start: int, points: NDArray[np.float32], motion: NDArray[np.float64]) -> FaceTrack:
        """Fit the crops: of all found frames in a row in `reference`, of smoothed runs by default."""
        found = np.asarray(np.isfinite(points.sum(axis=(1, 2))), np.bool_)
        landmarks = np.full((len(points), lm.COUNT, 2), np.nan, np.float32)
        matrices = np.zeros((len(points), 2, 3))
        for run in [found] if self._options.smoothing == "reference" else _runs(found):
            there = points[run].astype(np.float64)
            if not len(there):
                continue
            if self._options.smoothing == "reference":
                landmarks[run] = np.rint(there[:, list(INSIGHT_TO_IBUG)])
                similarities, _ = biased_fit(rounded_three_points(there), self._geometry.template)
            else:
                landmarks[run] = smooth(there[:, list(INSIGHT_TO_IBUG)], motion[run])
                three = smooth_steady(three_points_106(there), motion[run])
                similarities = fit_similarity(three, self._geometry.template)
            matrices[run] = self._geometry.compose(similarities)
        _logger.debug("face found in %d of %d frames from %d on", found.sum(), len(found), start)
        return FaceTrack(start, matrices, found, landmarks, self._geometry.crop_size)


def load_analysis(root: Path | None) -> tuple[Any, str]:
    """Return InsightFace's analysis of detector and 106 points, and the version of the package.

    root: folder of the two models; None for the pulled pack. Raises `WeightsError` where they are missing.
    """
    import insightface  # noqa: PLC0415 - slow, and only this backend needs it
    from insightface.app import FaceAnalysis  # noqa: PLC0415 - as above

    if root is None:
        folder = known.folder_of(MODEL)  # says that its licence forbids commercial use
    else:
        given = existing(root)
        absent = [name for name in MODEL_FILES if given is None or not (given / name).is_file()]
        if given is None or absent:
            raise WeightsError(
                f"{root} lacks {' and '.join(absent)}.",
                f"Give the folder of the pack, or run `lipsync models pull {MODEL}`.",
            )
        folder = given
        _logger.warning("InsightFace's models are for non-commercial research only")
    analysis = FaceAnalysis(name=str(folder), allowed_modules=["detection", "landmark_2d_106"])
    analysis.prepare(ctx_id=0, det_thresh=SCORE, det_size=(INPUT_SIDE, INPUT_SIDE))
    return analysis, str(insightface.__version__)


def _near(faces: list[Detection], last: Detection, lost_s: float) -> list[Detection]:
    """Return the faces that may be the one last seen `lost_s` seconds ago, nearest first."""
    reach = min(REACH + REACH_PER_S * lost_s, REACH_MAX) * last.size
    ranked = sorted((float(np.hypot(*(face.centre - last.centre))), row) for row, face in enumerate(faces))
    near = [faces[row] for distance, row in ranked if distance <= reach]
    return [face for face in near if max(face.size, last.size) <= SIZE_RATIO * min(face.size, last.size)]


class _Memory:
    """How the face looks, and whether somebody else may have taken its place, as `FaceTracker` asks it."""

    def __init__(self, fps: float) -> None:
        self._fps = fps
        self._look: NDArray[np.float32] | None = None
        self._company = False  # somebody else has been seen in this shot
        self._crowded = 0  # frames for which it must be looked who it is

    def notice(self, faces: list[Detection], own: Detection) -> None:
        """Take note of who else is in a frame; `own` is the face where it was last."""
        apart = [float(np.hypot(*(face.centre - own.centre))) for face in faces]
        self._company = self._company or len(faces) > 1
        beside = sum(distance < NEAR_SQUARE * own.size for distance in apart) > 1
        self._crowded = round(CROWD_S * self._fps) if beside else max(0, self._crowded - 1)

    def is_same(self, frame: NDArray[np.uint8], face: Detection, lost: bool) -> bool:
        """Say whether it is not somebody else's, which is only asked where somebody else may be."""
        seen = _look(frame, face) if self._crowded or (lost and self._company) else None
        return seen is None or self._look is None or likeness(seen, self._look) >= LIKE

    def learn(self, frame: NDArray[np.uint8], face: Detection) -> None:
        """Remember the look, while nobody else is near."""
        seen = None if self._look is not None and self._crowded else _look(frame, face)
        if seen is not None:
            share = min(1.0, 1 / (self._fps * REMEMBERED_S))
            self._look = seen if self._look is None else self._look + share * (seen - self._look)


def _look(frame: NDArray[np.uint8], face: Detection) -> NDArray[np.float32] | None:
    return look(frame, face.points[[INSIGHT_TO_IBUG[lm.EYE_OUTER_LEFT], INSIGHT_TO_IBUG[lm.EYE_OUTER_RIGHT]]])


def _area(face: Detection) -> float:
    return float(np.prod(face.box[2:] - face.box[:2]))


def _runs(found: NDArray[np.bool_]) -> list[NDArray[np.bool_]]:
    """Return a mask of each stretch in which `found` is true throughout."""
    number = np.cumsum(np.diff(found.astype(np.int8), prepend=0) > 0)
    return [found & (number == run) for run in range(1, int(number.max(initial=0)) + 1)]
