"""`Dubber` and `dub` in four threads: the outputs are those of one job after the other, and nothing else changes."""

from __future__ import annotations

import logging
import os
import random
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest

from lipsync_core.api import Dubber, DubResult
from lipsync_core.errors import InputError
from lipsync_core.testing.files import write_speech, write_video
from tests.core import fake_plugin as fake

from .conftest import fill
from .jobs import fake_backends

THREADS: Final = 4
Dub = Callable[[int, str], DubResult]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIPSYNC_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def jobs(tmp_path: Path) -> list[Path]:
    """Folders of jobs that differ in length."""
    folders = [tmp_path / str(k) for k in range(THREADS)]
    for k, folder in enumerate(folders):
        folder.mkdir()
        fill(folder, 30 + 7 * k)
    return folders


def both_ways(outputs: list[Path], dub: Dub) -> None:
    """Hold the outputs of threads that begin together to those of one thread."""
    together = threading.Barrier(THREADS)

    def in_thread(number: int) -> DubResult:
        together.wait()
        return dub(number, "threads.mp4")

    with ThreadPoolExecutor(THREADS) as pool:
        results = list(pool.map(in_thread, range(THREADS)))
    for number, result in enumerate(results):
        alone = dub(number, "alone.mp4")
        assert (result.frames, result.dubbed) == (alone.frames, alone.dubbed)
        assert result.dubbed > 0
        folder = outputs[number]
        assert (folder / "threads.mp4").read_bytes() == (folder / "alone.mp4").read_bytes()
    assert len({(folder / "alone.mp4").read_bytes() for folder in outputs}) == THREADS


def test_one_dubber_in_four_threads(jobs: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Its backends see one video at a time, and are made once."""
    made: list[fake.FakeDenoiser] = []
    init = fake.FakeDenoiser.__init__

    def counted(self: fake.FakeDenoiser, options: fake.Options) -> None:
        init(self, options)
        made.append(self)

    monkeypatch.setattr(fake.FakeDenoiser, "__init__", counted)
    with fake_backends() as registry, Dubber(profile=jobs[0] / "fake.toml", registry=registry) as dubber:
        both_ways(jobs, lambda k, out: dubber.dub(jobs[k] / "in.mp4", jobs[k] / "say.wav", jobs[k] / out))
    assert len(made) == 1
    assert made[0].closed == 1


def test_an_error_in_one_thread_is_that_threads(jobs: list[Path]) -> None:
    (jobs[1] / "in.mp4").write_bytes(b"no video")
    with fake_backends() as registry, Dubber(profile=jobs[0] / "fake.toml", registry=registry) as dubber:

        def dub(k: int) -> int | str:
            try:
                return dubber.dub(jobs[k] / "in.mp4", jobs[k] / "say.wav", jobs[k] / "out.mp4").frames
            except InputError as error:
                return error.cause

        with ThreadPoolExecutor(THREADS) as pool:
            done = list(pool.map(dub, range(THREADS)))
    assert [done[0], *done[2:]] == [30, 44, 51]
    assert "in.mp4' is not a video" in str(done[1])


def test_closing_waits_for_the_job_of_another_thread(jobs: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    begun, closed = threading.Event(), threading.Event()
    generate, close = fake.FakeDenoiser.generate, fake.FakeDenoiser.close

    def slow(self: fake.FakeDenoiser, *given: Any) -> Any:
        begun.set()
        assert not closed.wait(0.02)
        return generate(self, *given)

    def closing(self: fake.FakeDenoiser) -> None:
        closed.set()
        close(self)

    monkeypatch.setattr(fake.FakeDenoiser, "generate", slow)
    monkeypatch.setattr(fake.FakeDenoiser, "close", closing)
    folder = jobs[0]
    with fake_backends() as registry, ThreadPoolExecutor(1) as pool:
        dubber = Dubber(profile=folder / "fake.toml", registry=registry)
        job = pool.submit(dubber.dub, folder / "in.mp4", folder / "say.wav", folder / "out.mp4")
        assert begun.wait(60)
        dubber.close()
        assert job.done()
        assert job.result().frames == 30
    assert closed.is_set()


@pytest.mark.facemodel
@pytest.mark.parametrize("shared", [True, False], ids=["one Dubber", "four Dubbers"])
def test_the_draft_profile_in_four_threads(tmp_path: Path, shared: bool) -> None:
    for k in range(THREADS):
        write_video(tmp_path / f"{k}.mp4", 11 * k, 11 * k + 24)
        write_speech(tmp_path / f"{k}.wav", 0.3 * k, 0.3 * k + 0.8, 16000)
        (tmp_path / f"out{k}").mkdir()
    with ExitStack() as stack:
        dubbers = [stack.enter_context(Dubber(profile="draft")) for _ in range(1 if shared else THREADS)]

        def dub(k: int, name: str) -> DubResult:
            output = tmp_path / f"out{k}" / name
            return dubbers[k % len(dubbers)].dub(tmp_path / f"{k}.mp4", tmp_path / f"{k}.wav", output)

        both_ways([tmp_path / f"out{k}" for k in range(THREADS)], dub)


def test_a_job_leaves_the_process_as_it_was(jobs: list[Path]) -> None:
    """Apart from OpenCV's own threads, which a job sets to one."""

    def state() -> tuple[object, ...]:
        numbers: Any = np.random.get_state()
        root = logging.getLogger()
        return (
            *(dict(os.environ), Path.cwd(), random.getstate(), numbers[1].tobytes(), numbers[2:]),
            *(list(warnings.filters), root.level, list(root.handlers), np.geterr(), threading.active_count()),
        )

    with fake_backends() as registry, Dubber(profile=jobs[0] / "fake.toml", registry=registry) as dubber:
        before = state()
        dubber.dub(jobs[0] / "in.mp4", jobs[0] / "say.wav", jobs[0] / "out.mp4")
        assert state() == before
