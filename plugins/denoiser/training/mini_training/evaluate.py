"""Numbers and contact sheets of a checkpoint on the speakers held out."""

from __future__ import annotations

import csv
import json
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from lipsync_audio.mouth_shape_numpy import MouthShapeNumpy, MouthShapeOptions
from lipsync_compositor.restore_opencv import RestoreOpencv, RestoreOptions
from lipsync_core import landmarks as lm
from lipsync_core.media.audio import AudioSource
from lipsync_core.quality.metrics import MouthLook, amplitude, best_lag, pearson
from lipsync_core.types import AlignedFaces, FaceTrack, FrameBatch, GeneratedFaces, MouthMask, VideoInfo
from lipsync_denoiser.latentsync.usual import stretches, usual_row
from lipsync_face.fixed_mask import generate_area
from lipsync_face.geometry import LatentSyncGeometry, apply
from mini_training import footage
from mini_training.batches import shapes_around
from mini_training.generate import Generator
from mini_training.recipe import FPS, HELD_OUT, PASTE, SIDE, SPREAD, tokens_of

log = logging.getLogger("train_mini")

MOUTH: Final = (slice(58, 100), slice(34, 94))  # rows and columns of a crop where mouths are
OTHER_VOICE: Final = "ls_demo2_dub.wav"  # no clip's speaker, and no sentence of GRID's, which all begin alike
SHUFFLED: Final = 3  # stretches of it that a clip is measured with: two sounds can be alike by chance
_SHEET_FRAMES: Final = 8
_GREY: Final = np.array([0.299, 0.587, 0.114], np.float32)


@dataclass(frozen=True)
class Case:
    """A held-out clip: `shapes` [n, 8] measured, and `heard` [n, 8], what the packaged audio net makes of its sound."""

    name: str
    speaker: str
    frames: list[NDArray[np.uint8]]
    matrices: NDArray[np.float64]
    crops: NDArray[np.uint8]
    shapes: NDArray[np.float32]
    heard: NDArray[np.float32]
    landmarks: NDArray[np.float32]
    opening: NDArray[np.float64]
    fps: float


def cases(data: Path, prepared: Path, limit: int) -> list[Case]:
    """Read the clips of the speakers held out, at most `limit` frames of each."""
    cut, result = LatentSyncGeometry(SIDE), []
    shapes = {clip.name: clip.shapes for clip in footage.load(prepared, held_out=True)}
    with (data / "index.csv").open() as table:
        lines = [line for line in csv.DictReader(table) if line["speaker"] in HELD_OUT]
    for line in lines:
        name = Path(line["file"]).stem
        reader, frames, track = footage.read(data / line["file"])
        count = min(len(frames), len(shapes[name]), limit)
        frames, track = frames[:count], track[:count]
        matrices = footage.zoomed(track.frame_to_crop)
        crops = np.stack([cut.cut(f, m, SIDE) for f, m in zip(frames, matrices, strict=True)])
        result.append(
            Case(
                name=name,
                speaker=line["speaker"],
                frames=frames,
                matrices=matrices,
                crops=crops,
                shapes=shapes[name][:count],
                heard=hear(data / line["file"], count),
                landmarks=track.landmarks,
                opening=opening(track.landmarks, matrices),
                fps=float(reader.info.fps),
            )
        )
    return result


def hear(file: Path, count: int) -> NDArray[np.float32]:
    """Return the packaged audio net's shapes [count, 8] of a clip's own sound, at 25 a second, as `mini` has them."""
    net = MouthShapeNumpy(MouthShapeOptions(reach=0, spread=SPREAD))
    sound = AudioSource(file).blocks(net.sample_rate)
    times = np.arange(count) / FPS
    return np.concatenate([part.values[:, 0] for part in net.encode(sound, times=times)])


