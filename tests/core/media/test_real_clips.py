"""The shared real clips: a phone video in one long GOP, program streams, their sound tracks, a WAV with odd tags."""

from __future__ import annotations

import hashlib
from fractions import Fraction
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

from lipsync_core.media import order as order_module
from lipsync_core.media.audio import AudioSource
from lipsync_core.media.color import ColorTags
from lipsync_core.media.reader import VideoReader


def digest(pixels: Any) -> str:
    return hashlib.sha256(pixels.tobytes()).hexdigest()


def test_phone_video(shared_data: Path) -> None:
    reader = VideoReader(shared_data / "ls_demo1.mp4")
    assert (reader.info.width, reader.info.height, reader.info.fps, reader.info.frame_count) == (1080, 1920, 25, 250)
    assert (reader.codec_name, reader.color, reader.info.has_audio) == ("hevc", ColorTags(1, 1, 1, 1), True)
    batches = reader.batches(10)
    first = [digest(p) for frames, _, _ in [next(batches), next(batches)] for p in frames.pixels]
    batches.close()
    index = reader.index()
    assert (len(index), index.duration, index.seekable) == (250, 10, True)
    order = [*range(20), *range(19, -1, -1)]
    with mock.patch.object(order_module, "HOLD_BYTES", 7 * 1080 * 1920 * 3 // 2):
        assert [digest(p) for p in reader.in_order(index, np.array(order))] == [first[i] for i in order]


@pytest.mark.parametrize("name", ["grid_rz_bbaf2n.mpg", "grid_os_s1_lbay1a.mpg", "grid_dp_s30_bwwy5n.mpg"])
def test_program_stream(shared_data: Path, name: str) -> None:
    """MPEG-1 with B-frames: 75 frames in 3 s, the same in any order, and sound as long as the pictures."""
    reader = VideoReader(shared_data / name)
    plain = [digest(p.pixels) for p in reader.pictures()]
    index = reader.index()
    assert (reader.info.width, reader.info.height, reader.info.fps) == (360, 288, 25)
    assert (len(index), index.duration) == (75, 3)
    order = [*range(75), *range(74, -1, -1), 70, 3, 71, 4]
    with mock.patch.multiple(order_module, HOLD_BYTES=9 * 360 * 288 * 3 // 2, _SEEK_GAIN=0):
        assert [digest(p) for p in reader.in_order(index, np.array(order))] == [plain[i] for i in order]
    audio = AudioSource(reader.path)
    assert (audio.sample_rate, audio.channels, audio.codec_name) == (44100, 2, "mp2")
    assert abs(audio.duration - 3) < 0.08
    assert not audio.is_silent()


def test_sounds(shared_data: Path) -> None:
    track = AudioSource(shared_data / "ls_demo1.mp4")
    assert (track.sample_rate, track.channels) == (44100, 2)
    assert track.duration == 431 * 1024 / 44100  # the container says 9 samples more
    speech = AudioSource(shared_data / "ls_demo2_dub.wav")
    assert (speech.sample_rate, speech.channels, speech.duration) == (16000, 1, 19.84)
    blocks = list(speech.blocks(16000))
    assert sum(len(b.samples) for b in blocks) == 317440
    assert Fraction(speech.duration).limit_denominator(1000) * 25 == 496
