"""The aligner `facemesh-opencv`: MediaPipe's Face Landmarker models, followed through a shot, run by OpenCV."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from lipsync_core import landmarks as lm
from lipsync_core.models import store
from lipsync_core.types import AlignedFaces, FaceTrack, FrameBatch, VideoInfo
from lipsync_face.blazeface import BlazeFace
from lipsync_face.geometry import DEFAULT_RESOLUTION, LatentSyncGeometry, NativeGeometry
from lipsync_face.mesh import MESH_TO_IBUG, FaceMesh
from lipsync_face.motion import MotionMeter
from lipsync_face.smoothing import smooth
from lipsync_face.tracking import FaceTracker

VERSION: Final = "3"  # goes into the analysis cache's key: raise it when the same frames give other tracks
ABSENT: Final = np.full((lm.COUNT, 2), np.nan)
STILL: Final = np.eye(2, 3)
WEIGHT: Final = "face-landmarker"
DETECTOR_MEMBER: Final = "face_detector.tflite"
MESH_MEMBER: Final = "face_landmarks_detector.tflite"

_logger = logging.getLogger(__name__)


class FaceMeshOptions(BaseModel):
    """Options of `facemesh-opencv`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    face: Literal["largest", "left", "right", "centre"] | Annotated[int, Field(ge=0)] = Field(
        default="largest", description="which face to dub; a number counts from the image's left, from 0"
    )
    geometry: Literal["native", "latentsync"] = Field(
        default="native",
        description="native: a square of the frame's own pixels; latentsync: its three-point alignment",
    )
    resolution: Annotated[int, Field(ge=64, le=1024, multiple_of=8)] | None = Field(
        default=None, description="side of the crop in px, for geometry latentsync; none: what the denoiser takes"
    )
    zoom: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="of the crop, for geometry latentsync; the denoiser's where it is not given"
    )
    min_score: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=0.5, description="detections with a lower score, 0…1, are ignored"
    )
    weights: Path | None = Field(default=None, description="a face_landmarker.task file; found or fetched if not given")


class FaceMeshAligner:
    """Finds one face in a shot, follows it, and cuts it out."""

    def __init__(self, options: FaceMeshOptions) -> None:
        self._options = options
        self._task = store.locate(WEIGHT, options.weights)
        self.version = f"{VERSION}-{store.sha256(self._task)[:12]}"
        self._geometry = (
            NativeGeometry()
            if options.geometry == "native"
            else LatentSyncGeometry(options.resolution or DEFAULT_RESOLUTION, options.zoom or 1.0)
        )

    @property
    def crop_size(self) -> int | None:
        """Side of the crops, px; None for the native geometry."""
        return self._geometry.crop_size

    def track(self, frames: Iterable[FrameBatch], *, video: VideoInfo) -> Iterator[FaceTrack]:
        """Follow one face through the frames of one scene; yields one track when the scene ends."""
        tracker = FaceTracker(
            BlazeFace(store.unpack(self._task, DETECTOR_MEMBER), self._options.min_score),
            FaceMesh(store.unpack(self._task, MESH_MEMBER)),
            self._options.face,
            float(video.fps),
        )
        meter = MotionMeter()
        start: int | None = None
        # Two buffers that grow in place: joined at the end, arrays would be held twice, 54 MB for an hour's shot.
        landmarks, motion = bytearray(), bytearray()
        for batch in frames:
            start = batch.start if start is None else start
            for frame in batch.pixels:
                mesh = tracker.step(frame)
                if mesh is None:
                    meter.reset()
                    points, step = ABSENT, STILL
                else:
                    points = mesh[list(MESH_TO_IBUG)]
                    step = meter.step(frame, points)
                landmarks += points.astype(np.float32).tobytes()
                motion += step.tobytes()
        if start is not None:
            points_of = np.frombuffer(landmarks, np.float32).reshape(-1, lm.COUNT, 2)
            yield self._finish(start, points_of, np.frombuffer(motion).reshape(-1, 2, 3))

    def crop(self, frames: FrameBatch, track: FaceTrack) -> AlignedFaces:
        """Cut the crops of `track` (all found) out of the same frames."""
        side = track.crop_size
        pixels = np.empty((len(track), side, side, 3), np.uint8)
        for out, frame, matrix in zip(pixels, frames.pixels, track.frame_to_crop, strict=True):
            out[:] = self._geometry.cut(frame, matrix, side)
        return AlignedFaces(track, pixels)

    def _finish(self, start: int, landmarks: NDArray[np.float32], motion: NDArray[np.float64]) -> FaceTrack:
        """Smooth each run of found frames, in place, and fit the crops."""
        found = np.asarray(np.isfinite(landmarks.sum(axis=(1, 2))), np.bool_)
        for run in _runs(found):
            smooth(landmarks[run], motion[run], out=landmarks[run])
        frame_to_crop, side = self._geometry.fit(landmarks)
        _logger.debug("face found in %d of %d frames from %d on", found.sum(), len(found), start)
        return FaceTrack(start, frame_to_crop, found, landmarks, side)


def _runs(found: NDArray[np.bool_]) -> list[slice]:
    """Return the slices in which `found` is true throughout."""
    edges = np.flatnonzero(np.diff(np.r_[False, found, False].astype(np.int8)))
    return [slice(int(a), int(b)) for a, b in edges.reshape(-1, 2)]
