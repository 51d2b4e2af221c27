"""A sync offset moves the sound against the mouth, which is what it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from . import fake_plugin as fake
from . import test_job as jobs

tiny, video, sound = jobs.tiny, jobs.video, jobs.sound


@pytest.mark.parametrize(("offset_ms", "frames"), [(200.0, 35), (-200.0, 25)])
def test_each_frame_hears_its_own_moment(
    video: Path, sound: Path, monkeypatch: pytest.MonkeyPatch, offset_ms: float, frames: int
) -> None:
    heard: list[float] = []
    encode = fake.FakeEncoder.encode

    def listen(self: fake.FakeEncoder, audio: Any, *, times: Any) -> Any:
        heard.extend(times)
        return encode(self, audio, times=times)

    monkeypatch.setattr(fake.FakeEncoder, "encode", listen)
    result = jobs.run(video, sound, flags={"job.sync_offset_ms": offset_ms})
    assert result.frames == frames
    assert heard == pytest.approx([frame / 25 for frame in range(frames)])
