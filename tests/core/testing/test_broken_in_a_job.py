"""A backend that raises in the middle of a job is named, and the job goes on after a fix."""

from __future__ import annotations

import pytest

from lipsync_core.backends import BackendSpec, StageKind
from lipsync_core.errors import BackendError
from lipsync_core.pipeline import Stages
from lipsync_core.registry import Entry, Origin, State


def test_the_error_names_backend_distribution_version_and_frames() -> None:
    spec = BackendSpec(StageKind.DENOISER, "theirs", "", "m:C", "m:O")
    entries = {StageKind.DENOISER: Entry(spec, Origin("theirs", "their-plugin", "1.5"), State.READY)}
    stages = Stages(None, None, None, None, None, entries)  # type: ignore[arg-type]
    with pytest.raises(BackendError) as caught, stages.blame(StageKind.DENOISER, "frames 240–255"):
        raise FloatingPointError("planted")
    assert "denoiser backend theirs (their-plugin 1.5) failed at frames 240–255: FloatingPointError: planted" in str(
        caught.value
    )
    assert "same command goes on from there" in caught.value.cure
