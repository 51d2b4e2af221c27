"""`lipsync run` in a process of its own, with fake backends and short segments."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[3]
SEGMENT: Final = 12
CHUNK_S: Final = "LIPSYNC_TEST_CHUNK_S"
_KINDS: Final = ("audio", "aligner", "masker", "denoiser", "compositor")
PROFILE: Final = "".join(f'[{kind}]\nbackend = "fake"\n' for kind in _KINDS) + "[job]\ncrf = 1\n"


def start(
    folder: Path, output: str = "out.mp4", *words: str, chunk_s: float = 0.0, **env: str
) -> subprocess.Popen[str]:
    """Start a job on `in.mp4` and `say.wav` of a folder; it says on stdout what it is at."""
    command = [sys.executable, "-u", "-m", __name__, "run", "in.mp4", "say.wav", "-o", output, "--profile", "fake.toml"]
    return subprocess.Popen(
        [*command, *words],
        cwd=folder,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "LIPSYNC_CACHE": str(folder / "cache"),
            CHUNK_S: str(chunk_s),
            "OMP_NUM_THREADS": "1",
            **env,
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
