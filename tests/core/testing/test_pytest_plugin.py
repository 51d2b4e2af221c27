"""The fixtures: a face the aligners find, a sound that is speech enough, and nothing heavy before they are used."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lipsync_core import landmarks as lm
from lipsync_core.backends import StageKind
from lipsync_core.errors import WeightsError
from lipsync_core.media.audio import AudioSource
from lipsync_core.media.reader import VideoReader
from lipsync_core.models import store
from lipsync_core.registry import discover
from lipsync_core.testing import samples


def test_loading_it_imports_nothing_heavy() -> None:
    code = (
        "import lipsync_core.testing.pytest_plugin, json, sys;"
        "sys.stderr.write(json.dumps([m for m in ('numpy', 'cv2', 'av', 'pydantic', 'torch') if m in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stderr) == []


@pytest.mark.facemodel
def test_the_drawn_face_is_found_and_its_mouth_followed() -> None:
    try:
        store.locate("face-landmarker", download=False)
    except WeightsError as error:
        pytest.skip(str(error))
    registry = discover()
    entry = registry.find(StageKind.ALIGNER, "facemesh-opencv")
    aligner = registry.create(entry, registry.options_model(entry)())
    frames = samples.frames(0, 17)
    video = samples.SampleClip(17, samples.NATIVE_SIDE, (1, 1)).video
    (track,) = aligner.track([frames], video=video)
    assert track.found.all()
    drawn = samples.face_points(np.arange(17))
    eyes = [lm.EYE_OUTER_LEFT, lm.EYE_OUTER_RIGHT, lm.MOUTH_LEFT, lm.MOUTH_RIGHT]
    assert np.linalg.norm(track.landmarks[:, eyes] - drawn[:, eyes], axis=2).mean() < 0.1 * samples.EYES
    seen = track.landmarks[:, lm.LOWER_LIP_INNER, 1] - track.landmarks[:, lm.UPPER_LIP_INNER, 1]
    assert np.corrcoef(seen, samples.opening(np.arange(17)))[0, 1] > 0.9


def test_the_clip_and_the_speech_are_files(
    lipsync_clip: Callable[..., Path], lipsync_speech: Callable[..., Path]
) -> None:
    reader = VideoReader(lipsync_clip(frames=6))
    assert (reader.info.width, reader.info.height, reader.info.fps) == (samples.WIDTH, samples.HEIGHT, samples.FPS)
    sound = AudioSource(lipsync_speech(seconds=0.5))
    assert abs(float(sound.duration) - 0.5) < 0.01
    assert not sound.is_silent()


def test_speech_comes_in_syllables() -> None:
    sound = samples.speech(2.0, 16000)
    assert sound.dtype == np.float32
    assert 0.05 < np.abs(sound).max() <= 1
    loud = np.sqrt((sound.reshape(-1, 640) ** 2).mean(axis=1))
    assert np.corrcoef(loud, samples.opening(np.arange(50) + 0.5))[0, 1] > 0.8
