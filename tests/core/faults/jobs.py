"""Jobs with the fake backends in the test's own process."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any
from unittest import mock

from lipsync_core import api, job
from lipsync_core.registry import Registry, discover
from tests.core import fake_plugin as fake

from .process import SEGMENT


@contextlib.contextmanager
def fake_backends() -> Iterator[Registry]:
    """Yield a registry of the fake backends; within the block jobs have them and short segments, in all threads."""
    registry = discover([EntryPoint("fake", fake.__name__, "lipsync")])
    with mock.patch.object(api, "discover", return_value=registry), mock.patch.object(job, "_SEGMENT_FRAMES", SEGMENT):
        yield registry


def dub(folder: Path, output: str | Path = "out.mp4", **more: Any) -> api.DubResult:
    """Dub `in.mp4` of a folder with its `say.wav`."""
    with fake_backends():
        return unpatched(folder, output, **more)


def unpatched(folder: Path, output: str | Path, **more: Any) -> api.DubResult:
    """Do the same within `fake_backends`."""
    return api.dub(folder / "in.mp4", folder / "say.wav", folder / output, profile=folder / "fake.toml", **more)
