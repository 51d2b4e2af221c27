"""Clips that a model is adapted to follow each other without a gap, picture and sound."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from benchmarks.adapt import joined

RATE, FRAMES, SAMPLES = 25, 10, 16000 * 10 // 25


def write(path: Path, grey: int, loudness: float, b_frames: int) -> Path:
    """Write ten frames of one grey and as long a noise."""
    with av.open(str(path), "w") as file:
        video, audio = file.add_stream("mpeg2video", rate=RATE), file.add_stream("pcm_s16le", rate=16000, layout="mono")
        video.width = video.height = 64
        video.pix_fmt, video.codec_context.max_b_frames = "yuv420p", b_frames
        for _ in range(FRAMES):
            picture = av.VideoFrame.from_ndarray(np.full((64, 64, 3), grey, np.uint8), format="rgb24")
            file.mux(video.encode(picture))
        file.mux(video.encode())
        noise = np.random.default_rng(0).uniform(-loudness, loudness, (1, SAMPLES)) * 32767
        sound = av.AudioFrame.from_ndarray(noise.astype(np.int16), format="s16", layout="mono")
        sound.sample_rate, sound.pts, sound.time_base = 16000, 0, Fraction(1, 16000)
        file.mux(audio.encode(sound))
        file.mux(audio.encode())
    return path


@pytest.mark.parametrize(("seconds", "each", "b_frames"), [(None, FRAMES, 2), (0.24, 6, 0)])
def test_videos_follow_each_other(tmp_path: Path, seconds: float | None, each: int, b_frames: int) -> None:
    clips = [write(tmp_path / "a.mkv", 40, 0.1, b_frames), write(tmp_path / "b.mkv", 200, 0.8, b_frames)]
    target = joined(clips, tmp_path / "joined.mkv", seconds)
    with av.open(str(target)) as file:
        frames = [(frame.time, frame.to_ndarray(format="rgb24").mean()) for frame in file.decode(video=0)]
    times, greys = np.array(frames).T
    np.testing.assert_allclose(times, np.arange(2 * each) / RATE, atol=0.002)
    np.testing.assert_allclose(greys, [40] * each + [200] * each, atol=4)
    with av.open(str(target)) as file:
        blocks = [(frame.time, frame.to_ndarray().astype(float).std() / 32767) for frame in file.decode(audio=0)]
    starts, loudness = np.array(blocks).T
    second = starts >= each / RATE - 0.002
    assert loudness[second].min() > 4 * loudness[~second].max() > 0
