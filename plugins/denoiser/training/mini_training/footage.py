"""From clips to aligned pictures: each face cut out once, with a margin for augmentation, and its measured shapes."""

from __future__ import annotations

import csv
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from lipsync_audio.mouth_shape_numpy import MouthShapeNumpy, MouthShapeOptions
from lipsync_core.media.reader import VideoReader
from lipsync_core.types import FaceTrack, FrameBatch
from lipsync_face.facemesh_opencv import FaceMeshAligner, FaceMeshOptions
from lipsync_face.geometry import BORDER_GREY, apply
from mini_training.recipe import HELD_OUT, SIDE, ZOOM, ZOOM_CENTRE

log = logging.getLogger("train_mini")

STORED: Final = 288  # px, side of a stored picture
DETAIL: Final = 1.5  # stored pixels per crop pixel, so that a second resampling costs no sharpness
MARGIN: Final = (STORED - DETAIL * SIDE) / 2  # stored pixels around the crop
_BATCH: Final = 8


@dataclass(frozen=True)
class Clip:
    """One prepared clip: `pictures` uint8 [n, 288, 288, 3]; `shapes` float32 [n, 8], relative to the clip's median.

    Shapes are in units of the audio net's `spread`, as that net gives them. landmarks: float32 [n, 68, 2], in pixels of
    the pictures. usable: frames with a face, ascending.
    """

    name: str
    speaker: str
    licence: str
    source: str
    pictures: NDArray[np.uint8]
    shapes: NDArray[np.float32]
    landmarks: NDArray[np.float32]
    usable: NDArray[np.int64]


def aligner() -> FaceMeshAligner:
    """Return the project's own aligner, at the side of the crops."""
    return FaceMeshAligner(FaceMeshOptions(geometry="latentsync", resolution=SIDE))


def zoomed(frame_to_crop: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return LatentSync's matrices [n, 2, 3] zoomed as `mini` has them."""
    result = frame_to_crop * ZOOM
    result[:, :, 2] += (1 - ZOOM) * (np.array(ZOOM_CENTRE) * SIDE - 0.5)
    return result


def read(file: Path) -> tuple[VideoReader, list[NDArray[np.uint8]], FaceTrack]:
    """Return a clip's frames and the track of its face; the clip is one scene."""
    reader = VideoReader(file)
    batches = [batch[0] for batch in reader.batches(_BATCH)]
    (track,) = aligner().track(batches, video=reader.info)
    return reader, [picture for batch in batches for picture in batch.pixels], track


def prepare(data: Path, out: Path) -> None:
    """Write NAME.npy and NAME.json of each clip in `data` into `out`, those that are there left alone."""
    out.mkdir(parents=True, exist_ok=True)
    spread = audio_spread()
    with np.load(data / "mouth_shapes" / "mouth_shapes.npz") as measured, (data / "index.csv").open() as table:
        for line in csv.DictReader(table):
            name = Path(line["file"]).stem
            if (out / f"{name}.json").exists():
                continue
            _, frames, track = read(data / line["file"])
            matrices = np.stack([_to_stored(m) for m in zoomed(track.frame_to_crop)])
            pictures = np.stack([_stored(f, m) for f, m in zip(frames, matrices, strict=True)])
            points = apply(matrices, track.landmarks.astype(np.float64))
            shapes = measured[f"{name}.shape"].astype(np.float32)
            count = min(len(frames), len(shapes))
            about = {
                "name": name,
                "speaker": line["speaker"],
                "licence": line["licence"],
                "source": line["source"],
                "usable": np.flatnonzero(track.found[:count]).tolist(),
                "landmarks": points[:count].round(1).tolist(),
                "shapes": ((shapes - np.median(shapes, axis=0)) / spread)[:count].tolist(),
            }
            np.save(out / f"{name}.npy", pictures[:count])
            (out / f"{name}.json").write_text(json.dumps(about))
            log.info("%s: %s, %d of %d frames", name, line["speaker"], len(about["usable"]), len(frames))


def audio_spread() -> NDArray[np.float32]:
    """Return the unit of each shape number of the packaged audio net, float32 [8], in crop widths."""
    return np.asarray(MouthShapeNumpy(MouthShapeOptions()).net.spread, np.float32)


def load(folder: Path, *, held_out: bool) -> list[Clip]:
    """Return the prepared clips of the speakers held out, or of all the others."""
    clips = []
    for file in sorted(folder.glob("*.json")):
        about: dict[str, Any] = json.loads(file.read_text())
        if (about["speaker"] in HELD_OUT) != held_out:
            continue
        clips.append(
            Clip(
                name=about["name"],
                speaker=about["speaker"],
                licence=about["licence"],
                source=about["source"],
                pictures=np.load(file.with_suffix(".npy"), mmap_mode="r"),
                shapes=np.asarray(about["shapes"], np.float32),
                landmarks=np.asarray(about["landmarks"], np.float32),
                usable=np.asarray(about["usable"], np.int64),
            )
        )
    return clips


def by_speaker(clips: Sequence[Clip]) -> dict[str, list[Clip]]:
    """Return the clips of each speaker."""
    groups: dict[str, list[Clip]] = {}
    for clip in clips:
        groups.setdefault(clip.speaker, []).append(clip)
    return groups


def batches_of(frames: Sequence[NDArray[np.uint8]]) -> Iterator[FrameBatch]:
    """Yield frames as an aligner takes them."""
    for start in range(0, len(frames), _BATCH):
        yield FrameBatch(start, np.ascontiguousarray(np.stack(frames[start : start + _BATCH])))


def _to_stored(frame_to_crop: NDArray[np.float64]) -> NDArray[np.float64]:
    matrix = frame_to_crop * DETAIL
    matrix[:, 2] += (DETAIL - 1) / 2 + MARGIN
    return matrix


def _stored(frame: NDArray[np.uint8], matrix: NDArray[np.float64]) -> NDArray[np.uint8]:
    return np.asarray(
        cv2.warpAffine(
            frame,
            matrix,
            (STORED, STORED),
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=(BORDER_GREY,) * 3,
        ),
        np.uint8,
    )
