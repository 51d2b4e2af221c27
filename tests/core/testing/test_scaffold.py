"""`lipsync plugin new`: what it writes passes its own tests before anybody has written a line."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lipsync_core.backends import StageKind
from lipsync_core.cli import app
from lipsync_core.errors import OutputError, SettingsError, WeightsError
from lipsync_core.models import store
from lipsync_core.registry import discover
from lipsync_core.testing.scaffold import write_plugin


def as_installed(folder: Path) -> Path:
    """Put the metadata an installer would write beside the package: from then on `sys.path` is all it takes."""
    project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    info = folder / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir()
    name, version = project["name"], project["version"]
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    points = "".join(f"{k} = {v}\n" for k, v in project["entry-points"]["lipsync"].items())
    (info / "entry_points.txt").write_text(f"[lipsync]\n{points}")
    return folder


@pytest.mark.parametrize("stage", list(StageKind))
def test_a_new_plugin_passes_its_own_tests(tmp_path: Path, stage: StageKind) -> None:
    folder = as_installed(write_plugin("their-own", stage, tmp_path / "plugin"))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "failed" not in done.stdout
    passed = int(done.stdout.rsplit(" passed", 1)[0].split()[-1])
    assert passed >= 10


def test_the_command_says_what_to_do_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["plugin", "new", "two-words", "--stage", "masker"])
    assert done.exit_code == 0, done.output
    assert "lipsync backends check two-words" in done.output
    folder = as_installed(tmp_path / "two-words")
    monkeypatch.syspath_prepend(str(folder))
    registry = discover()
    entry = registry.find(StageKind.MASKER, "two-words")
    assert str(entry.origin) == "lipsync-two-words 0.1.0"
    assert registry.factory(entry).__name__ == "TwoWords"
    written = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert written >= {
        "README.md",
        "pyproject.toml",
        ".github/workflows/tests.yml",
        "lipsync_two_words/plugin.py",
        "lipsync_two_words/two_words.py",
        "tests/test_two_words.py",
    }
    assert "${{ matrix.python }}" in (folder / ".github/workflows/tests.yml").read_text()


@pytest.mark.facemodel
@pytest.mark.parametrize("stage", list(StageKind))
def test_the_commands_of_its_readme_work(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    lipsync_clip: Callable[..., Path],
    lipsync_speech: Callable[..., Path],
    stage: StageKind,
) -> None:
    try:
        store.locate("face-landmarker", download=False)
    except WeightsError as error:
        pytest.skip(str(error))
    name = f"read-{stage}"  # each its own: a module once imported stays
    folder = as_installed(write_plugin(name, stage, tmp_path / "plugin"))
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.chdir(tmp_path)
    lipsync_clip(20, name="video.mp4")
    lipsync_speech(0.8, name="speech.wav")
    lines = (folder / "README.md").read_text().splitlines()
    commands = [shlex.split(line)[1:] for line in lines if line.startswith("    lipsync ")]
    assert [words[0] for words in commands] == ["backends", "run"]
    for words in commands:
        done = CliRunner().invoke(app, words)
        assert done.exit_code == 0, (words, done.output, done.exception)
    assert "20 dubbed" in done.output
    assert (tmp_path / "out.mp4").stat().st_size > 1000


@pytest.mark.parametrize("name", ["Big", "a b", "-x", "x-", "x_y", "../x", "1st", "class", ""])
def test_a_name_that_cannot_be_one(tmp_path: Path, name: str) -> None:
    with pytest.raises(SettingsError, match="lower case"):
        write_plugin(name, StageKind.MASKER, tmp_path / "plugin")


def test_nothing_is_written_over(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("")
    with pytest.raises(OutputError, match="already"):
        write_plugin("theirs", StageKind.MASKER, tmp_path)
