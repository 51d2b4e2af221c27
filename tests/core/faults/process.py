"""`lipsync run` in a process of its own, with fake backends and short segments."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[3]
SEGMENT: Final = 12
_NEVER: Final = 10**6
_KINDS: Final = ("audio", "aligner", "masker", "denoiser", "compositor")
PROFILE: Final = "".join(f'[{kind}]\nbackend = "fake"\n' for kind in _KINDS) + "[job]\ncrf = 1\n"


def start(
    folder: Path, output: str = "out.mp4", *words: str, chunk_s: float = 0.0, stuck_at: int = _NEVER
) -> subprocess.Popen[str]:
    """Start a job on `in.mp4` and `say.wav` of a folder; it says on stdout what it is at.

    chunk_s: what a chunk takes at least. stuck_at: the frame from which on a chunk takes an hour.
    """
    command = [sys.executable, "-u", "-m", __name__, "run", "in.mp4", "say.wav", "-o", output, "--profile", "fake.toml"]
    return subprocess.Popen(
        [*command, *words],
        cwd=folder,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "LIPSYNC_CACHE": str(folder / "cache"),
            "LIPSYNC_TEST_CHUNK_S": str(chunk_s),
            "LIPSYNC_TEST_STUCK_AT": str(stuck_at),
            "OMP_NUM_THREADS": "1",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(process: subprocess.Popen[str], text: str) -> None:
    """Read a job's lines until one holds `text`; raises `AssertionError` where it ends before."""
    assert process.stdout is not None
    for line in process.stdout:
        if text in line:
            return
    raise AssertionError(f"it never came to {text!r}: {process.communicate()[1]}")


def wait_until_stuck(process: subprocess.Popen[str], folder: Path, segments: int = 0) -> None:
    """Wait until a job stands still, and so many of its segments are there."""
    while not (folder / "cache" / "stuck").exists() or len(list(folder.glob(".*.lipsync/0*.mkv"))) < segments:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.02)


def main() -> None:
    """Be the command line."""
    from lipsync_core import api, job
    from lipsync_core.cli import main as command
    from lipsync_core.registry import discover
    from tests.core.faults import slow_plugin

    registry = discover([EntryPoint("fake", slow_plugin.__name__, "lipsync")])
    api.discover = lambda: registry  # type: ignore[assignment]
    job._SEGMENT_FRAMES = SEGMENT
    command()


if __name__ == "__main__":
    main()