def opening(landmarks: NDArray[np.float32], matrices: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the inner opening [n] in crop px, of landmarks [n, 68, 2] in the frame."""
    points = apply(matrices, landmarks.astype(np.float64))
    gap: NDArray[np.float64] = points[:, lm.LOWER_LIP_INNER, 1] - points[:, lm.UPPER_LIP_INNER, 1]
    return gap


def looks(case: Case, frames: list[NDArray[np.uint8]]) -> tuple[float, float]:
    """Return flicker and sharpness of frames against the clip's own, as `lipsync bench` has them."""
    look = MouthLook()
    for index, (frame, base, points) in enumerate(zip(frames, case.frames, case.landmarks, strict=True)):
        look.add(index, frame, base, points)
    return look.flicker, look.sharpness


def paste(case: Case, crops: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    """Return the clip's frames with crops laid over them as the profile `onnx` does, with what the model asks for."""
    compositor = RestoreOpencv(RestoreOptions.model_validate(PASTE))
    result = []
    for index, crop in enumerate(crops):
        one = slice(index, index + 1)
        track = FaceTrack(index, case.matrices[one], np.array([True]), case.landmarks[one], SIDE)
        frames = FrameBatch(index, case.frames[index][None])
        mask, made = (
            MouthMask(generate_area(SIDE)[None]),
            GeneratedFaces(np.ascontiguousarray(crop[None], np.float32) / 255),
        )
        result.append(compositor.composite(frames, AlignedFaces(track, case.crops[one]), mask, made).pixels[0])
    return result


def opening_again(case: Case, frames: list[NDArray[np.uint8]]) -> NDArray[np.float64]:
    """Return the opening [n] found anew in frames, measured in the source's crops."""
    info = VideoInfo(frames[0].shape[1], frames[0].shape[0], Fraction(case.fps), len(frames), has_audio=False)
    (track,) = footage.aligner().track(footage.batches_of(frames), video=info)
    gap = opening(track.landmarks, case.matrices)
    gap[~track.found] = 0.0  # no mouth to be seen
    return gap


def psnr(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    """Return the mean over pictures, dB."""
    error = np.square(a.astype(np.float32) - b).mean(axis=(1, 2, 3))
    return float(np.mean(10 * np.log10(255**2 / np.maximum(error, 1e-3))))


def ssim(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    """Return the mean structural similarity of luma (Wang et al., 2004; Gaussian window of 1.5 px)."""
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    values = []
    for x, y in zip(a @ _GREY, b @ _GREY, strict=True):
        windows = (cv2.GaussianBlur(p, (11, 11), 1.5)[5:-5, 5:-5] for p in (x, y, x * x, y * y, x * y))
        mx, my, xx, yy, xy = windows
        top = (2 * mx * my + c1) * (2 * (xy - mx * my) + c2)
        values.append(float((top / ((mx**2 + my**2 + c1) * (xx - mx**2 + yy - my**2 + c2))).mean()))
    return float(np.mean(values))


def other_voice(data: Path) -> NDArray[np.float32]:
    """Return the packaged audio net's shapes [n, 8] of a sound that no clip's mouth has said, at 25 a second."""
    return hear(data / OTHER_VOICE, int(AudioSource(data / OTHER_VOICE).duration * FPS))


def evaluate(
    generator: Generator, clips: list[Case], voice: NDArray[np.float32], out: Path
) -> dict[str, dict[str, float]]:
    """Measure each clip; write `evaluation.json` and a contact sheet of each clip into `out`.

    voice: the shapes [n, 8] of another sound, a stretch of which stands in for a clip's own.
    """
    out.mkdir(parents=True, exist_ok=True)
    table = {}
    for case in clips:
        starts = [number * len(voice) // SHUFFLED for number in range(SHUFFLED)]
        foreign = {f"shuffled {s}": np.resize(voice[s:], case.heard.shape) for s in starts}
        wanted = {"own": case.heard, "true": case.shapes, **foreign}
        made = {name: generate(generator, case, shapes) for name, shapes in wanted.items()}
        pasted = {name: paste(case, crops) for name, crops in made.items()}
        found = {name: opening_again(case, frames) for name, frames in pasted.items()}
        mouth = {name: crops[:, *MOUTH] for name, crops in {**made, "source": case.crops}.items()}
        recoded = generator.through_autoencoder(case.crops)
        flicker, sharpness = looks(case, pasted["own"])
        table[case.name] = {
            "r_own": pearson(found["own"], case.opening),
            "r_shuffled": _mean(pearson(found[name], case.opening) for name in foreign),
            "r_foreign": _mean(pearson(shapes[:, 0], case.opening) for shapes in foreign.values()),
            "r_shuffled_asked": _mean(pearson(found[name], shapes[:, 0]) for name, shapes in foreign.items()),
            "r_true": pearson(found["true"], case.opening),
            "r_audio_net": pearson(case.heard[:, 0], case.opening),
            "r_own_asked": pearson(found["own"], case.heard[:, 0]),
            "lag_true": float(best_lag(found["true"], case.opening)),
            "lag_own": float(best_lag(found["own"], case.heard[:, 0])),
            "amplitude_true": float(found["true"].std() / case.opening.std()),
            "amplitude_own": amplitude(found["own"], case.heard[:, 0], case.opening, case.shapes[:, 0]),
            "psnr_true": psnr(mouth["true"], mouth["source"]),
            "psnr_own": psnr(mouth["own"], mouth["source"]),
            "psnr_autoencoder": psnr(recoded[:, *MOUTH], mouth["source"]),
            "ssim_true": ssim(mouth["true"], mouth["source"]),
            "ssim_own": ssim(mouth["own"], mouth["source"]),
            "ssim_autoencoder": ssim(recoded[:, *MOUTH], mouth["source"]),
            "flicker_own": flicker,
            "sharpness_own": sharpness,
            "sharpness_true": looks(case, pasted["true"])[1],
            "sharpness_autoencoder": looks(case, paste(case, recoded))[1],
        }
        log.info("%s %s", case.name, {name: round(value, 2) for name, value in table[case.name].items()})
        write_sheet(out / f"{case.name}.png", [case.crops, made["true"], made["own"]])
    table |= means({case.name: case.speaker for case in clips}, table)
    (out / "evaluation.json").write_text(json.dumps(table, indent=1))
    for name in ("mean", "mean of speakers"):
        log.info("%s %s", name, {key: round(value, 2) for key, value in table[name].items()})
    return table


def generate(generator: Generator, case: Case, shapes: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return new crops of a clip, with the references that `usual.UsualMouths` gives its stretches."""
    tokens, made = context(shapes), []
    for rows in stretches(np.arange(len(tokens))):
        made.append(generator.generate(case.crops[rows], tokens[rows], usual_row(case.opening[rows])))
    return np.concatenate(made)


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


def means(speakers: dict[str, str], table: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    """Return the mean row of each speaker's clips, of all clips, and of the speakers; `speakers` has each clip's."""

    def mean(rows: list[dict[str, float]]) -> dict[str, float]:
        return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}

    each = {
        speaker: mean([table[clip] for clip, whose in speakers.items() if whose == speaker])
        for speaker in dict.fromkeys(speakers.values())
    }
    return {**each, "mean": mean(list(table.values())), "mean of speakers": mean(list(each.values()))}


def context(shapes: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the tokens [n, 5, 40] of a clip's shapes [n, 8]."""
    return tokens_of(np.stack([shapes_around(shapes, frame) for frame in range(len(shapes))]))


def write_sheet(file: Path, rows: Iterable[NDArray[np.uint8]]) -> None:
    """Write a picture whose rows are evenly chosen frames of each sequence."""
    strips = []
    for crops in rows:
        chosen = np.linspace(0, len(crops) - 1, _SHEET_FRAMES).round().astype(int)
        strips.append(np.concatenate(crops[chosen], axis=1))
    cv2.imwrite(str(file), cv2.cvtColor(np.concatenate(strips), cv2.COLOR_RGB2BGR))
