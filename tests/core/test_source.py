"""What a denoiser may look at of the source: the frames it asks for, and no others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from lipsync_core.analysis import analyse
from lipsync_core.media.audio import AudioSource
from lipsync_core.media.reader import VideoReader
from lipsync_core.media.timeline import build_timeline
from lipsync_core.progress import Silent
from lipsync_core.source import JobSource, own_sound

from . import fake_plugin as fake
from .clips import write_sound, write_video
from .test_pipeline import make_stages

FRAMES = 40
FACELESS = (12, 13)


@pytest.fixture
def source(tmp_path: Path) -> JobSource:
    """Forty frames that become brighter, two of them black: no face."""
    greys = [0 if k in FACELESS else 80 + 4 * k for k in range(FRAMES)]
    write_video(tmp_path / "in.mkv", np.stack([np.full((48, 48, 3), grey, np.uint8) for grey in greys]))
    write_sound(tmp_path / "say.wav", seconds=1.0)
    stages: Any = make_stages()
    reader, sound = VideoReader(tmp_path / "in.mkv"), AudioSource(tmp_path / "say.wav")
    analysis = analyse(reader, stages.aligner, Silent())
    timeline = build_timeline(analysis.index, reader.info.fps, audio_duration=1.0)
    return JobSource(stages, reader, analysis, timeline, None, sound, Silent())


def seen(source: JobSource, frames: list[int] | None) -> dict[int, int]:
    """Return source frame → grey of its crop, in the order they came."""
    found = {}
    for faces in source.faces(None if frames is None else np.array(frames, np.int64)):
        for row, crop in enumerate(faces.pixels):
            found[faces.track.start + row] = int(crop.mean())
    return found


@pytest.mark.parametrize("codec", ["pcm_s16le", "flac"])
def test_a_track_without_a_sample_is_no_sound(tmp_path: Path, codec: str, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "mute.mkv"
    with av.open(str(path), "w") as container:
        picture = container.add_stream("libx264", rate=25)
        picture.width = picture.height = 48
        container.add_stream(codec, rate=16000)
        for _ in range(5):
            container.mux(picture.encode(av.VideoFrame(48, 48, "yuv420p")))
        container.mux(picture.encode(None))
    assert own_sound(VideoReader(path)) is None
    assert "the speaker's own sound is not used" in caplog.text


def test_all_faces_in_order(source: JobSource) -> None:
    found = seen(source, None)
    assert list(found) == [k for k in range(FRAMES) if k not in FACELESS]
    assert all(abs(grey - (80 + 4 * frame)) <= 3 for frame, grey in found.items())


def test_only_the_frames_asked_for(source: JobSource) -> None:
    found = seen(source, [3, 4, 11, 12, 14, 30, 31, 32])
    assert list(found) == [3, 4, 11, 14, 30, 31, 32]
    assert all(abs(grey - (80 + 4 * frame)) <= 3 for frame, grey in found.items())
    assert seen(source, []) == {}
    assert seen(source, [12]) == {}


def test_runs_are_consecutive_and_of_bounded_length(source: JobSource, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lipsync_core.source.batch_size", lambda height, width: 3)
    runs = [(faces.track.start, len(faces.pixels)) for faces in source.faces(np.arange(5, 20))]
    assert runs == [(5, 3), (8, 3), (11, 1), (14, 3), (17, 3)]
    assert next(iter(source.faces())).pixels.shape[1] == fake.SIDE
