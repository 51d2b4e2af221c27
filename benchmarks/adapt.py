"""What adapting a model to a speaker changes, on frames not learnt from: `python -m benchmarks.adapt --model FOLDER`.

Each case adapts to the beginning of a clip, or to other clips of the same speaker, by the call `lipsync adapt` makes,
and generates the rest with the model as it was and as it is adapted: from the clip's own sound, from another clip's
and, where features are mouth shapes, from the measured shapes. Openings are found anew in the frames with the crops
laid back. Needs ../shared/data and torch.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.clips import Piece, write_video
from benchmarks.pairs import DATA
from lipsync_core import landmarks as lm
from lipsync_core.adapt import STEPS, adapt
from lipsync_core.analysis import Analysis
from lipsync_core.api import close_stages, make_stages
from lipsync_core.cache import content_hash
from lipsync_core.job import analysed
from lipsync_core.media.audio import AudioSource
from lipsync_core.media.reader import VideoReader
from lipsync_core.models.folder import ModelFolder, MouthShapePart
from lipsync_core.pipeline import Stages, frame_noise
from lipsync_core.progress import Silent
from lipsync_core.quality.metrics import MouthLook, amplitude, best_lag, pearson
from lipsync_core.quality.pixels import Difference
from lipsync_core.registry import discover
from lipsync_core.settings import resolve
from lipsync_core.source import encode
from lipsync_core.stages import Preparable
from lipsync_core.types import AlignedFaces, AudioFeatures, FaceTrack, FrameBatch, GeneratedFaces, VideoInfo
from lipsync_denoiser.latentsync.footage import crop_points, tokens_around

Pictures = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Case:
    """Adapted to the first `frames` of each of `sources`, one after the other; measured on `test` from `first` on."""

    speaker: str
    sources: tuple[str, ...]
    frames: int
    test: str
    first: int
    other: str  # whose sound the shuffled row has


OTHER: Final = "grid_rz_lbbc2a.mpg"
_S30: Final = ("grid_dp_s30_pgbb5p.mpg", "grid_dp_s30_pbbm3n.mpg", "grid_dp_s30_pgbb4s.mpg")
CASES: Final = (
    Case("s30", _S30[:1], 75, "grid_dp_s30_bwwy5n.mpg", 0, OTHER),
    Case("s30-9s", _S30, 75, "grid_dp_s30_bwwy5n.mpg", 0, OTHER),
    Case("uC", ("grid_rz_sbwe5n.mpg",), 43, "grid_rz_sbwe5n.mpg", 43, OTHER),
    Case("uD", ("grid_rz_sbia1a.mpg",), 43, "grid_rz_sbia1a.mpg", 43, OTHER),
    Case("ls_1", ("ls_demo1.mp4",), 150, "ls_demo1.mp4", 150, OTHER),
)
MOST_FRAMES: Final = 75  # measured
BOX_MARGIN: Final = 0.15  # around the lips


def main() -> None:
    """Measure the cases and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="a model folder or a name")
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--only", nargs="*", help="speakers")
    parser.add_argument("--set", dest="overrides", action="append", default=[], help="as of `lipsync run`")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--out", type=Path, help="folder for the models, sheets and table.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        out = options.out or Path(temporary)
        out.mkdir(parents=True, exist_ok=True)
        table = {}
        for case in CASES:
            if not options.only or case.speaker in options.only:
                table[case.speaker] = measure(case, options.data, options.model, options.overrides, options.steps, out)
                sys.stdout.write(f"{case.speaker} {json.dumps(table[case.speaker])}\n")
                sys.stdout.flush()
        (out / "table.json").write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    sys.stdout.write(as_table(table))


def measure(case: Case, data: Path, model: str, overrides: list[str], steps: int, out: Path) -> dict[str, Any]:
    """Adapt and measure one case."""
    folder = out / f"{case.speaker}-{time.time_ns()}"
    with tempfile.TemporaryDirectory() as temporary:
        pieces = [Piece(data / name, 0, case.frames) for name in case.sources]
        source = write_video(Path(temporary) / "source.mkv", pieces)
        result = adapt(source, folder, profile="torch", overrides=overrides, flags={"job.model": model}, steps=steps)
    facts: dict[str, Any] = {
        "seconds": round(result.seconds, 1),
        "peak_mb": round((result.peak_rss_bytes or 0) / 1e6),
        "held_back": [round(result.psnr_before, 2), round(result.psnr_after, 2), result.best_step],
    }
    for name, which in (("before", model), ("after", str(folder))):
        facts[name] = _measure_model(case, data, which, overrides)
    return facts


