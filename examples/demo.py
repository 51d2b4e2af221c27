"""The demo: a portrait speaks. `make demo` runs it, with nothing to download; `make demo VIDEO=… AUDIO=…` takes yours.

Writes to `demo/`: `portrait.png` and `speech.wav` (where none are given), `dubbed.mp4`, and `contact_sheet.png`, which
shows source frames above the dubbed ones.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib
import sys
import wave
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from lipsync_core.api import DubResult, dub
from lipsync_core.cli.console import progress_to
from lipsync_core.cli.run import summary
from lipsync_core.errors import InputError, LipsyncError
from lipsync_core.media.reader import VideoReader
from lipsync_core.types import FrameBatch, VideoInfo
from lipsync_face.facemesh_opencv import FaceMeshAligner, FaceMeshOptions

Image = NDArray[np.uint8]

SENTENCE: Final = "Hello! A moment ago I was only a photograph. Now lip sync moves my mouth, without a graphics card."
VOICE: Final = "en-us+f3"  # American English, espeak-ng's third female variant
WORDS_PER_MINUTE: Final = 150
PAUSE_S: Final = 0.3  # before and after the sentence

# espeak-ng's speak_lib.h
_RETRIEVAL: Final = 1
_RATE: Final = 1
_CHARS_UTF8: Final = 1
_DONT_EXIT: Final = 0x8000
_OK: Final = 0
_SynthCallback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)

COLUMNS: Final = 10
TILE: Final = 180  # px, side of one picture of the contact sheet
LABEL: Final = 26  # px, height of the line of times
ROW_TITLE: Final = 90  # px, width of the rows' names
_FACE_ZOOM: Final = 1.1  # side of a tile in face heights (brows to chin)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo and return the exit status."""
    parser = argparse.ArgumentParser(description="Make a portrait, or your own video, speak.")
    parser.add_argument("--video", type=Path, help="your own video or photograph")
    parser.add_argument("--audio", type=Path, help="your own speech")
    parser.add_argument("--profile", help="the profile to use instead of the default one")
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder to write to")
    options = parser.parse_args(arguments)
    try:
        options.out.mkdir(parents=True, exist_ok=True)
        video = options.video or write_portrait(options.out / "portrait.png")
        audio = options.audio or write_speech(options.out / "speech.wav")
        output = options.out / "dubbed.mp4"
        with progress_to(sys.stdout, quiet=False) as progress:
            result = dub(video, audio, output, profile=options.profile, overwrite=True, progress=progress)
        sheet = options.out / "contact_sheet.png"
        cv2.imwrite(str(sheet), cv2.cvtColor(contact_sheet(video, result), cv2.COLOR_RGB2BGR))
    except LipsyncError as error:
        sys.stderr.write(f"demo: {error}\n")
        return 2
    sys.stdout.write(f"{video}\n{audio}\n{sheet}\n{summary(result)}\n")
    return 0


def write_portrait(path: Path) -> Path:
    """Write the NASA portrait of Eileen Collins (public domain) that scikit-image carries, and return the path.

    It is enlarged: video holds colour at half resolution, which would grey the lips of so small a face.
    """
    picture = cv2.resize(_extra("skimage.data").astronaut(), (0, 0), fx=2, fy=2, interpolation=cv2.INTER_CUBIC)
    cv2.imwrite(str(path), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    return path


def write_speech(path: Path, text: str = SENTENCE) -> Path:
    """Write `text`, spoken, as a 16-bit mono WAV file, and return the path."""
    samples, rate = speak(text)
    samples = np.pad(samples, round(PAUSE_S * rate))  # the mouth begins and ends closed
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.astype("<i2").tobytes())
    return path


