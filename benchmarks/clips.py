"""The clips of `../shared/data` and the sources and sounds made of them for the evaluation."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import av
import numpy as np
from numpy.typing import NDArray

FPS: Final = 25
RATE: Final = 44100
CHANNELS: Final = 2

Change = Callable[[av.VideoFrame], av.VideoFrame]


@dataclass(frozen=True, slots=True)
class Piece:
    """Frames `first`…`stop` − 1 of a clip at 25 frames a second, and the sound that belongs to them."""

    path: Path
    first: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.first


def clips_by_speaker(data: Path) -> dict[str, list[Piece]]:
    """Return the whole clips of each speaker, as `index.csv` lists them."""
    speakers: dict[str, list[Piece]] = {}
    with (data / "index.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            path = data / row["file"]
            speakers.setdefault(row["speaker"], []).append(Piece(path, 0, _count_frames(path)))
    return speakers


def write_video(out: Path, pieces: Sequence[Piece], change: Change | None = None) -> Path:
    """Write the pieces one after the other, picture and sound, to an .mkv all but free of loss; returns `out`.

    `change` is applied to each frame, for cutting or scaling.
    """
    with av.open(str(out), "w") as container:
        # No B-frames: packets can then be repeated by shifting their times.
        options = {"crf": "8", "preset": "veryfast", "bf": "0"}
        video = container.add_stream("libx264", rate=FPS, options=options)
        video.pix_fmt = "yuv420p"
        sound = container.add_stream("pcm_s16le", rate=RATE, layout="stereo")
        done = 0
        for piece in pieces:
            samples = np.split(_samples(piece), len(piece), axis=1)
            for frame, block in zip(_frames(piece), samples, strict=True):
                picture = change(frame) if change else frame
                if done == 0:
                    video.width, video.height = picture.width, picture.height
                picture.pts, picture.time_base = done, Fraction(1, FPS)
                picture.pict_type = av.video.frame.PictureType.NONE
                container.mux(video.encode(picture))
                container.mux(sound.encode(_audio_frame(block, done * RATE // FPS)))
                done += 1
        container.mux(video.encode(None))
        container.mux(sound.encode(None))
    return out


def write_sound(out: Path, pieces: Sequence[Piece]) -> Path:
    """Write the sound of the pieces one after the other to a .wav; returns `out`."""
    with av.open(str(out), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=RATE, layout="stereo")
        samples = np.concatenate([_samples(piece) for piece in pieces], axis=1)
        container.mux(stream.encode(_audio_frame(samples, 0)))
        container.mux(stream.encode(None))
    return out


def repeat_media(source: Path, out: Path, seconds: float) -> Path:
    """Write a file's packets again and again until it lasts `seconds`, without encoding anew; returns `out`."""
    with av.open(str(source)) as given, av.open(str(out), "w") as container:
        copies = {stream.index: container.add_stream_from_template(stream) for stream in given.streams}
        start, step = 0.0, float(Fraction(given.duration or 0, av.time_base))
        while start < seconds:
            given.seek(0)
            for packet in given.demux():
                if packet.pts is None or packet.time_base is None:
                    continue
                if start + float(packet.pts * packet.time_base) >= seconds:
                    continue
                shift = round(start / packet.time_base)
                packet.pts += shift
                packet.dts = (packet.dts + shift) if packet.dts is not None else packet.pts
                packet.stream = copies[packet.stream.index]
                container.mux(packet)
            start += step
    return out


def square_around(x: float, y: float, side: int) -> Change:
    """Return a change that cuts a square of `side` px (even) around a point, as near as the frame allows."""

    def cut(frame: av.VideoFrame) -> av.VideoFrame:
        pixels = frame.to_ndarray(format="rgb24")
        left = int(np.clip(x - side / 2, 0, max(frame.width - side, 0)))
        top = int(np.clip(y - side / 2, 0, max(frame.height - side, 0)))
        square = np.ascontiguousarray(pixels[top : top + side, left : left + side], dtype=np.uint8)
        return av.VideoFrame.from_ndarray(square, format="rgb24").reformat(format="yuv420p")

    return cut


def scaled_to(width: int, height: int) -> Change:
    """Return a change that scales each frame."""
    return lambda frame: frame.reformat(width=width, height=height, format="yuv420p")


def _count_frames(path: Path) -> int:
    with av.open(str(path)) as container:
        return sum(1 for packet in container.demux(video=0) if packet.size)


def _frames(piece: Piece) -> Iterator[av.VideoFrame]:
    with av.open(str(piece.path)) as container:
        for number, frame in enumerate(container.decode(video=0)):
            if number >= piece.stop:
                return
            if number >= piece.first:
                yield frame


def _samples(piece: Piece) -> NDArray[np.int16]:
    """Return the piece's sound, int16 [2, m] at `RATE`, exactly as long as its frames: padded with silence or cut."""
    resampler = av.AudioResampler(format="s16p", layout="stereo", rate=RATE)
    blocks: list[NDArray[Any]] = []
    with av.open(str(piece.path)) as container:
        for frame in container.decode(audio=0):
            blocks += [block.to_ndarray() for block in resampler.resample(frame)]
        blocks += [block.to_ndarray() for block in resampler.resample(None)]
    whole = np.concatenate(blocks, axis=1)
    first, stop = piece.first * RATE // FPS, piece.stop * RATE // FPS
    cut = np.zeros((CHANNELS, stop - first), np.int16)
    part = whole[:, first:stop]
    cut[:, : part.shape[1]] = part
    return cut


def _audio_frame(samples: NDArray[np.int16], start: int) -> av.AudioFrame:
    interleaved = np.ascontiguousarray(samples.T.reshape(1, -1))
    frame = av.AudioFrame.from_ndarray(interleaved, format="s16", layout="stereo")
    frame.sample_rate, frame.pts, frame.time_base = RATE, start, Fraction(1, RATE)
    return frame
