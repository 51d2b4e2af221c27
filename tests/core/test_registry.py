"""Plugins are loaded one by one; what is wrong with each is said, and the rest work."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from pydantic import BaseModel

from lipsync_core.backends import StageKind
from lipsync_core.errors import BackendError, SettingsError
from lipsync_core.registry import State, discover, nearest

from .plugins_on_disk import good, install

SPEC = """
    from lipsync_core import BackendSpec, StageKind, hookimpl

    @hookimpl
    def lipsync_register_backends():
        return [{spec}]
"""


class NoOptions(BaseModel):
    pass


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_first_party_backends_arrive_through_entry_points() -> None:
    registry = discover()
    assert registry.problems == []
    names = {(entry.spec.kind, entry.spec.name) for entry in registry.entries}
    assert names >= {
        (StageKind.AUDIO, "mouth-shape-numpy"),
        (StageKind.ALIGNER, "facemesh-opencv"),
        (StageKind.MASKER, "fixed-mask"),
        (StageKind.MASKER, "mouth-mask"),
        (StageKind.DENOISER, "exemplar-opencv"),
        (StageKind.COMPOSITOR, "feather-opencv"),
    }
    assert all(entry.origin.distribution == "lipsync-core" for entry in registry.entries)


def test_a_good_plugin_is_found_and_created(folder: Path) -> None:
    registry = discover([good(folder, "their-plugin", "their_plugin", "theirs")])
    entry = registry.find(StageKind.MASKER, "theirs")
    assert (entry.state, str(entry.origin)) == (State.READY, "their-plugin 1.5")
    model = registry.options_model(entry)
    backend = registry.create(entry, model(gain_db=3))
    assert backend.options.gain_db == 3


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("raise RuntimeError('no luck')", "RuntimeError: no luck"),
        ("import a_module_that_is_not_there", "ModuleNotFoundError"),
        ("def lipsync_register_backends(): return []", "implements no lipsync hook"),
        (
            "from lipsync_core import hookimpl\n@hookimpl\ndef lipsync_register_backend(): return []",
            "unknown hook",
        ),
        (
            "from lipsync_core import hookimpl\n@hookimpl\ndef lipsync_register_backends(): return 1 / 0",
            "lipsync_register_backends failed: ZeroDivisionError",
        ),
        (SPEC.format(spec="'text'"), "returned str, not BackendSpec"),
        (SPEC.format(spec="BackendSpec('masker', 'x', '', 'm:C', 'm:O')"), "StageKind"),
        (SPEC.format(spec="BackendSpec(StageKind.MASKER, 'Bad Name', '', 'm:C', 'm:O')"), "lower case"),
        (SPEC.format(spec="BackendSpec(StageKind.MASKER, 'x', '', 'no target', 'm:O')"), "'module:Class'"),
        (SPEC.format(spec="BackendSpec(StageKind.MASKER, 'x', '', int, 'm:O')"), "factory must be a string"),
        (SPEC.format(spec="BackendSpec(StageKind.MASKER, 3, '', 'm:C', 'm:O')"), "name must be a string"),
        (SPEC.format(spec="BackendSpec(StageKind.MASKER, 'x', '', 'm:C', 'm:O', requires='cv2')"), "tuple of module"),
        (SPEC.format(spec="BackendSpec(StageKind.MASKER, 'x', '', 'm:C', 'm:O', api='2')"), "api must be a whole"),
    ],
)
def test_a_bad_plugin_is_named_and_harms_no_other(folder: Path, source: str, message: str) -> None:
    points = [
        install(folder, "bad-plugin", "bad_plugin", source),
        good(folder, "their-plugin", "their_plugin", "theirs"),
    ]
    registry = discover(points)
    (problem,) = registry.problems
    assert str(problem.origin) == "bad-plugin 1.5"
    assert message in problem.error
    assert registry.find(StageKind.MASKER, "theirs").state is State.READY


def test_a_missing_dependency_names_the_pip_line(folder: Path) -> None:
    spec = (
        "BackendSpec(StageKind.MASKER, 'x', '', 'm:C', 'm:O', requires=('not_there',), install='pip install not-there')"
    )
    registry = discover([install(folder, "needy", "needy", SPEC.format(spec=spec))])
    assert registry.entries[0].state is State.MISSING
    with pytest.raises(BackendError, match="missing.*pip install not-there"):
        registry.find(StageKind.MASKER, "x")


def test_a_newer_api_is_refused(folder: Path) -> None:
    spec = "BackendSpec(StageKind.MASKER, 'x', '', 'm:C', 'm:O', api=99)"
    registry = discover([install(folder, "newer", "newer", SPEC.format(spec=spec))])
    with pytest.raises(BackendError, match=r"x \(newer 1\.5\) is broken.*API 99, this lipsync-core has 1.*update lips"):
        registry.find(StageKind.MASKER, "x")


def test_of_two_with_one_name_neither_is_usable(folder: Path) -> None:
    registry = discover([good(folder, "first", "first", "same"), good(folder, "second", "second", "same")])
    assert [entry.state for entry in registry.entries] == [State.CONFLICT, State.CONFLICT]
    with pytest.raises(BackendError, match=r"first 1\.5 and second 1\.5"):
        registry.find(StageKind.MASKER, "same")


def test_an_unknown_name_gets_the_nearest(folder: Path) -> None:
    registry = discover([good(folder, "their-plugin", "their_plugin", "theirs")])
    with pytest.raises(SettingsError, match="Did you mean 'theirs'"):
        registry.find(StageKind.MASKER, "their")


def test_a_backend_that_fails_to_import_or_to_start_is_named(folder: Path) -> None:
    source = """
        from pydantic import BaseModel
        from lipsync_core import BackendSpec, StageKind, hookimpl

        class Options(BaseModel):
            pass

        def broken(options):
            raise OSError("disk on fire")

        @hookimpl
        def lipsync_register_backends():
            return [
                BackendSpec(StageKind.MASKER, "absent", "", "fragile:Nothing", "fragile:Options"),
                BackendSpec(StageKind.MASKER, "broken", "", "fragile:broken", "fragile:broken"),
            ]
    """
    registry = discover([install(folder, "fragile-plugin", "fragile", source)])
    absent, broken = registry.entries
    with pytest.raises(
        BackendError, match=r"absent \(fragile-plugin 1\.5\) is broken: fragile:Nothing cannot be imported"
    ):
        registry.create(absent, NoOptions())
    with pytest.raises(BackendError, match="OSError: disk on fire"):
        registry.create(broken, NoOptions())
    with pytest.raises(BackendError, match="not a pydantic model"):
        registry.options_model(broken)


def test_listing_imports_nothing_heavy(folder: Path) -> None:
    source = SPEC.format(spec="BackendSpec(StageKind.MASKER, 'x', '', 'heavy_module:C', 'heavy_module:O')")
    (folder / "heavy_module.py").write_text("")
    discover([install(folder, "light", "light", source)])
    assert "heavy_module" not in sys.modules


def test_nearest_lists_all() -> None:
    assert nearest("pingpung", ["pingpong", "loop"]) == "Did you mean 'pingpong'? Known: pingpong, loop."
    assert nearest("zzz", []) == "Known: none."