def speak(text: str) -> tuple[NDArray[np.int16], int]:
    """Return espeak-ng's speech, int16 [m], and its rate in Hz."""
    loader = _extra("espeakng_loader")
    library = ctypes.CDLL(loader.get_library_path())
    pieces: list[NDArray[np.int16]] = []

    def collect(data: Any, count: int, _events: int | None) -> int:
        if data:  # null when the text is finished
            pieces.append(np.ctypeslib.as_array(data, (count,)).copy())
        return 0

    callback = _SynthCallback(collect)
    rate = library.espeak_Initialize(_RETRIEVAL, 0, str(Path(loader.get_data_path()).parent).encode(), _DONT_EXIT)
    if rate <= 0:
        raise InputError("espeak-ng does not start.", "Reinstall the wheel espeakng-loader, or give --audio.")
    library.espeak_ng_SetRandSeed(
        ctypes.c_long(1)
    )  # its breath noise is drawn: the same text is to give the same sound
    library.espeak_SetSynthCallback(callback)
    library.espeak_SetVoiceByName(VOICE.encode())
    library.espeak_SetParameter(_RATE, WORDS_PER_MINUTE, 0)
    data = text.encode() + b"\0"
    status = library.espeak_Synth(data, ctypes.c_size_t(len(data)), 0, 0, 0, _CHARS_UTF8, None, None)
    library.espeak_Synchronize()
    library.espeak_Terminate()
    if status != _OK or not pieces:
        raise InputError("espeak-ng returned no speech.", "Give a sound file with --audio.")
    return np.concatenate(pieces), rate


def contact_sheet(video: Path, result: DubResult) -> Image:
    """Return source frames above the dubbed ones, the face zoomed, at even times, uint8 [H, W, 3]."""
    picked = np.unique(np.linspace(0, result.frames - 1, COLUMNS + 2).astype(np.int64)[1:-1])
    count = len(VideoReader(video).index())
    turn = picked % (2 * count)  # a video shorter than the sound goes forth and back
    pairs = zip(
        _frames(video, np.where(turn < count, turn, 2 * count - 1 - turn)), _frames(result.output, picked), strict=True
    )
    aligner = FaceMeshAligner(FaceMeshOptions())
    sheet = np.full((LABEL + 2 * TILE, ROW_TITLE + len(picked) * TILE, 3), 255, np.uint8)
    for row, name in enumerate(("source", "dubbed")):
        _write(sheet, name, 8, LABEL + row * TILE + TILE // 2)
    for column, (index, pair) in enumerate(zip(picked, pairs, strict=True)):
        left = ROW_TITLE + column * TILE
        _write(sheet, f"{index / result.fps:.2f} s", left + 8, LABEL - 8)
        x, y, side = _face_box(aligner, pair[0])
        for row, frame in enumerate(pair):
            tile = cv2.resize(frame[y : y + side, x : x + side], (TILE, TILE), interpolation=cv2.INTER_AREA)
            sheet[LABEL + row * TILE : LABEL + (row + 1) * TILE, left : left + TILE] = tile
    return sheet


def _face_box(aligner: FaceMeshAligner, frame: Image) -> tuple[int, int, int]:
    """Return x, y and side of the square around the face; the middle of the frame where there is none."""
    height, width = frame.shape[:2]
    (track,) = aligner.track([FrameBatch(0, frame[None])], video=VideoInfo(width, height, Fraction(25), 1, False))
    centre, side = np.array([width / 2, height / 2]), float(min(height, width))
    if track.found[0]:
        low, high = track.landmarks[0].min(axis=0), track.landmarks[0].max(axis=0)
        centre, side = (low + high) / 2, min(side, _FACE_ZOOM * float((high - low).max()))
    corner = np.clip(centre - side / 2, 0, (width - side, height - side))
    return int(corner[0]), int(corner[1]), int(side)


def _frames(path: Path, order: NDArray[np.int64]) -> Iterator[Image]:
    reader = VideoReader(path)
    return reader.in_order(reader.index(), order)


def _write(picture: Image, text: str, x: int, y: int) -> None:
    cv2.putText(picture, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1, cv2.LINE_AA)


def _extra(module: str) -> Any:
    """Import a module of the extra `demo`, or say how to get it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise InputError(
            f"The demo's own portrait and speech need {module.partition('.')[0]}, which is not installed.",
            'Run pip install "lipsync-core[demo]", or give both --video and --audio.',
        ) from error


if __name__ == "__main__":
    sys.exit(main())
