"""Reading sound: formats, resampling, alignment with the picture, what cannot be used."""

from __future__ import annotations

import wave
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lipsync_core.errors import InputError
from lipsync_core.media.audio import AudioSource


def mono(source: AudioSource, rate: int = 16000, offset_s: float = 0.0) -> NDArray[np.float32]:
    """Join the blocks, checking how they follow each other."""
    position = 0
    parts = []
    for block in source.blocks(rate, offset_s=offset_s):
        assert block.start == position
        assert 0 < len(block.samples) <= rate
        position += len(block.samples)
        parts.append(block.samples)
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)


def onset(samples: NDArray[np.float32], rate: int = 16000) -> float:
    """Return when the sound begins, s."""
    return int(np.flatnonzero(np.abs(samples) > 0.1)[0]) / rate


FORMATS = [
    ("a.wav", "pcm_s16le", 44100),
    ("mono.wav", "pcm_s16le", 16000),
    ("u8.wav", "pcm_u8", 8000),
    ("f32.wav", "pcm_f32le", 48000),
    ("s24.wav", "pcm_s24le", 96000),
    ("a.m4a", "aac", 44100),
    ("a.aac", "aac", 44100),
    ("a.mp3", "libmp3lame", 44100),
    ("a.flac", "flac", 192000),
    ("a.opus", "libopus", 48000),
    ("a.mka", "aac", 22050),
]


@pytest.mark.parametrize(("name", "codec", "rate"), FORMATS)
def test_formats(clips: Any, name: str, codec: str, rate: int) -> None:
    """Length to the sample where the format knows it, pitch and level right, the tone where it was put."""
    channels = 1 if name.startswith("mono") else 2
    source = AudioSource(clips.sound(name, clips.tone(1.3, rate, channels, start=0.5), codec, rate))
    assert (source.sample_rate, source.channels) == (rate, channels)
    assert source.layout == ("mono", "stereo")[channels - 1]
    # ADTS and Matroska do not say how much of the last AAC frame is padding, nor ADTS of the first.
    frame = 2048 / rate if name in {"a.aac", "a.mka"} else 1.5 / rate
    assert 0 <= source.duration - 1.3 + 1 / rate <= frame + 1 / rate
    samples = mono(source)
    assert abs(len(samples) / 16000 - source.duration) < 2 / 16000
    assert abs(onset(samples) - 0.5) < (0.03 if name == "a.aac" else 0.012)
    late = samples[int(0.7 * 16000) : int(1.1 * 16000)].astype(float)
    assert abs(np.abs(late).max() - 0.5) < 0.03
    spectrum = np.abs(np.fft.rfft(late * np.hanning(len(late))))
    assert abs(spectrum.argmax() * 16000 / len(late) - 440) < 3


def test_blocks_are_exact_where_nothing_is_converted(clips: Any) -> None:
    """16-bit mono at its own rate is the file's numbers / 32768, each iteration anew."""
    values = np.random.default_rng(1).integers(-32768, 32767, 40000)
    path = clips.sound("exact.wav", (values / 32768).astype(np.float32)[None], "pcm_s16le", 16000)
    source = AudioSource(path)
    blocks = source.blocks(16000)
    for _ in range(2):
        samples = np.concatenate([block.samples for block in blocks])
        assert samples.dtype == np.float32
        assert np.array_equal(np.rint(samples * 32768), values)
        assert np.abs(samples).max() <= 1


def test_offset(clips: Any) -> None:
    source = AudioSource(clips.sound("offset.wav", clips.tone(1.0, 16000, 1), "pcm_s16le", 16000))
    plain = mono(source)
    later = mono(source, offset_s=2.5)
    assert not later[:40000].any()
    assert np.array_equal(later[40000:], plain)
    assert np.array_equal(mono(source, offset_s=-0.25), plain[4000:])
    assert len(mono(source, offset_s=-3.0)) == 0


def test_wav_with_wrong_length(clips: Any) -> None:
    """A recorder that was streaming wrote 0xFFFFFFFF, or zero, for the length."""
    path = clips.sound("right.wav", clips.tone(0.8, 16000, 1), "pcm_s16le", 16000)
    data = path.read_bytes()
    at = data.index(b"data") + 4
    for wrong in (b"\xff\xff\xff\xff", b"\x00\x00\x00\x00", b"\xff\xff\xff\x7f"):
        broken = clips.folder / "wrong.wav"
        broken.write_bytes(data[:4] + wrong + data[8:at] + wrong + data[at + 4 :])
        assert AudioSource(broken).duration == pytest.approx(0.8, abs=0.002)


def test_wav_that_names_no_speakers(clips: Any, shared_data: Path) -> None:
    source = AudioSource(shared_data / "ls_demo2_dub.wav")
    assert (source.channels, source.layout, source.sample_rate) == (1, "mono", 16000)
    assert source.duration == pytest.approx(19.84, abs=1e-3)