def _measure_model(case: Case, data: Path, model: str, overrides: list[str]) -> dict[str, float]:
    registry = discover()
    settings = resolve(registry, profile="torch", overrides=overrides, flags={"job.model": model})
    settings, stages = make_stages(registry, settings)
    try:
        reader = VideoReader(data / case.test)
        analysis, _ = analysed(settings, stages, reader, content_hash(reader.path), Silent())
        return _Rest(case, data, model, stages, reader, analysis).numbers()
    finally:
        close_stages(stages)


@dataclass(frozen=True, slots=True)
class _Measured:
    """The frames measured, as the whole source of a job."""

    video: VideoInfo
    all: AlignedFaces

    @property
    def scenes(self) -> tuple[range, ...]:
        return (range(len(self.all.track)),)

    @property
    def source_frames(self) -> NDArray[np.int64]:
        return np.arange(len(self.all.track))

    @property
    def output_fps(self) -> float:
        return float(self.video.fps)

    def tracks(self) -> Iterator[FaceTrack]:
        yield self.all.track

    def faces(self, frames: NDArray[np.int64] | None = None) -> Iterator[AlignedFaces]:
        for row in self.source_frames if frames is None else frames:
            yield AlignedFaces(self.all.track[row : row + 1], self.all.pixels[row : row + 1])

    def audio(self) -> Iterator[AudioFeatures] | None:
        return None

    def target_audio(self) -> Iterator[AudioFeatures]:
        return iter(())


