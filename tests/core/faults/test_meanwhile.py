"""What happens beside a job: a second one, files that change, a clock that is set back."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lipsync_core import cache, job
from lipsync_core.errors import InputError, OutputError
from lipsync_core.resume import WorkFolder
from tests.core import fake_plugin as fake
from tests.core.clips import write_sound, write_video

from .conftest import litter
from .jobs import dub, fake_backends, unpatched
from .process import start, wait_until_stuck


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIPSYNC_CACHE", str(tmp_path / "cache"))


def test_a_second_job_to_the_same_output_is_refused_until_the_first_is_gone(folder: Path, whole: bytes) -> None:
    first = start(folder, stuck_at=30)
    wait_until_stuck(first, folder, segments=2)
    second = start(folder)
    _, err = second.communicate()
    assert second.returncode == 2
    assert err == "lipsync: Another job is writing 'out.mp4'. Wait for it, or choose another output.\n"
    assert first.poll() is None
    first.kill()  # a lock ends with its process
    first.communicate()
    third = start(folder)
    out, err = third.communicate()
    assert (third.returncode, err) == (0, "")
    assert "24 of them from before" in out
    assert (folder / "out.mp4").read_bytes() == whole
    assert litter(folder) == []


def test_threads_do_not_share_an_output(folder: Path) -> None:
    work = WorkFolder(folder / "out.mp4")
    with work.opened({}, resume=True):
        with pytest.raises(OutputError, match="Another job is writing 'out.mp4'"):
            dub(folder)
        assert (work.path / "job.json").read_text() == "{}"
    assert dub(folder).frames == 60


def test_two_jobs_on_one_video(folder: Path) -> None:
    """Two processes and two threads at once, all finding no analysis in the cache."""
    processes = [start(folder, f"p{k}.mp4") for k in range(2)]
    with fake_backends(), ThreadPoolExecutor(2) as pool:
        results = list(pool.map(lambda k: unpatched(folder, f"t{k}.mp4"), range(2)))
    assert [result.frames for result in results] == [60, 60]
    for process in processes:
        assert process.communicate()[1] == ""
        assert process.returncode == 0
    assert len({(folder / name).read_bytes() for name in ("p0.mp4", "p1.mp4", "t0.mp4", "t1.mp4")}) == 1
    assert [path.suffix for path in cache.analysis_dir().iterdir()] == [".npz"]


# Files that change


def other_video(path: Path) -> None:
    """Another video of the same length, size and rate, put in place of the one there is."""
    new = path.with_name("new.mp4")
    write_video(new, np.full((60, 48, 48, 3), 250, np.uint8))
    new.replace(path)


def other_sound(path: Path) -> None:
    write_sound(path.with_name("new.wav"), seconds=2.4, hz=300.0)
    path.with_name("new.wav").replace(path)


def when(monkeypatch: pytest.MonkeyPatch, frame: int, do: Any) -> None:
    """Do something as output frame `frame` is generated."""
    original = fake.FakeDenoiser.generate

    def generate(self: fake.FakeDenoiser, faces: Any, *rest: Any) -> Any:
        if faces.track.start <= frame < faces.track.start + len(faces.pixels):
            do()
        return original(self, faces, *rest)

    monkeypatch.setattr(fake.FakeDenoiser, "generate", generate)


@pytest.mark.parametrize(("name", "change"), [("in.mp4", other_video), ("say.wav", other_sound)])
def test_a_file_replaced_while_it_is_rendered(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, change: Any
) -> None:
    old = (folder / name).read_bytes()
    with monkeypatch.context() as patched:
        when(patched, 30, lambda: change(folder / name))
        with pytest.raises(InputError, match=f"{name}' was changed while it was dubbed"):
            dub(folder)
    assert not (folder / "out.mp4").exists()
    kept = [path.name for path in (folder / ".out.mp4.lipsync").iterdir() if path.suffix == ".mkv"]
    assert sorted(kept) in ([], ["000000.mkv"], ["000000.mkv", "000001.mkv"])
    # The old file again: what was kept is the old content's alone.
    (folder / name).write_bytes(old)
    dub(folder)
    dub(folder, "whole.mp4")
    assert (folder / "out.mp4").read_bytes() == (folder / "whole.mp4").read_bytes()


def test_a_file_replaced_while_it_is_analysed_is_not_cached(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = job.analyse

    def analyse(*words: Any) -> Any:
        done = original(*words)
        other_video(folder / "in.mp4")
        return done

    monkeypatch.setattr(job, "analyse", analyse)
    with pytest.raises(InputError, match="was changed"):
        dub(folder)
    assert cache.usage() == (0, 0)


def test_a_file_removed_meanwhile(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    when(monkeypatch, 2, (folder / "say.wav").unlink)
    with pytest.raises(InputError):
        dub(folder)


def test_a_file_that_was_only_touched_is_the_same(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    when(monkeypatch, 30, lambda: os.utime(folder / "in.mp4", (0, 0)))
    assert dub(folder).frames == 60


def test_a_file_changed_between_two_runs_is_seen_by_content(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Same name, same size, older date."""
    with monkeypatch.context() as patched:

        def fail() -> None:
            raise FloatingPointError("planted")

        when(patched, 40, fail)
        with pytest.raises(Exception, match="planted"):
            dub(folder)
    size = (folder / "say.wav").stat().st_size
    write_sound(folder / "say.wav", seconds=2.4, hz=300.0)
    os.utime(folder / "say.wav", (0, 0))
    assert (folder / "say.wav").stat().st_size == size
    assert dub(folder).resumed_frames == 0


def test_a_clock_that_is_set_back(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dub(folder, "whole.mp4")

    def back() -> None:
        monkeypatch.setattr(time, "time", lambda: 0.0)
        for path in folder.rglob("*"):
            os.utime(path, (0, 0))

    when(monkeypatch, 30, back)
    result = dub(folder)
    assert result.seconds > 0
    assert (folder / "out.mp4").read_bytes() == (folder / "whole.mp4").read_bytes()
