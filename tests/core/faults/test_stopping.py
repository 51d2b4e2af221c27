"""Killed, interrupted or told to end: nothing half done is left, and the same command goes on to the same bytes."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from .conftest import litter
from .process import SEGMENT, start, wait_for, wait_until_stuck

TOO_LONG_S = 300  # for a job that does not end at all
CHUNK_S = 0.05  # fifteen chunks


def kill_until_done(folder: Path, kills: int, seed: int) -> int:
    """Start the job and kill it at a random moment, `kills` times; returns how often it was killed before its end."""
    chance = random.Random(seed)
    killed = 0
    for _ in range(kills):
        job = start(folder, "out.mp4", "--overwrite", chunk_s=CHUNK_S)
        # From the first import to past the end: a job that is not disturbed takes about two seconds.
        time.sleep(chance.uniform(0.1, 2.5))
        job.kill()
        job.communicate()
        killed += job.returncode == -signal.SIGKILL
        assert set(litter(folder)) <= {".out.mp4.lipsync"}
    return killed


def test_killed_at_random_and_started_again(folder: Path, whole: bytes) -> None:
    kill_until_done(folder, 3, 1)
    job = start(folder, "out.mp4", "--overwrite")
    assert job.communicate()[1] == ""
    assert job.returncode == 0
    assert (folder / "out.mp4").read_bytes() == whole
    assert litter(folder) == []


@pytest.mark.slow
def test_killed_twenty_times(folder: Path, whole: bytes) -> None:
    assert kill_until_done(folder, 20, 7) > 10
    job = start(folder, "out.mp4", "--overwrite")
    job.communicate()
    assert job.returncode == 0
    assert (folder / "out.mp4").read_bytes() == whole
    assert litter(folder) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_a_signal_stops_a_job_that_goes_on_later(folder: Path, whole: bytes, number: signal.Signals) -> None:
    job = start(folder, stuck_at=30)
    wait_until_stuck(job, folder, segments=2)
    job.send_signal(number)
    _, err = job.communicate(timeout=TOO_LONG_S)
    assert job.returncode == 130
    assert err == "lipsync: interrupted. Finished parts are kept; the same command goes on after them.\n"
    kept = sorted(path.name for path in (folder / ".out.mp4.lipsync").iterdir())
    assert kept == ["000000.mkv", "000001.mkv", "job.json"]
    assert litter(folder) == [".out.mp4.lipsync"]
    again = start(folder)
    out, _ = again.communicate()
    assert again.returncode == 0
    assert f"{2 * SEGMENT} of them from before" in out
    assert (folder / "out.mp4").read_bytes() == whole
    assert litter(folder) == []


@pytest.mark.parametrize("number", [signal.SIGTERM])
def test_a_call_that_does_not_return_holds_nothing_up(folder: Path, number: signal.Signals) -> None:
    """The chunk takes an hour; the process does not."""
    job = start(folder, stuck_at=0)
    wait_until_stuck(job, folder)
    job.send_signal(number)
    _, err = job.communicate(timeout=TOO_LONG_S)
    assert job.returncode == 130
    assert err.startswith("lipsync: interrupted.")
    assert litter(folder) == []


@pytest.mark.parametrize("late_s", [0.0, 0.005])
def test_a_signal_as_the_work_begins(folder: Path, late_s: float) -> None:
    """While threads are starting and nothing waits for them yet."""
    job = start(folder, stuck_at=0)
    wait_for(job, "Rendering")
    time.sleep(late_s)
    job.send_signal(signal.SIGINT)
    _, err = job.communicate(timeout=TOO_LONG_S)
    assert (job.returncode, err.count("interrupted"), err.count("\n")) == (130, 1, 1)
    assert litter(folder) == []


def test_killed_while_the_folder_is_made(folder: Path, whole: bytes) -> None:
    """What a process leaves that dies between making its folder and writing what it is for."""
    work = folder / ".out.mp4.lipsync"
    work.mkdir()
    (work / "lock").touch()
    (work / "job.json.partial").write_text("{")
    job = start(folder)
    assert job.communicate()[1] == ""
    assert (folder / "out.mp4").read_bytes() == whole
    assert litter(folder) == []


def test_an_interrupt_that_a_library_turns_into_another_error_is_an_interrupt() -> None:
    code = """
import signal
from lipsync_core.cli.stopping import stops_promptly
try:
    with stops_promptly(lambda: None, "interrupted."):
        try:
            signal.raise_signal(signal.SIGTERM)
        except KeyboardInterrupt:
            raise RuntimeError("cannot release un-acquired lock")
except KeyboardInterrupt:
    raise SystemExit(130)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=TOO_LONG_S, check=False)
    assert (done.returncode, done.stderr) == (130, "lipsync: interrupted.\n")