class _Rest:
    """The frames of a clip that a model is measured on."""

    def __init__(
        self, case: Case, data: Path, model: str, stages: Stages, reader: VideoReader, analysis: Analysis
    ) -> None:
        self._stages, self._reader, self._config = stages, reader, ModelFolder.open(Path(model)).config
        (whole,) = analysis.tracks
        count = min(len(whole), case.first + MOST_FRAMES)
        self._rows = np.arange(case.first, count)
        batches = [batch.pixels for batch, _, _ in reader.batches(16)]
        self._frames = np.concatenate(batches)[case.first : count]
        self._track = FaceTrack(
            0,
            whole.frame_to_crop[self._rows],
            whole.found[self._rows],
            whole.landmarks[self._rows],
            whole.crop_size,
        )
        self._faces = stages.aligner.crop(FrameBatch(0, self._frames), self._track)
        if isinstance(stages.denoiser, Preparable):
            stages.denoiser.prepare(_Measured(reader.info, self._faces))
        times = analysis.index.times
        self._asked = {
            "own": self._heard(AudioSource(reader.path), times)[self._rows],
            "shuffled": self._heard(AudioSource(data / case.other), times[: len(self._rows)]),
        }
        if isinstance(self._config.audio, MouthShapePart):
            fps = float(reader.info.fps)
            self._asked["true"] = tokens_around(
                analysis.tracks, self._rows, fps, self._config.audio.reach, self._config.zoom
            )

    def _heard(self, sound: AudioSource, times: NDArray[np.float64]) -> NDArray[np.float32]:
        return np.concatenate([features.values for features in encode(self._stages, sound, times)])

    def numbers(self) -> dict[str, float]:
        """Return the figures of the three ways to drive the mouth."""
        truth = self._opening(self._track.landmarks)
        box = self._box()
        source = self._faces.pixels[:, *box]
        result: dict[str, float] = {}
        for name, features in self._asked.items():
            crops, frames = self._generate(features)
            found = self._found(frames)
            result[f"r_{name}"] = pearson(found, truth)
            result[f"r_{name}_asked"] = pearson(found, _openings(features))
            result[f"amplitude_{name}"] = self._amplitude(found, features, truth)
            result[f"lag_{name}"] = best_lag(found, truth)
            if name == "shuffled":
                continue
            look, pixels = MouthLook(), Difference()
            for index, (frame, base, points) in enumerate(
                zip(frames, self._frames, self._track.landmarks, strict=True)
            ):
                look.add(index, frame, base, points)
            for made, real in zip(crops[:, *box], source, strict=True):
                pixels.add(np.ascontiguousarray(made), np.ascontiguousarray(real))
            result[f"psnr_{name}"], result[f"ssim_{name}"] = pixels.psnr, pixels.ssim
            result[f"sharpness_{name}"], result[f"flicker_{name}"] = look.sharpness, look.flicker
        result |= self.another_mouth() | self.unasked(truth)
        return {name: round(float(value), 3) for name, value in result.items()}

    def another_mouth(self) -> dict[str, float]:
        """Return figures with the mouth of a distant frame in each frame, so that nothing can be copied.

        As in dubbing, where what the mouth is asked for is not what the frame shows; the truth is still known.
        """
        features = self._asked.get("true", self._asked["own"])
        faces, count = self._faces, len(self._frames)
        generate = self._stages.masker.mask(faces).generate[..., None] > 0
        others = faces.pixels[(np.arange(count) + count // 2) % count]
        crops = self._made(features, np.where(generate, others, faces.pixels))
        pixels, box = Difference(), self._box()
        for made, real in zip(crops[:, *box], faces.pixels[:, *box], strict=True):
            pixels.add(np.ascontiguousarray(made), np.ascontiguousarray(real))
        return {"psnr_another_mouth": pixels.psnr, "ssim_another_mouth": pixels.ssim}

    def unasked(self, truth: NDArray[np.float64]) -> dict[str, float]:
        """Return how far a mouth asked for one shape throughout still moves, over how far the true one did.

        Only what is around the mask tells it of the moment: in dubbing it tells of what is no longer said.
        """
        if "true" not in self._asked:
            return {}
        usual = np.median(self._asked["own"], axis=0, keepdims=True).repeat(len(truth), axis=0)
        _, frames = self._generate(usual)
        return {"moved_unasked": float(self._found(frames).std() / truth.std())}

    def _amplitude(self, found: NDArray[np.float64], asked: NDArray[np.float32], truth: NDArray[np.float64]) -> float:
        """Return how far the mouth moved over how far it was asked to, or, without shapes, over the true mouth."""
        true = self._asked.get("true")
        if true is None:
            return float(found.std() / truth.std())
        return amplitude(found, _openings(asked), truth, _openings(true))

    def _generate(self, features: NDArray[np.float32]) -> tuple[Pictures, Pictures]:
        """Return generated crops and the frames they are laid over."""
        crops, frames = self._made(features, self._faces.pixels), []
        for rows in self._chunks():
            faces = AlignedFaces(self._track[rows], np.ascontiguousarray(self._faces.pixels[rows]))
            mask = self._stages.masker.mask(faces)
            made = GeneratedFaces(crops[rows].astype(np.float32) / np.float32(255))
            batch = FrameBatch(rows.start, np.ascontiguousarray(self._frames[rows]))
            frames.append(self._stages.compositor.composite(batch, faces, mask, made).pixels)
        return crops, np.concatenate(frames)

    def _made(self, features: NDArray[np.float32], crops: Pictures) -> Pictures:
        """Return what the model makes of crops."""
        denoiser, results = self._stages.denoiser, []
        assert denoiser.latent_shape is not None
        for rows in self._chunks():
            faces = AlignedFaces(self._track[rows], np.ascontiguousarray(crops[rows]))
            mask = self._stages.masker.mask(faces)
            noise = frame_noise(0, rows.start, len(faces.track), denoiser.latent_shape, same_start=True)
            sound = AudioFeatures(rows.start, np.ascontiguousarray(features[rows]))
            made = denoiser.generate(faces, mask, sound, noise).pixels
            results.append(np.clip(np.rint(made * 255), 0, 255).astype(np.uint8))
        return np.concatenate(results)

    def _chunks(self) -> list[slice]:
        size, count = self._stages.denoiser.max_frames, len(self._frames)
        return [slice(start, min(start + size, count)) for start in range(0, count, size)]

    def _found(self, frames: Pictures) -> NDArray[np.float64]:
        """Return the opening found anew."""
        batches = [FrameBatch(0, frames)]
        (track,) = self._stages.aligner.track(iter(batches), video=self._reader.info)
        gap = self._opening(track.landmarks)
        gap[~track.found] = 0.0  # no mouth to be seen
        return gap

    def _opening(self, landmarks: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the inner opening in px of the source's crops."""
        track = self._track
        points = crop_points(FaceTrack(0, track.frame_to_crop, track.found, landmarks, track.crop_size))
        gap: NDArray[np.float64] = points[:, lm.LOWER_LIP_INNER, 1] - points[:, lm.UPPER_LIP_INNER, 1]
        return gap

    def _box(self) -> tuple[slice, slice]:
        lips = crop_points(self._track)[:, lm.LIPS].reshape(-1, 2)
        low, high = lips.min(0), lips.max(0)
        margin = BOX_MARGIN * (high - low)
        (left, top), (right, bottom) = (low - margin).astype(int), np.ceil(high + margin).astype(int)
        return slice(max(top, 0), bottom), slice(max(left, 0), right)


def _openings(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the opening [n], a shape's first number, of the tokens in the middle."""
    middle = features.shape[1] // 2
    return features[:, middle, middle * (features.shape[2] // features.shape[1])]


def as_table(table: dict[str, dict[str, Any]]) -> str:
    """Return the table as Markdown."""
    lines = ["| | " + " | ".join(table) + " |", "|---" * (len(table) + 1) + "|"]
    names = list(next(iter(table.values()))["before"])
    for name in names:
        cells = [f"{row['before'][name]:.2f} → {row['after'][name]:.2f}" for row in table.values()]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines.append("| seconds | " + " | ".join(str(row["seconds"]) for row in table.values()) + " |")
    lines.append("| peak, MB | " + " | ".join(str(row["peak_mb"]) for row in table.values()) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
