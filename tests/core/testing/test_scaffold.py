"""`lipsync plugin new`: what it writes passes its own tests before anybody has written a line."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from lipsync_core.backends import StageKind
from lipsync_core.cli import app
from lipsync_core.errors import OutputError, SettingsError
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


def test_the_commands_of_its_readme_can_be_given(tmp_path: Path) -> None:
    write_plugin("mine", StageKind.DENOISER, tmp_path / "mine")
    lines = (tmp_path / "mine" / "README.md").read_text().splitlines()
    commands = [shlex.split(line)[1:] for line in lines if line.startswith("    lipsync ")]
    assert [words[0] for words in commands] == ["backends", "run"]
    for words in commands:
        group: Any = get_command(app)
        while hasattr(group, "commands") and words:
            group, words = group.commands[words[0]], words[1:]
        group.make_context("lipsync", words)  # raises where an argument is too many or an option is missing


@pytest.mark.parametrize("name", ["Big", "a b", "-x", "x-", "x_y", "../x", "1st", "class", ""])
def test_a_name_that_cannot_be_one(tmp_path: Path, name: str) -> None:
    with pytest.raises(SettingsError, match="lower case"):
        write_plugin(name, StageKind.MASKER, tmp_path / "plugin")


def test_nothing_is_written_over(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("")
    with pytest.raises(OutputError, match="already"):
        write_plugin("theirs", StageKind.MASKER, tmp_path)
