"""New sound of every rate, channel count, sample form and codec; and what each container makes of it."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import av
import numpy as np
from numpy.typing import NDArray

from tests.core.media.conftest import Clips

from .case import Case, Made, steady

_GROUP: Final = "Sound"
_RATES: Final = (8000, 11025, 16000, 22050, 32000, 44100, 48000, 88200, 96000, 176400, 192000)
_LAYOUTS: Final = {"mono": 1, "stereo": 2, "2.1": 3, "4.0": 4, "5.0": 5, "5.1": 6, "6.1": 7, "7.1": 8}
_FORMS: Final = {
    "8-bit integer": "pcm_u8",
    "16-bit integer": "pcm_s16le",
    "24-bit integer": "pcm_s24le",
    "32-bit integer": "pcm_s32le",
    "32-bit float": "pcm_f32le",
    "64-bit float": "pcm_f64le",
    "A-law": "pcm_alaw",
    "µ-law": "pcm_mulaw",
}
_CODECS: Final = {
    "MP3": ("say.mp3", "libmp3lame", 44100),
    "AAC in M4A": ("say.m4a", "aac", 44100),
    "AAC, bare": ("say.aac", "aac", 44100),
    "FLAC": ("say.flac", "flac", 44100),
    "Opus in OGG": ("say.ogg", "libopus", 48000),
    "Opus in WEBM": ("say.webm", "libopus", 48000),
    "ALAC in M4A": ("say.m4a", "alac", 44100),
    "AC-3": ("say.ac3", "ac3", 48000),
    "E-AC-3": ("say.eac3", "eac3", 48000),
    "MP3 in MKV": ("say.mkv", "libmp3lame", 44100),
    "AIFF": ("say.aiff", "pcm_s16be", 44100),
}
_SECONDS: Final = 0.6


def _under(clips: Clips, sound: Path, seconds: float, output: str = "out.mp4") -> Made:
    """A video as long as the sound: 25 fps, of which there are at most 50 frames."""
    n = max(1, math.floor(seconds * 25 + 0.5))
    return Made(clips.video("in.mp4", n=n), sound, range(n), steady(n), output)


def _pcm(clips: Clips, codec: str, rate: int, layout: str, output: str = "out.mp4") -> Made:
    sound = clips.sound("say.wav", clips.tone(_SECONDS, rate, _LAYOUTS[layout]), codec, rate, layout)
    return _under(clips, sound, _SECONDS, output)


def _coded(clips: Clips, file: str, codec: str, rate: int, output: str = "out.mp4") -> Made:
    # Bare AAC does not say which samples of its first and last block are sound.
    extra = 0.05 if file.endswith(".aac") else 0.0
    return _under(clips, clips.sound(file, clips.tone(_SECONDS, rate, 1), codec, rate), _SECONDS + extra, output)


def _level(path: Path) -> float:
    """Return the root mean square of a file's sound, 1 is full scale."""
    with av.open(str(path)) as container:
        resampler = av.AudioResampler("flt", "mono", 48000)
        parts = [r.to_ndarray() for f in container.decode(audio=0) for r in resampler.resample(f)]
    return float(np.sqrt(np.mean(np.concatenate(parts, axis=1) ** 2)))


def _heard(made: Made, output: Path) -> None:
    """The tone is there, as loud as it was."""
    before, after = _level(made.sound), _level(output)
    assert 0.85 < after / before < 1.18, (before, after)


def _of(clips: Clips, samples: NDArray[np.float32], rate: int = 16000) -> Made:
    sound = clips.sound("say.wav", samples, "pcm_s16le", rate)
    return _under(clips, sound, samples.shape[1] / rate)


def _wrong_length(clips: Clips, length: int) -> Made:
    """A WAV whose data chunk says another length than it has, as recorders that were switched off leave it."""
    made = _pcm(clips, "pcm_s16le", 16000, "mono")
    data = bytearray(made.sound.read_bytes())
    whole = len(data) - data.index(b"data") - 8
    struct.pack_into("<I", data, data.index(b"data") + 4, length)
    struct.pack_into("<I", data, 4, min(length, 2**32 - 1 - 36) + 36)
    made.sound.write_bytes(data)
    # A shorter length is believed: other chunks may follow.
    return _under(clips, made.sound, min(whole, length or whole) / 2 / 16000)


def _empty(clips: Clips) -> Made:
    made = _pcm(clips, "pcm_s16le", 16000, "mono")
    data = bytearray(made.sound.read_bytes())
    start = data.index(b"data") + 8
    struct.pack_into("<I", data, start - 4, 0)
    made.sound.write_bytes(data[:start])
    return made


