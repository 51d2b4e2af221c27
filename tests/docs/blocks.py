"""Fenced code blocks of the pages, and a sandbox in which they are run in order, as a reader would.

A comment before a block says what cannot be run here and why:

    <!-- test: not run: it downloads 5.5 GB -->     commands are only parsed, Python is only compiled
    <!-- test: needs torch -->                      the same where a module is not installed
    <!-- test: fails: SettingsError -->             the last command ends with such an error
"""

from __future__ import annotations

import importlib
import json
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from lipsync_core.cli import app
from lipsync_core.errors import LipsyncError
from tests.core.testing.test_scaffold import as_installed

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
_FENCE = re.compile(
    r"(?:^<!-- test: (?P<note>.+?) -->\n+)?^(?P<indent> *)```(?P<info>[^\n]*)\n(?P<body>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)
_TITLE = re.compile(r'title="([^"]+)"')
_NO_RUN = {"text", "yaml", "mermaid"}  # shown, not run


@dataclass(frozen=True)
class Block:
    """One fenced block; `line` is where its text begins."""

    page: str
    line: int
    language: str
    title: str | None
    note: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks_of(path: Path) -> list[Block]:
    text = path.read_text(encoding="utf-8")
    found = []
    for match in _FENCE.finditer(text):
        language, _, rest = match["info"].strip().partition(" ")
        title = _TITLE.search(rest)
        line = text.count("\n", 0, match.start("body")) + 1
        body = re.sub(rf"^{match['indent']}", "", match["body"], flags=re.MULTILINE)
        page = path.relative_to(ROOT).as_posix()
        found.append(Block(page, line, language, title[1] if title else None, match["note"] or "", body))
    return found


@dataclass
class Sandbox:
    """A folder with a few files to work on, where the blocks of one page are run one after the other."""

    folder: Path
    monkeypatch: pytest.MonkeyPatch
    parse_only: bool = False
    names: dict[str, Any] = field(default_factory=lambda: {"__name__": "__page__"})
    here: Path = field(init=False)

    def __post_init__(self) -> None:
        self.here = self.folder
        self.monkeypatch.chdir(self.folder)
        self.monkeypatch.syspath_prepend(str(self.folder))

    def run(self, block: Block) -> None:
        kinds: dict[str, Callable[[Block], None]] = {
            "python": self._python,
            "sh": self._shell,
            "toml": self._toml,
            "json": lambda block: json.loads(block.text),
        }
        if block.language in _NO_RUN:
            return
        assert block.language in kinds, f"{block}: a block is one of {', '.join([*kinds, *sorted(_NO_RUN)])}"
        kinds[block.language](block)

    def only_parsed(self, block: Block) -> bool:
        if self.parse_only or block.note.startswith("not run: "):
            return True
        if block.note.startswith("needs "):
            return any(find_spec(module) is None for module in block.note.removeprefix("needs ").split(" and "))
        assert not block.note or block.note.startswith("fails: "), f"{block}: what does {block.note!r} mean?"
        return False

    def _python(self, block: Block) -> None:
        if block.title:
            self._write(block)
        code = compile("\n" * (block.line - 1) + block.text, str(ROOT / block.page), "exec")
        if not block.title and not self.only_parsed(block):
            exec(code, self.names)

    def _toml(self, block: Block) -> None:
        tomllib.loads(block.text)
        if block.title:
            self._write(block)

    def _write(self, block: Block) -> None:
        assert block.title is not None
        target = self.here / block.title
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(block.text, encoding="utf-8")

    def _shell(self, block: Block) -> None:
        for variables, words in commands(block):
            runner = getattr(self, f"_{words[0].replace('-', '_')}", None)
            assert runner is not None, f"{block}: the tests cannot run {words[0]}; teach them in tests/docs/blocks.py"
            with self.monkeypatch.context() as patch:
                for name, value in variables.items():
                    patch.setenv(name, value)
                runner(block, words[1:])

    def _lipsync(self, block: Block, words: list[str]) -> None:
        rest, group = list(words), get_command(app)
        while hasattr(group, "commands") and rest and not rest[0].startswith("-"):
            assert rest[0] in group.commands, f"{block}: lipsync has no command {rest[0]!r}"
            group, rest = group.commands[rest[0]], rest[1:]
        if rest not in (["--help"], ["--version"]):
            group.make_context("lipsync", list(rest))  # raises where a flag is unknown or an argument is missing
        if self.only_parsed(block):
            return
        self.forget()
        done = CliRunner().invoke(app, words)
        wanted = block.note.removeprefix("fails: ") if block.note.startswith("fails: ") else ""
        if wanted:
            assert done.exit_code != 0, f"{block}: lipsync {shlex.join(words)} was to fail"
            known = type(done.exception).__name__ if isinstance(done.exception, LipsyncError) else done.output
            assert wanted in known, f"{block}: {known}"
            return
        problem = f"{done.output}\n{done.exception}"
        assert done.exit_code == 0, f"{block}: lipsync {shlex.join(words)} ended with {done.exit_code}: {problem}"

    def forget(self) -> None:
        """Drop the modules that pages wrote: a reader's next command is a new process."""
        importlib.invalidate_caches()
        for name, module in list(sys.modules.items()):
            if str(self.folder) in str(getattr(module, "__file__", "")):
                del sys.modules[name]

    def _pip(self, block: Block, words: list[str]) -> None:
        """Nothing is installed: extras are looked up, and a folder of the sandbox gets the metadata pip would write."""
        assert words[0] == "install", f"{block}: pip {words[0]}"
        for word in words[1:]:
            name, _, extras = word.rstrip("]").partition("[")
            if name in (".", "lipsync-core") and not (self.here / "pyproject.toml").exists():
                unknown = set(filter(None, extras.split(","))) - set(PROJECT["optional-dependencies"])
                assert not unknown, f"{block}: lipsync-core has no extra {', '.join(unknown)}"
            elif (folder := self.here / name).joinpath("pyproject.toml").is_file() and not self.only_parsed(block):
                as_installed(folder.resolve())
                self.monkeypatch.syspath_prepend(str(folder.resolve()))
                # Its own tests run in another process.
                self.monkeypatch.setenv("PYTHONPATH", str(folder.resolve()))

    def _pytest(self, block: Block, words: list[str]) -> None:
        if self.only_parsed(block):
            return
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *words]
        done = subprocess.run(command, cwd=self.here, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{block}: {done.stdout}"

    def _cd(self, block: Block, words: list[str]) -> None:
        if not self.only_parsed(block):
            self.here = (self.here / words[0]).resolve()
            self.monkeypatch.chdir(self.here)

    def _python_module(self, block: Block, module: str) -> None:
        assert find_spec(module) is not None, f"{block}: there is no module {module}"

    def _python3(self, block: Block, words: list[str]) -> None:
        if words[:1] == ["-m"] and not words[1].startswith(("build", "venv", "pip")):
            self._python_module(block, words[1])

    def _make(self, block: Block, words: list[str]) -> None:
        text = (ROOT / "Makefile").read_text(encoding="utf-8")
        for word in words:
            assert "=" in word or re.search(rf"^{re.escape(word)}:", text, re.MULTILINE), f"{block}: no make {word}"


def commands(block: Block) -> list[tuple[dict[str, str], list[str]]]:
    """Return the commands of a shell block: the variables set for each and its words, continued lines joined."""
    found = []
    for line in block.text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        variables = {}
        while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
            name, _, variables[name] = words.pop(0).partition("=")
        if words and "…" not in words:
            found.append((variables, ["python3" if words[0] == "python" else words[0], *words[1:]]))
    return found
