"""The sound track of the finished file: copied or encoded, as long as the pictures, heard when it should be."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from lipsync_core.media.audio import AudioSource
from lipsync_core.media.mux import mux
from lipsync_core.media.reader import VideoReader

from .jobs import job, steady, streams

COPIES = [
    ("c.m4a", "aac", 44100, ".mp4", "aac"),
    ("c.m4a", "aac", 44100, ".mov", "aac"),
    ("c.mp3", "libmp3lame", 44100, ".mp4", "mp3float"),
    ("c.flac", "flac", 96000, ".mkv", "flac"),
    ("c.opus", "libopus", 48000, ".webm", "opus"),
    ("c.opus", "libopus", 48000, ".mkv", "opus"),
]


def packets_of(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(audio=0) if packet.size]


@pytest.mark.parametrize(("name", "codec", "rate", "suffix", "decoder"), COPIES)
def test_sound_is_copied_where_it_can_be(
    clips: Any, tmp_path: Path, name: str, codec: str, rate: int, suffix: str, decoder: str
) -> None:
    """Its packets are the source's, and it is still heard at the right time."""
    segments, made = job(clips, tmp_path, [50], suffix)
    sound = clips.sound(name, clips.tone(2.0, rate, start=0.7), codec, rate)
    out = tmp_path / f"out{suffix}"
    mux(segments, steady(50), sound, out, settings=made)
    facts = streams(out)
    assert facts["audio"]["codec"] == decoder
    assert facts["audio"]["rate"] == rate
    assert packets_of(out) == packets_of(sound)
    assert abs(heard(out) - heard(sound)) < 0.003
    assert abs(facts["audio"]["seconds"] - 2.0) < 0.05
    index = VideoReader(out).index()
    assert index.pts[0] == 0
    assert len(index) == 50


def heard(path: Path) -> float:
    """Return when the tone begins, s."""
    samples = np.concatenate([block.samples for block in AudioSource(path).blocks(16000)])
    return int(np.flatnonzero(np.abs(samples) > 0.1)[0]) / 16000


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm"])
@pytest.mark.parametrize("seconds", [0.5, 3.7])
def test_sound_of_another_length_is_fitted(clips: Any, tmp_path: Path, suffix: str, seconds: float) -> None:
    """Cut or filled with silence, even where its codec could have been copied."""
    segments, made = job(clips, tmp_path, [50], suffix)
    codec, name, rate = {
        ".mp4": ("aac", "f.m4a", 44100), ".mkv": ("flac", "f.flac", 44100), ".webm": ("libopus", "f.opus", 48000)
    }[suffix]  # fmt: skip
    out = tmp_path / f"out{suffix}"
    mux(segments, steady(50), clips.sound(name, clips.tone(seconds, rate), codec, rate), out, settings=made)
    assert abs(streams(out)["audio"]["seconds"] - 2.0) < 0.03
    samples = np.concatenate([block.samples for block in AudioSource(out).blocks(16000)])
    assert abs(len(samples) / 16000 - 2.0) < 0.03
    assert (np.abs(samples[int(1.0 * 16000) : int(1.8 * 16000)]).max() > 0.3) == (seconds > 2)


@pytest.mark.parametrize("offset", [0.5, -0.3])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_sound_offset(clips: Any, tmp_path: Path, offset: float, suffix: str) -> None:
    segments, made = job(clips, tmp_path, [50], suffix)
    out = tmp_path / f"out{suffix}"
    sound = clips.sound("late.m4a", clips.tone(2.0, start=0.8), "aac")
    mux(segments, steady(50), sound, out, settings=made, audio_offset_s=offset)
    assert abs(heard(out) - 0.8 - offset) < 0.02
    assert abs(AudioSource(out).duration - 2.0) < 0.03


def test_sound_track_of_a_video(clips: Any, tmp_path: Path) -> None:
    """A video file is a sound too; its track's place against its first picture is kept."""
    segments, made = job(clips, tmp_path, [50])
    source = clips.video("sounding.mp4", n=50, sound=clips.tone(1.5, start=0.4), sound_start=Fraction(1, 2))
    out = tmp_path / "out.mp4"
    mux(segments, steady(50), AudioSource(source), out, settings=made)
    assert abs(heard(out) - 0.9) < 0.02


@pytest.mark.parametrize(
    ("layout", "channels", "suffix", "codec"),
    [("5.1", 6, ".mp4", "aac"), ("7.1", 8, ".mkv", "flac"), ("5.1", 6, ".webm", "opus"), ("mono", 1, ".mp4", "aac")],
)
def test_channels_are_kept(clips: Any, tmp_path: Path, layout: str, channels: int, suffix: str, codec: str) -> None:
    segments, made = job(clips, tmp_path, [20], suffix)
    sound = clips.sound(f"{layout}.wav", clips.tone(0.8, 48000, channels), "pcm_s16le", 48000, layout)
    out = tmp_path / f"out{suffix}"
    mux(segments, steady(20), sound, out, settings=made)
    facts = streams(out)["audio"]
    assert (facts["channels"], facts["codec"], facts["rate"]) == (channels, codec, 48000)