def _long(clips: Clips) -> Made:
    """Two hours of sound over one second of video, which goes back and forth; only a second is kept here."""
    rate, seconds = 8000, 7200
    sound = clips.folder / "long.wav"
    with av.open(str(sound), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=rate, layout="mono")
        tone = clips.tone(60, rate, 1)
        for minute in range(seconds // 60):
            part = np.ascontiguousarray(tone)
            frame = av.AudioFrame.from_ndarray(part, format="flt", layout="mono")
            frame.sample_rate, frame.pts = rate, minute * 60 * rate
            for packet in stream.encode(frame):
                container.mux(packet)
        container.mux(stream.encode(None))
    return Made(clips.video("in.mp4", n=25), sound, range(25), steady(25), flags={"job.length": "video"})


def _no_sound(clips: Clips) -> Made:
    made = _pcm(clips, "pcm_s16le", 16000, "mono")
    return Made(made.video, made.video, made.numbers, made.times)


def _of_a_video(clips: Clips) -> Made:
    video = clips.video("say.mp4", n=15, sound=clips.tone(_SECONDS, 44100, 2))
    return _under(clips, video, _SECONDS)


def _outputs() -> Iterator[Case]:
    tried: dict[str, Any] = {
        "AAC": ("say.m4a", "aac", 44100),
        "MP3": ("say.mp3", "libmp3lame", 44100),
        "FLAC": ("say.flac", "flac", 44100),
        "Opus": ("say.ogg", "libopus", 48000),
        "16-bit WAV": ("say.wav", "pcm_s16le", 16000),
        "AC-3": ("say.ac3", "ac3", 48000),
    }
    for output in ("mp4", "mov", "mkv", "webm"):
        for name, (file, codec, rate) in tried.items():
            yield Case(
                "Outputs",
                f"{name} to {output}",
                lambda c, f=file, k=codec, r=rate, o=output: _coded(c, f, k, r, f"out.{o}"),
                also=_heard,
            )
        yield Case(
            "Outputs",
            f"7.1 at 96 kHz to {output}",
            lambda c, o=output: _pcm(c, "pcm_s24le", 96000, "7.1", f"out.{o}"),
        )
    yield Case("Outputs", "OUT.MP4", lambda c: _pcm(c, "pcm_s16le", 16000, "mono", "OUT.MP4"))
    for output in ("out.avi", "out.gif", "out.wav", "out", "out.ts"):
        yield Case(
            "Outputs", f"to {output}", lambda c, o=output: _pcm(c, "pcm_s16le", 16000, "mono", o), refused="suffix"
        )


def sound_cases() -> Iterator[Case]:
    """Yield the rows about sound and outputs."""
    for rate in _RATES:
        yield Case(_GROUP, f"WAV, {rate} Hz", lambda c, r=rate: _pcm(c, "pcm_s16le", r, "mono"), also=_heard)
    for layout in _LAYOUTS:
        yield Case(_GROUP, f"WAV, {layout}", lambda c, a=layout: _pcm(c, "pcm_s16le", 48000, a), also=_heard)
    for name, codec in _FORMS.items():
        yield Case(_GROUP, f"WAV, {name}", lambda c, k=codec: _pcm(c, k, 44100, "stereo"), also=_heard)
    for name, (file, codec, rate) in _CODECS.items():
        yield Case(_GROUP, name, lambda c, f=file, k=codec, r=rate: _coded(c, f, k, r), also=_heard)
    yield Case(_GROUP, "a video's sound", _of_a_video, also=_heard)
    for name, length in (("none", 0), ("too long", 10**6), ("too short", 4000), ("unknown", 2**32 - 1)):
        yield Case(_GROUP, f"WAV whose header says a wrong length: {name}", lambda c, n=length: _wrong_length(c, n))
    yield Case(_GROUP, "silence", lambda c: _of(c, np.zeros((1, 9600), np.float32)))
    yield Case(
        _GROUP,
        "clipping",
        lambda c: _of(c, np.clip(8 * c.tone(_SECONDS, 16000, 1), -1, 1).astype(np.float32)),
        also=_heard,
    )
    yield Case(_GROUP, "0.1 s", lambda c: _of(c, c.tone(0.1, 16000, 1)))
    yield Case(_GROUP, "one sample", lambda c: _of(c, np.full((1, 1), 0.5, np.float32)))
    yield Case(_GROUP, "no sample", _empty, refused="can be decoded")
    yield Case(_GROUP, "a video without sound", _no_sound, refused="has no sound")
    yield Case(_GROUP, "two hours, kept to the video", _long, slow=True)
    yield from _outputs()
