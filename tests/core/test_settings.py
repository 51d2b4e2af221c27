"""Layers, provenance, and errors that say file, table, field, value and what is allowed."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from lipsync_core.backends import StageKind
from lipsync_core.errors import SettingsError
from lipsync_core.registry import Registry, discover
from lipsync_core.settings import Settings, available_profiles, resolve

from .plugins_on_disk import good, install


@pytest.fixture(scope="module")
def registry() -> Registry:
    return discover()


@pytest.fixture
def settle(registry: Registry, tmp_path: Path) -> Any:
    def run(*overrides: str, environment: dict[str, str] | None = None, **more: Any) -> Settings:
        return resolve(registry, overrides=overrides, environment=environment or {}, folder=tmp_path, **more)

    return run


def test_the_draft_profile_is_the_default(settle: Any) -> None:
    settings = settle()
    assert settings.profile == "draft"
    assert settings.stages[StageKind.DENOISER].entry.spec.name == "exemplar-opencv"
    assert settings.origin["denoiser.backend"] == "profile draft (packaged)"
    assert settings.origin["job.crf"] == "default"


def test_each_layer_beats_the_one_below(settle: Any, tmp_path: Path) -> None:
    assert settle().job.crf == 18
    (tmp_path / "lipsync.toml").write_text("[job]\ncrf = 20\nseed = 5\n")
    settings = settle()
    assert (settings.job.crf, settings.origin["job.crf"]) == (20, "lipsync.toml")
    environment = {"LIPSYNC_JOB__CRF": "21", "LIPSYNC_CACHE": "/x", "OTHER__CRF": "1"}
    settings = settle(environment=environment)
    assert (settings.job.crf, settings.origin["job.crf"]) == (21, "environment")
    mine = tmp_path / "mine.toml"
    mine.write_text('extends = "draft"\n[job]\ncrf = 22\n')
    settings = settle(environment=environment, profile=mine)
    assert (settings.job.crf, settings.job.seed) == (22, 5)
    settings = settle(environment=environment, profile=mine, flags={"job.crf": 23})
    assert (settings.job.crf, settings.origin["job.crf"]) == (23, "command line")
    settings = settle("job.crf=24", environment=environment, profile=mine, flags={"job.crf": 23})
    assert (settings.job.crf, settings.origin["job.crf"]) == (24, "--set")


def test_a_profile_named_by_project_file_or_environment_lies_below_them(settle: Any, tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text('extends = "draft"\n[job]\ncrf = 22\n')
    (tmp_path / "lipsync.toml").write_text(f"profile = '{mine}'\n[job]\ncrf = 20\n")
    assert settle().job.crf == 20
    assert settle(environment={"LIPSYNC_PROFILE": "draft"}).profile == "draft"


def test_another_backend_drops_the_options_of_the_one_before(settle: Any) -> None:
    settings = settle("masker.backend=fixed-mask")
    assert settings.stages[StageKind.MASKER].entry.spec.name == "fixed-mask"
    settings = settle("aligner.options.face=left")
    assert settings.origin["aligner.options.geometry"].startswith("profile")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("source", "source"),
        ("25", Fraction(25)),
        ("30000/1001", Fraction(30000, 1001)),
        ("23.976", Fraction(2997, 125)),
        ("23.976023976023978", Fraction(24000, 1001)),
        (Fraction(30 / 1.001), Fraction(30000, 1001)),
    ],
)
def test_frame_rates(settle: Any, text: object, value: object) -> None:
    assert settle(flags={"job.fps": text}).job.fps == value


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("nonsense", "not KEY=VALUE"),
        ("denoizer.backend=x", "there is no table 'denoizer'. Did you mean 'denoiser'"),
        ("denoiser.backends=x", "has no key 'backends'. Did you mean 'backend'"),
        ("denoiser.backend=exemplar", "no denoiser backend named 'exemplar'. Did you mean 'exemplar-opencv'"),
        ("denoiser.backend=3", "must be a name"),
        ("denoiser.options=3", "must be a table"),
        ("denoiser=3", "must be a table"),
        ("job.extnd=loop", "has no option 'extnd'. Did you mean 'extend'"),
        ("job.extend=pingpung", "job.extend = 'pingpung' does not fit.*'pingpong'"),
        ("job.crf=99", "job.crf = 99 does not fit.*less than or equal to 51"),
        ("job.fps=0", "job.fps = 0 does not fit: must lie between 1 and 240"),
        ("job.fps=abc", "must be 'source', a number"),
        ("aligner.options.face=lft", "aligner.options.face = 'lft' does not fit"),
    ],
)
def test_a_wrong_setting_says_where_what_and_the_nearest(settle: Any, override: str, message: str) -> None:
    with pytest.raises(SettingsError, match=f"^--set.*{message}"):
        settle(override)


def test_files_that_cannot_be_read(settle: Any, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"nowhere\.toml cannot be read"):
        settle(profile=tmp_path / "nowhere.toml")
    with pytest.raises(SettingsError, match="no profile named 'drat'. Did you mean 'draft'"):
        settle(profile="drat")
    (tmp_path / "lipsync.toml").write_text("[job\n")
    with pytest.raises(SettingsError, match=r"lipsync\.toml is not valid TOML"):
        settle()


def test_a_model_asked_for_by_hand_is_not_ignored(settle: Any, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="exemplar-opencv runs no model, so 'mini' cannot be used"):
        settle(flags={"job.model": "mini"})
    assert settle("job.model=mini").job.model == "mini"  # for the other contenders of a bench
    (tmp_path / "lipsync.toml").write_text('[job]\nmodel = "mini"\n')
    assert settle().job.model == "mini"  # for the profiles that run one


def test_a_file_may_extend_the_packaged_profile_of_its_name(settle: Any, tmp_path: Path) -> None:
    (tmp_path / "draft.toml").write_text('extends = "draft"\n[job]\ncrf = 22\n')
    settings = settle(profile=tmp_path / "draft.toml")
    assert (settings.job.crf, settings.origin["denoiser.backend"]) == (22, "profile draft (packaged)")


def test_options_of_no_backend_in_particular_go_to_the_one_a_profile_names(settle: Any, tmp_path: Path) -> None:
    (tmp_path / "lipsync.toml").write_text('[aligner.options]\nface = "left"\n[denoiser.options]\nsteps = 3\n')
    settings = settle(profile="draft")
    assert settings.stages[StageKind.ALIGNER].options.model_dump()["face"] == "left"
    assert settings.origin["aligner.options.face"] == "lipsync.toml"
    assert "steps" not in settings.stages[StageKind.DENOISER].options.model_dump()  # the exemplar has none
    assert "denoiser.options.steps" not in settings.values()


def test_an_incomplete_profile_names_the_stage(settle: Any, tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('[audio]\nbackend = "mouth-shape-numpy"\n')
    with pytest.raises(SettingsError, match="names no aligner backend"):
        settle(profile=tmp_path / "a.toml")


def test_plugins_bring_profiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "theirs.toml").write_text('summary = "Theirs"\nextends = "draft"\n[masker]\nbackend = "theirs"\n')
    source = f"""
        from pathlib import Path
        from lipsync_core import hookimpl

        @hookimpl
        def lipsync_register_profiles():
            return [Path({str(tmp_path / "theirs.toml")!r})]
    """
    from importlib.metadata import entry_points

    points = [
        *entry_points(group="lipsync"),
        good(tmp_path, "their-plugin", "their_plugin", "theirs"),
        install(tmp_path, "their-profiles", "their_profiles", source),
    ]
    registry = discover(points)
    assert available_profiles(registry)["theirs"].summary == "Theirs"
    settings = resolve(registry, profile="theirs", environment={}, folder=tmp_path)
    assert settings.stages[StageKind.MASKER].entry.spec.name == "theirs"
    assert settings.origin["masker.backend"] == "profile theirs (their-profiles 1.5)"
    (tmp_path / "theirs.toml").write_text("[job\n")
    assert resolve(registry, profile="draft", environment={}, folder=tmp_path).profile == "draft"
    with pytest.raises(SettingsError, match=r"profile theirs \(their-profiles 1.5\) is not valid TOML"):
        resolve(registry, profile="theirs", environment={}, folder=tmp_path)
    (tmp_path / "theirs.toml").write_text('name = "draft"\n')
    with pytest.raises(SettingsError, match="Two profiles are named 'draft'"):
        available_profiles(registry)