def test_channels_that_an_encoder_lacks_are_mixed(clips: Any, tmp_path: Path) -> None:
    """Opus refuses for two channels the bit rate of six."""
    segments, made = job(clips, tmp_path, [20], ".webm")
    sound = clips.sound("side.wav", clips.tone(0.8, 48000, 6), "pcm_s16le", 48000, "5.1(side)")
    mux(segments, steady(20), sound, tmp_path / "out.webm", settings=made)
    facts = streams(tmp_path / "out.webm")["audio"]
    assert (facts["channels"], facts["codec"]) == (2, "opus")


@pytest.mark.parametrize(("codec", "error"), [("pcm_s24le", 0), ("pcm_s16le", 0), ("pcm_f32le", 2**-15)])
def test_flac_keeps_the_bits_of_whole_numbers(clips: Any, tmp_path: Path, codec: str, error: float) -> None:
    segments, made = job(clips, tmp_path, [50], ".mkv")
    values = np.random.default_rng(0).integers(-(2**22), 2**22, 96000).astype(np.int32) << 8
    sound = tmp_path / "deep.wav"
    with av.open(str(sound), "w") as container:
        stream = container.add_stream(codec, rate=48000, layout="mono")
        frame = av.AudioFrame.from_ndarray(values[None], format="s32", layout="mono")
        frame.sample_rate = 48000
        container.mux([*stream.encode(frame), *stream.encode(None)])
    mux(segments, steady(50), AudioSource(sound), tmp_path / "out.mkv", settings=made)

    def decoded(path: Path) -> np.ndarray:
        resampler = av.AudioResampler("dbl", "mono", 48000)
        frames = [part for frame in AudioSource(path).frames() for part in resampler.resample(frame)]
        return np.concatenate([part.to_ndarray().ravel() for part in frames])

    assert np.abs(decoded(tmp_path / "out.mkv") - decoded(sound)).max() <= error


@pytest.mark.parametrize("suffix", [".mp4", ".webm"])
def test_samples_that_are_no_numbers_are_silence(clips: Any, tmp_path: Path, suffix: str) -> None:
    segments, made = job(clips, tmp_path, [50], suffix)
    tone = clips.tone(2.0, 48000).astype(np.float32) / (32768 if clips.tone(0.1, 48000).dtype == np.int16 else 1)
    tone[..., 4000:4003] = [np.nan, np.inf, -np.inf]
    sound = tmp_path / "holes.wav"
    with av.open(str(sound), "w") as container:
        stream = container.add_stream("pcm_f32le", rate=48000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(tone.reshape(1, -1)), format="flt", layout="mono")
        frame.sample_rate = 48000
        container.mux([*stream.encode(frame), *stream.encode(None)])
    blocks = np.concatenate([block.samples for block in AudioSource(sound).blocks(48000)])
    assert (np.abs(blocks[4000:4003] - [0.0, 1.0, -1.0]) < 1e-3).all()
    mux(segments, steady(50), AudioSource(sound), tmp_path / f"out{suffix}", settings=made)
    assert abs(streams(tmp_path / f"out{suffix}")["audio"]["seconds"] - 2.0) < 0.05


@pytest.mark.parametrize(("rate", "encoded"), [(8000, 8000), (22050, 22050), (37800, 44100), (192000, 96000)])
def test_rates_are_kept_where_the_encoder_has_them(clips: Any, tmp_path: Path, rate: int, encoded: int) -> None:
    segments, made = job(clips, tmp_path, [20])
    out = tmp_path / "out.mp4"
    mux(
        segments,
        steady(20),
        clips.sound(f"r{rate}.wav", clips.tone(0.8, rate, 1), "pcm_s16le", rate),
        out,
        settings=made,
    )
    assert streams(out)["audio"]["rate"] == encoded
    assert abs(AudioSource(out).duration - 0.8) < 0.001


def test_run_in_that_a_container_cannot_hide_is_not_copied(clips: Any, tmp_path: Path) -> None:
    """AAC's first packet lies before time 0: in Matroska copying it would move the pictures."""
    segments, made = job(clips, tmp_path, [50], ".mkv")
    sound = clips.sound("run_in.m4a", clips.tone(2.0, start=0.7), "aac")
    out = tmp_path / "out.mkv"
    mux(segments, steady(50), sound, out, settings=made)
    assert streams(out)["audio"]["codec"] == "flac"
    assert abs(heard(out) - heard(sound)) < 0.003
    assert VideoReader(out).index().pts[0] == 0


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_copied_track_of_a_video_that_starts_late(clips: Any, tmp_path: Path, suffix: str) -> None:
    """A recording cut out of a longer one: its times begin at 3 s, the output's at 0."""
    segments, made = job(clips, tmp_path, [50], suffix)
    source = clips.video(
        f"late_start{suffix}.mkv",
        n=50,
        pts=[3000 + 40 * i for i in range(50)],
        time_base=Fraction(1, 1000),
        options={"bf": "0"},
        sound=clips.tone(2.0, start=0.7),
        sound_codec="flac" if suffix == ".mkv" else "ac3",
        sound_start=Fraction(3),
    )
    out = tmp_path / f"out{suffix}"
    mux(segments, steady(50), source, out, settings=made)
    assert packets_of(out) == packets_of(source)
    assert abs(heard(out) - heard(source)) < 0.003
    assert abs(heard(out) - 0.7) < 0.02
    assert abs(streams(out)["audio"]["seconds"] - 2.0) < 0.04