@pytest.mark.parametrize(("layout", "channels"), [("5.1", 6), ("7.1", 8), ("quad", 4)])
def test_surround(clips: Any, layout: str, channels: int) -> None:
    source = AudioSource(clips.sound(f"{layout}.flac", clips.tone(0.5, 48000, channels), "flac", 48000, layout))
    assert source.channels == channels
    assert abs(len(mono(source)) - 8000) <= 2
    assert np.abs(mono(source)).max() > 0.3


@pytest.mark.parametrize("start", [Fraction(0), Fraction(3, 10), Fraction(7, 2)])
@pytest.mark.parametrize(("name", "codec"), [("late.mkv", "flac"), ("late.mp4", "aac"), ("late.ts", "aac")])
def test_sound_track_that_starts_later(clips: Any, start: Fraction, name: str, codec: str) -> None:
    """Sample 0 is what is heard with the first picture."""
    path = clips.video(
        f"{start.numerator}{name}", n=100, sound=clips.tone(0.6, start=0.2), sound_codec=codec, sound_start=start
    )
    source = AudioSource(path)
    assert onset(mono(source)) == pytest.approx(float(start) + 0.2, abs=0.025)
    assert source.duration == pytest.approx(float(start) + 0.6, abs=0.05)


def test_pictures_that_start_later(clips: Any) -> None:
    """Sound before the first picture is not the video's."""
    path = clips.video(
        "early.mkv", n=30, pts=[400 + 40 * i for i in range(30)], time_base=Fraction(1, 1000),
        options={"bf": "0"}, sound=clips.tone(1.5, start=0.9), sound_codec="flac",
    )  # fmt: skip
    source = AudioSource(path)
    assert onset(mono(source)) == pytest.approx(0.5, abs=0.005)
    assert source.duration == pytest.approx(1.1, abs=0.01)


def test_hole_in_a_recording(clips: Any) -> None:
    """Half a second of the sound track is lost: what follows stays with its pictures."""
    path = clips.video(
        "hole.mkv", n=50, options={"bf": "0"}, sound=clips.tone(2.0, 48000, start=1.5), sound_codec="pcm_s16le",
        sound_rate=48000, drop=[50 + k for k in range(4, 10)],
    )  # fmt: skip
    source = AudioSource(path)
    assert source.duration == pytest.approx(2.0, abs=0.01)
    assert onset(mono(source)) == pytest.approx(1.5, abs=0.005)


def test_silence(clips: Any) -> None:
    quiet = clips.tone(0.5, 16000, 1) * np.float32(1e-4)
    assert AudioSource(clips.sound("quiet.wav", quiet, "pcm_s16le", 16000)).is_silent()
    tone = AudioSource(clips.sound("tone.wav", clips.tone(3.0, 16000, 1, start=2.5), "pcm_s16le", 16000))
    assert not tone.is_silent()
    assert tone.is_silent(threshold=0.6)


def test_damaged_sound_warns_once(clips: Any, caplog: pytest.LogCaptureFixture) -> None:
    path = clips.sound("damaged.mp3", clips.tone(2.0), "libmp3lame")
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 1500] = bytes(1500)
    path.write_bytes(data)
    source = AudioSource(path)
    assert 1.5 < source.duration < 2.1
    mono(source)
    assert len(caplog.records) <= 1


def test_what_has_no_sound(clips: Any) -> None:
    folder = clips.folder
    (folder / "text.wav").write_text("la la la\n" * 100)
    (folder / "zero.wav").write_bytes(b"")
    empty = clips.sound("full.wav", clips.tone(0.1), "pcm_s16le").read_bytes()
    at = empty.index(b"data") + 4
    (folder / "header.wav").write_bytes(empty[:at] + bytes(4))
    rate = empty.index(b"fmt ") + 12
    (folder / "rate.wav").write_bytes(empty[:rate] + b"\x00\x00\x00\x7f" + empty[rate + 4 :])
    for message, path in {
        "no file": folder / "absent.wav",
        "is not a file": folder,
        "zero bytes": folder / "zero.wav",
        "not a video, image or sound file": folder / "text.wav",
        "No sample": folder / "header.wav",
        r"No sample .* can be decoded": folder / "rate.wav",
        "has no sound": clips.video("mute.mp4", n=3),
        "no sound": clips.video("still.png", "png", n=1, pix_fmt="rgb24"),
    }.items():
        with pytest.raises(InputError, match=message) as caught:
            AudioSource(path)
        assert caught.value.cure.endswith(".")


@pytest.mark.parametrize("channels", [9, 16, 241])
def test_more_channels_than_have_names(tmp_path: Path, channels: int) -> None:
    """What a recorder for many microphones writes: the first eight are taken."""
    path = tmp_path / "many.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(np.tile(np.arange(channels, dtype="<i2") * 100, (4000, 1)).tobytes())
    source = AudioSource(path)
    assert (source.channels, source.layout, source.duration) == (8, "7.1", 0.5)
    (first, *_) = source.frames()
    assert first.to_ndarray().reshape(-1, 8)[0].tolist() == [100 * k for k in range(8)]
    assert sum(len(block.samples) for block in source.blocks(16000)) == pytest.approx(8000, abs=32)
