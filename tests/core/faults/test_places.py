"""Disks that are full, folders that cannot be written, caches that are broken."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from lipsync_core import cache
from lipsync_core.errors import OutputError
from tests.core.clips import write_video

from .conftest import fill, litter
from .jobs import dub


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIPSYNC_CACHE", str(tmp_path / "cache"))


@contextlib.contextmanager
def small_disk(place: Path, kilobytes: int) -> Iterator[Path]:
    """Mount a file system of that size."""
    place.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "none", str(place)], check=False, capture_output=True
    )
    if made.returncode:
        pytest.skip("mounting a small file system needs root")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def noisy(folder: Path) -> Path:
    """A job whose pictures take some 15 kB each."""
    fill(folder)
    rng = np.random.default_rng(0)
    write_video(folder / "in.mp4", rng.integers(100, 255, (60, 96, 96, 3), np.uint8))
    return folder


def test_a_full_disk_keeps_what_is_whole_and_goes_on_later(tmp_path: Path) -> None:
    folder = noisy(tmp_path)
    dub(folder, "whole.mp4")
    need = (folder / "whole.mp4").stat().st_size // 1024
    with small_disk(tmp_path / "disk", 2 * need + 64) as disk:  # segments and output beside each other
        filler = disk / "filler"
        filler.write_bytes(bytes(1024 * int(1.4 * need)))  # leaves room for about half of the segments
        with pytest.raises(OutputError, match="No space left on device"):
            dub(folder, disk / "out.mp4")
        work = disk / ".out.mp4.lipsync"
        kept = sorted(path.name for path in work.iterdir())
        assert kept[-1] == "job.json"
        assert len(kept) >= 2
        assert all(name.endswith(".mkv") for name in kept[:-1])
        assert sorted(path.name for path in disk.iterdir()) == [work.name, "filler"]
        filler.unlink()
        assert dub(folder, disk / "out.mp4").resumed_frames == 12 * (len(kept) - 1)
        assert (disk / "out.mp4").read_bytes() == (folder / "whole.mp4").read_bytes()
        assert [path.name for path in disk.iterdir()] == ["out.mp4"]


def test_a_disk_that_is_full_when_the_parts_are_joined(tmp_path: Path) -> None:
    folder = noisy(tmp_path)
    dub(folder, "whole.mp4")
    need = (folder / "whole.mp4").stat().st_size // 1024
    with small_disk(tmp_path / "disk", int(1.4 * need) + 64) as disk:
        with pytest.raises(OutputError, match="No space left on device") as caught:
            dub(folder, disk / "out.mp4")
        assert "'" + str(disk / "out.mp4") + "'" in caught.value.cause
        assert [path.name for path in disk.iterdir()] == [".out.mp4.lipsync"]
        assert sorted(path.name for path in (disk / ".out.mp4.lipsync").iterdir()) == [
            *(f"{k:06d}.mkv" for k in range(5)),
            "job.json",
        ]


def test_a_disk_without_a_byte_left(tmp_path: Path) -> None:
    folder = fill(tmp_path)
    with small_disk(tmp_path / "disk", 16) as disk:
        with contextlib.suppress(OSError):
            (disk / "filler").write_bytes(bytes(1 << 20))
        with pytest.raises(OutputError, match="No space left on device"):
            dub(folder, disk / "out.mp4")
        assert [path.name for path in disk.iterdir()] == ["filler"]


def test_a_folder_nobody_may_write_to(folder: Path) -> None:
    with pytest.raises(OutputError, match="cannot be written to|may not be written"):
        dub(folder, "/proc/out.mp4")  # not even root


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_this_user_may_not_write_to(folder: Path) -> None:
    locked = folder / "locked"
    locked.mkdir(mode=0o555)
    with pytest.raises(OutputError, match="may not be written"):
        dub(folder, "locked/out.mp4")


def test_an_output_on_another_file_system(tmp_path: Path) -> None:
    folder = fill(tmp_path)
    dub(folder)
    with small_disk(tmp_path / "disk", 4096) as disk:
        dub(folder, disk / "out.mp4")
        assert (disk / "out.mp4").read_bytes() == (folder / "out.mp4").read_bytes()
        assert [path.name for path in disk.iterdir()] == ["out.mp4"]


# The cache


def cached_file() -> Path:
    (file,) = cache.analysis_dir().glob("*.npz")
    return file


def _shorten(data: bytes) -> bytes:
    return data[: len(data) // 2]


def _flip(data: bytes) -> bytes:
    broken = bytearray(data)
    broken[len(data) // 3] ^= 0x55
    return bytes(broken)


@pytest.mark.parametrize("damage", [_shorten, _flip, lambda data: b"", lambda data: b"PK\x03\x04" + bytes(500)])
def test_a_damaged_cache_is_made_anew_with_one_warning(
    folder: Path, caplog: pytest.LogCaptureFixture, damage: object
) -> None:
    dub(folder, "first.mp4")
    file = cached_file()
    file.write_bytes(damage(file.read_bytes()))  # type: ignore[operator]
    assert not dub(folder, "second.mp4").analysis_cached
    assert [r.levelname for r in caplog.records] == ["WARNING"]
    assert "made anew" in caplog.text
    assert dub(folder, "third.mp4").analysis_cached
    assert (folder / "second.mp4").read_bytes() == (folder / "first.mp4").read_bytes()


@pytest.mark.parametrize("place", ["a file", "/proc"])
def test_a_cache_that_cannot_be_written_costs_only_the_reuse(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, place: str
) -> None:
    if place == "a file":
        place = str(folder / "say.wav")
    monkeypatch.setenv("LIPSYNC_CACHE", place)
    assert dub(folder).frames == 60
    assert [r.levelname for r in caplog.records] == ["WARNING"]
    assert "cannot be cached" in caplog.text


def test_a_cache_that_may_not_be_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused(file: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(file))

    monkeypatch.setattr(cache, "_load", refused)
    monkeypatch.setattr(cache, "_save", lambda file, analysis: refused(file))
    assert dub(folder).frames == 60
    assert len(caplog.records) == 2


def test_a_full_disk_under_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = fill(tmp_path)
    with small_disk(tmp_path / "disk", 16) as disk:
        with contextlib.suppress(OSError):
            (disk / "filler").write_bytes(bytes(1 << 20))
        monkeypatch.setenv("LIPSYNC_CACHE", str(disk))
        assert dub(folder).frames == 60
        assert not list(disk.rglob("*.partial"))
        assert not list(disk.rglob("*.npz"))
    assert "cannot be cached" in caplog.text
    assert litter(folder) == ["disk"]


def test_clearing_the_cache_takes_what_killed_processes_left(folder: Path) -> None:
    dub(folder)
    (cache.analysis_dir() / "abc.123.456.partial").write_bytes(bytes(10))
    assert cache.clear() == 1
    assert not list(cache.analysis_dir().iterdir())
