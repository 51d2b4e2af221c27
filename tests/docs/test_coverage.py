"""Every hook, option, setting, command, flag, error class, check and fixture is in the documentation."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from doctools import tables
from lipsync_core.backends import StageKind
from lipsync_core.cli import app
from lipsync_core.hookspecs import LipsyncHooks
from lipsync_core.job_settings import JobSettings
from lipsync_core.registry import discover
from lipsync_core.settings import available_profiles
from lipsync_core.testing import CHECKS, pytest_plugin
from tests.docs.blocks import ROOT

PAGES = sorted((ROOT / "docs").rglob("*.md"))
CODE = [*(ROOT / "lipsync_core").rglob("*.py"), *(ROOT / "plugins").glob("*/lipsync_*/**/*.py")]


@pytest.fixture(scope="module")
def text() -> str:
    """All pages, with their tables."""
    for module in ("torch", "diffusers", "onnxruntime"):
        pytest.importorskip(module, reason="the options of the torch and ONNX backends are read from their classes")
    return "\n".join(tables.fill(page.read_text(encoding="utf-8")) for page in PAGES)


def documented(text: str, name: str, how: str) -> None:
    assert f"`{name}`" in text, f"{name} is nowhere in docs/: {how}"


def test_every_backend_and_option(text: str) -> None:
    registry = discover()
    for entry in tables.own_backends():
        documented(text, entry.spec.name, "docs/reference/plugins.md lists backends with <!-- table: backends -->")
        for option in registry.options_model(entry).model_fields:
            name = f"{entry.spec.kind}.options.{option}"
            documented(
                text, name, f"docs/reference/options.md lists them with <!-- table: options {entry.spec.kind} -->"
            )


def test_every_setting_of_a_job(text: str) -> None:
    for name in JobSettings.model_fields:
        documented(text, f"job.{name}", "docs/settings.md lists them with <!-- table: job -->")


def test_every_profile(text: str) -> None:
    for name, profile in available_profiles(discover()).items():
        if "packaged" in profile.layer.name:
            documented(text, name, "docs/settings.md lists them with <!-- table: profiles -->")


def test_every_hook(text: str) -> None:
    for name in vars(LipsyncHooks):
        if name.startswith("lipsync_"):
            documented(text, name, "docs/reference/plugins.md lists them with <!-- table: hooks -->")


def test_every_error_class(text: str) -> None:
    for found in tables.error_classes():
        documented(text, found.__name__, "docs/reference/api.md lists them with <!-- table: errors -->")


def test_every_check_and_fixture(text: str) -> None:
    for kind in StageKind:
        for check in CHECKS[kind]:
            documented(text, check.__name__, f"docs/reference/plugins.md lists them with <!-- table: checks {kind} -->")
    for name in vars(pytest_plugin):
        if name.startswith("lipsync_"):
            documented(text, name, "docs/reference/plugins.md lists them with <!-- table: fixtures -->")


def test_every_command_and_flag(text: str) -> None:
    def look(command: Any, path: str) -> None:
        assert f"### {path}\n" in text, f"{path} is nowhere in docs/reference/cli.md"
        section = text.partition(f"### {path}\n")[2].partition("\n### ")[0]
        for parameter in command.params:
            names = [] if parameter.name == "help" else [*parameter.opts, *parameter.secondary_opts]
            for name in names:
                shown = name.upper() if parameter.param_type_name == "argument" else name
                assert re.search(rf"`{re.escape(shown)}[` ]", section), (
                    f"{path} {shown} is nowhere in docs/reference/cli.md"
                )
        for name, inner in getattr(command, "commands", {}).items():
            look(inner, f"{path} {name}")

    look(get_command(app), "lipsync")


def test_every_environment_variable(text: str) -> None:
    names = {name for file in CODE for name in re.findall(r'"(LIPSYNC_[A-Z0-9]+)"', file.read_text(encoding="utf-8"))}
    assert names >= {"LIPSYNC_CACHE", "LIPSYNC_DEBUG", "LIPSYNC_MODELS"}
    for name in names:
        documented(text, name, "add it to the table of environment variables in docs/settings.md")


def test_no_mark_of_a_table_is_misspelt(text: str) -> None:
    assert "<!-- table" not in text


@pytest.mark.parametrize("file", [*PAGES, ROOT / "README.md", ROOT / "CONTRIBUTING.md"], ids=lambda p: p.name)
def test_links_between_pages_lead_somewhere(file: Path) -> None:
    for link in re.findall(r"\]\((?!https?:|mailto:|#)([^)#]+)(?:#[^)]*)?\)", file.read_text(encoding="utf-8")):
        assert (file.parent / link).exists(), f"{file.relative_to(ROOT)}: there is no {link}"


def test_a_setting_that_is_mentioned_exists() -> None:
    """Examples in help texts, messages and pages name options that some backend has."""
    registry = discover()
    known = {f"job.{name}" for name in JobSettings.model_fields} | {f"{kind}.backend" for kind in StageKind}
    for entry in tables.own_backends():
        if not {module for module in entry.spec.requires if find_spec(module) is None} - {"insightface"}:
            options = registry.options_model(entry).model_fields
            known |= {f"{entry.spec.kind}.options.{name}" for name in options}
    if find_spec("torch") is None:
        pytest.skip("the options of the torch backends are read from their classes")
    for file in [*CODE, *PAGES, ROOT / "README.md"]:
        if file.name == "tutorial.md":  # has backends of its own; its commands are run
            continue
        for key in re.findall(r"--set ([a-z]+\.[\w.]+)=", _without_failing(file)):
            assert key in known, f"{file.relative_to(ROOT)}: no backend has the setting {key}"


def _without_failing(file: Path) -> str:
    """Return a file without the blocks that show a mistake."""
    return re.sub(r"<!-- test: fails.*?```.*?```", "", file.read_text(encoding="utf-8"), flags=re.DOTALL)
