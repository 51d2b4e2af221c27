"""Which sources are dubbed with which sounds in the evaluation, made from the clips of `../shared/data`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Final

from benchmarks.clips import FPS, Piece, clips_by_speaker, square_around, write_sound, write_video
from benchmarks.job import Job
from lipsync_audio.conv_net import load_net

DATA: Final = Path(__file__).resolve().parents[2] / "shared" / "data"
"""The clips beside the checkout."""

SHIPPED: Final = "shipped"
FOLDS: Final = {
    SHIPPED: ("grid_s30", "grid_uC", "grid_uD", "ls_1"),
    "a": ("grid_s1", "grid_s2", "ls_2"),
    "b": ("grid_uF", "grid_uG", "grid_uH", "grid_uI"),
}
"""Speakers that each audio net was trained without: the packaged one, and those given with `--weights`."""

SOURCE_CLIPS, SOUND_CLIPS = 6, 4  # of a speaker with that many: dubbed one way round only
SHORT: Final = 4 * FPS  # frames; halves of a shorter clip make a poor source and a poor sound
ADAPTED: Final = ("adapted", "shuffled")  # kinds of job with own-voice adaptation, which is the default
OTHER_VOICE: Final = "ls_demo2_dub.wav"  # no clip's speaker: what the shuffled row dubs with

# The portrait clip that speed is measured on, and where its face is: a square of 512 px holds head and shoulders.
SPEED_CLIP: Final = "ls_demo1.mp4"
SPEED_SIDE: Final = 512
SPEED_CENTRE: Final = (600, 730)
SPEED_SOUND: Final = "ls_demo1_dub.wav"


def speakers_seen(weights: Path | None) -> frozenset[str]:
    """Return the speakers that a net (None: the packaged one) was trained on, as its file says."""
    packaged = files("lipsync_audio") / "data" / "mouth_shape.npz"
    return frozenset(load_net(packaged if weights is None else weights).metadata.get("speakers", ()))


@dataclass(frozen=True, slots=True)
class Pair:
    """A source and a sound, the sound's speaker, and the pieces whose mouths really said it.

    borrowed: the source shows somebody else.
    """

    name: str
    speaker: str
    fold: str
    video: Path
    audio: Path
    truth: tuple[Piece, ...]
    borrowed: bool = False


def make_pairs(data: Path, folder: Path, folds: Mapping[str, Path | None], only: frozenset[str]) -> list[Pair]:
    """Write the sources and sounds of every speaker of `folds` (of `only`, where not empty) to `folder`.

    A speaker with many clips: some, end to end, are the source, others the sound. Two or more: half of the clips are
    the source, the rest the sound, and the other way round. One: its halves in time, both ways round; and where that
    clip is short, also the whole of it on the face of another such speaker.
    """
    clips = clips_by_speaker(data)
    pairs = []
    for fold in folds:
        short = [speaker for speaker in FOLDS[fold] if len(clips[speaker]) == 1 and len(clips[speaker][0]) < SHORT]
        for speaker in FOLDS[fold]:
            if only and speaker not in only:
                continue
            splits = _splits(clips[speaker])
            if speaker in short:
                face = short[(short.index(speaker) + 1) % len(short)]
                splits.append((tuple(clips[face]), tuple(clips[speaker])))
            for number, (source, sound) in enumerate(splits):
                name = f"{speaker}_{number}"
                video = write_video(folder / f"{name}_source.mkv", source)
                audio = write_sound(folder / f"{name}_sound.wav", sound)
                borrowed = source[0].path not in {piece.path for piece in clips[speaker]}
                pairs.append(Pair(name, speaker, fold, video, audio, sound, borrowed))
    return pairs


def _splits(clips: list[Piece]) -> list[tuple[tuple[Piece, ...], tuple[Piece, ...]]]:
    if len(clips) >= SOURCE_CLIPS + SOUND_CLIPS:
        return [(tuple(clips[:SOURCE_CLIPS]), tuple(clips[SOURCE_CLIPS : SOURCE_CLIPS + SOUND_CLIPS]))]
    if len(clips) == 1:
        (whole,) = clips
        middle = len(whole) // 2
        clips = [Piece(whole.path, 0, middle), Piece(whole.path, middle, len(whole))]
    first, second = tuple(clips[: len(clips) // 2]), tuple(clips[len(clips) // 2 :])
    return [(first, second), (second, first)]


def jobs_of(pair: Pair, data: Path, folder: Path, weights: Path | None) -> dict[str, Job]:
    """Return the jobs of a pair by kind.

    `adapted`, `plain` (own-voice adaptation off) and `shuffled` (another sound), or `borrowed` where the face is.
    """
    net = () if weights is None else (f"audio.options.weights={weights}",)
    other = (Piece(data / OTHER_VOICE, 0, sum(map(len, pair.truth))),)
    shuffled = write_sound(folder / f"{pair.name}_other.wav", other)
    sounds = {"adapted": pair.audio, "plain": pair.audio, "shuffled": shuffled}
    if pair.borrowed:
        sounds = {"borrowed": pair.audio}
    return {
        kind: Job(
            name=f"{pair.name} {kind}",
            video=pair.video,
            audio=sound,
            output=folder / f"{pair.name}_{kind}.mp4",
            overrides=(*net, f"denoiser.options.own_voice={str(kind in ADAPTED).lower()}"),
            truth=pair.truth,
        )
        for kind, sound in sounds.items()
    }


def speed_jobs(data: Path, folder: Path) -> dict[str, Job]:
    """Return one job for each size that speed is measured at, not watched."""
    clip = data / SPEED_CLIP
    square = folder / "speed_512.mkv"
    piece = Piece(clip, 0, 10 * FPS)
    write_video(square, [piece], square_around(*SPEED_CENTRE, SPEED_SIDE))
    return {
        size: Job(name=size, video=video, audio=data / SPEED_SOUND, output=folder / f"speed_{size}.mp4", watch=False)
        for size, video in (("512x512", square), ("1080x1920", clip))
    }
