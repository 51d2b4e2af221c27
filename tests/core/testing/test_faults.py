"""Planted faults: the kit finds each, and says what to do."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from typer.testing import CliRunner

from lipsync_core.backends import StageKind
from lipsync_core.cli import app
from lipsync_core.registry import discover
from lipsync_core.testing import CHECKS, Case, DenoiserContract, run_checks
from lipsync_core.testing.case import Outcome, Result
from lipsync_core.testing.checks import overshoot_is_clipped
from lipsync_core.types import AlignedFaces, FrameBatch, GeneratedFaces, MouthMask
from tests.core.plugins_on_disk import install

BACKEND = """
    {top}
    from lipsync_core import BackendSpec, StageKind, hookimpl

    @hookimpl
    def lipsync_register_backends():
        return [BackendSpec(
            StageKind.DENOISER, "{name}", "For tests", "{module}_backend:Backend", "{module}_backend:Options"{spec}
        )]
"""
WORK = """
import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from lipsync_core.types import GeneratedFaces

class Options(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    strength: float = Field(0.2, {describe})

class Backend:
    feature_shape, crop_size, max_frames, latent_shape = (1, 2), None, 16, (2,)
    {extra}
    def __init__(self, options):
        self.calls, self.buffer, self.kept = 0, {{}}, []

    def generate(self, faces, mask, audio, noise):
        pixels = (faces.pixels / np.float32(255)).astype(np.float32)
        {body}
        return GeneratedFaces(pixels)
"""


def plant(
    folder: Path, name: str = "faulty", *, top: str = "", spec: str = "", describe: str = "", **work: str
) -> Case:
    module = name.replace("-", "_")
    text = WORK.format(describe=describe or 'description="how much"', **{"extra": "", "body": "pass", **work})
    (folder / f"{module}_backend.py").write_text(text)
    install(folder, f"{name}-plugin", module, BACKEND.format(top=top, name=name, module=module, spec=spec))
    return Case(discover(), StageKind.DENOISER, name)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path))
    for module in ("faulty", "faulty_backend", "rival", "rival_backend"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    return tmp_path


def failed(case: Case, check: str) -> str:
    """Return what one check says, which must be a failure."""
    (chosen,) = [c for c in CHECKS[case.kind] if c.__name__ == check]
    (result,) = run_checks((chosen,), case, {})
    assert result.outcome is Outcome.FAILED, result
    return result.detail


def results(case: Case) -> list[Result]:
    return list(run_checks(CHECKS[case.kind], case))


def test_a_good_one_passes_every_check(folder: Path) -> None:
    assert {r.outcome for r in results(plant(folder))} == {Outcome.OK, Outcome.NOT_ASKED}


@pytest.mark.parametrize(
    ("check", "body", "message"),
    [
        ("shapes_and_range", "pixels = pixels.astype(np.float64)", "must be float32.*Mend that"),
        ("shapes_and_range", "pixels = pixels * 255", "ranges over.*not 0…1.*Return what `generate`"),
        ("shapes_and_range", "pixels = pixels[:, ::2].copy()", "has shape.*not"),
        (
            "same_however_cut",
            "pixels = pixels * 0.5 + 0.5 * self.buffer.get('last', 0); self.buffer['last'] = pixels[-1]",
            "In pieces of 1.*keep no state",
        ),
        ("same_again", "self.calls += 1; pixels = pixels * np.float32(1 / self.calls)", "second time.*forget one call"),
        ("same_again", "pixels = pixels * np.random.default_rng().random(dtype=np.float32)", "Draw no random numbers"),
        (
            "earlier_output_kept",
            "out = self.buffer.setdefault(len(pixels), np.empty_like(pixels)); out[:] = pixels; pixels = out",
            "A later call wrote into an earlier result.*new array",
        ),
        ("inputs_unchanged", "faces.pixels[:] = 0", "changed its input.*Copy"),
        ("inputs_unchanged", "faces.pixels[:] = faces.pixels", "cannot be written to.*Copy"),
        ("memory_is_flat", "self.kept.append(pixels.copy())", "MB more are in use.*Let go"),
        (
            "two_threads",
            "import threading; assert threading.current_thread() is threading.main_thread()",
            "beside another it raised.*Keep what an instance needs",
        ),
    ],
)
def test_wrong_work(folder: Path, check: str, body: str, message: str) -> None:
    import re

    assert re.search(message, failed(plant(folder, body=body), check))


def test_close_that_fails_the_second_time(folder: Path) -> None:
    case = plant(folder, extra="def close(self): del self.buffer")
    assert "Let close() do nothing" in failed(case, "close_twice")


def test_something_heavy_at_plugin_load(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "torch.py").write_text("")
    monkeypatch.setitem(sys.modules, "torch", ModuleType("torch"))  # or the empty one would stay for later tests
    detail = failed(plant(folder, top="import torch"), "plugin_import_is_light")
    assert "imports torch" in detail
    assert "Import it in the backend's own module" in detail


def test_a_crash_at_import(folder: Path) -> None:
    detail = failed(plant(folder, top="raise RuntimeError('no luck')"), "name_and_spec")
    assert "faulty-plugin 1.5" in detail
    assert "RuntimeError: no luck" in detail
    assert "mend what it raises" in detail


def test_a_missing_hook(folder: Path) -> None:
    install(folder, "faulty-plugin", "faulty", "def lipsync_register_backends(): return []")
    detail = failed(Case(discover(), StageKind.DENOISER, "faulty"), "name_and_spec")
    assert "implements no lipsync hook" in detail
    assert "put @hookimpl on it" in detail


def test_a_name_there_is_already(folder: Path) -> None:
    plant(folder)
    source = BACKEND.format(top="", name="faulty", module="faulty", spec="")
    install(folder, "rival-plugin", "rival", source)
    detail = failed(Case(discover(), StageKind.DENOISER, "faulty"), "name_and_spec")
    assert "faulty-plugin 1.5 and rival-plugin 1.5" in detail
    assert "uninstall all but one" in detail


def test_a_newer_api(folder: Path) -> None:
    assert "stage API 99" in failed(plant(folder, spec=", api=99"), "name_and_spec")
    assert "update lipsync-core" in failed(Case(discover(), StageKind.DENOISER, "faulty"), "shapes_and_range")


def test_options_that_are_not_described(folder: Path) -> None:
    detail = failed(plant(folder, describe="ge=0"), "options_are_strict_and_described")
    assert "does not describe strength" in detail
    assert "description=" in detail


def test_a_dependency_without_its_pip_line(folder: Path) -> None:
    detail = failed(plant(folder, spec=", requires=('numpy',)"), "missing_dependency_is_named")
    assert "Set `install`" in detail


def test_a_dependency_with_its_pip_line(folder: Path) -> None:
    case = plant(folder, spec=", requires=('cv2',), install='pip install opencv-python-headless'")
    (check,) = [c for c in CHECKS[case.kind] if c.__name__ == "missing_dependency_is_named"]
    assert [r.outcome for r in run_checks((check,), case, {})] == [Outcome.OK]


def test_a_reference_it_does_not_agree_with(folder: Path) -> None:
    plant(folder)
    plant(folder, "rival", body="pixels = pixels * np.float32(0.9)")
    options = {"reference": "faulty", "tolerance": 0.01}
    detail = failed(Case(discover(), StageKind.DENOISER, "rival", **options), "agrees_with_reference")
    assert "0.01 is declared" in detail
    options["tolerance"] = 0.2
    (check,) = [c for c in CHECKS[StageKind.DENOISER] if c.__name__ == "agrees_with_reference"]
    (result,) = run_checks((check,), Case(discover(), StageKind.DENOISER, "rival", **options), {})
    assert result.outcome is Outcome.OK


def test_an_expected_failure_carries_its_reason_and_is_strict(folder: Path) -> None:
    extra = "expected_failures = {'shapes_and_range': 'on purpose', 'same_again': 'not at all', 'no_check': ''}"
    outcomes = {r.check: r for r in results(plant(folder, extra=extra, body="pixels = pixels * 9"))}
    assert outcomes["shapes_and_range"].outcome is Outcome.EXPECTED
    assert outcomes["shapes_and_range"].detail == "on purpose"
    assert outcomes["same_again"].outcome is Outcome.FAILED
    assert "Remove same_again" in outcomes["same_again"].detail
    assert outcomes["no_check"].outcome is Outcome.FAILED


def test_a_check_cannot_be_overridden() -> None:
    with pytest.raises(TypeError, match=r"overrides test_same_again.*expected_failures"):
        type("TestMine", (DenoiserContract,), {"backend": "mine", "test_same_again": lambda self: None})
    with pytest.raises(TypeError, match="overrides test_two_threads"):
        type("TestMine", (type("Mixin", (), {"test_two_threads": None}), DenoiserContract), {"backend": "mine"})
    with pytest.raises(TypeError, match="no check"):
        type("TestMine", (DenoiserContract,), {"backend": "mine", "expected_failures": {"same_agian": ""}})


def test_the_command(folder: Path) -> None:
    plant(folder, body="pixels = pixels * 255")
    done = CliRunner().invoke(app, ["backends", "check", "faulty"])
    assert done.exit_code == 1
    assert "FAILED: For 1 frames, the generated crop ranges over" in done.output
    assert len(done.output.splitlines()) == len(CHECKS[StageKind.DENOISER]) + 1
    good = CliRunner().invoke(app, ["backends", "check", "fixed-mask", "--stage", "masker"])
    assert good.exit_code == 0, good.output


@pytest.mark.parametrize(
    "arguments",
    [
        ["nope"],
        ["fixed-mask", "--stage", "denoiser"],
        ["mouth-mask", "--option", "x=1"],
        ["mouth-mask", "--option", "x"],
    ],
)
def test_bad_usage(arguments: list[str]) -> None:
    from lipsync_core.errors import SettingsError

    done = CliRunner().invoke(app, ["backends", "check", *arguments])
    assert isinstance(done.exception, SettingsError)  # which `main` turns into exit code 2


class Wrapping:
    """A compositor that pastes by the mask and does not clip: 256 becomes 0."""

    clips = False

    def composite(
        self, frames: FrameBatch, faces: AlignedFaces, mask: MouthMask, generated: GeneratedFaces
    ) -> FrameBatch:
        out = frames.pixels.copy()
        levels = np.rint(generated.pixels * 255)
        wrapped = (np.clip(levels, 0, 255) if self.clips else levels).astype(np.int64).astype(np.uint8)
        for row, matrix in enumerate(faces.track.frame_to_crop):
            left, top = (-matrix[:, 2]).astype(int)
            side = wrapped.shape[1]
            box = out[row, top : top + side, left : left + side]
            box[mask.generate[row] > 0.5] = wrapped[row][mask.generate[row] > 0.5]
        return FrameBatch(frames.start, out)


class Clipping(Wrapping):
    clips = True


@pytest.mark.parametrize("compositor", [Wrapping, Clipping])
def test_pixels_beyond_white_that_wrap(monkeypatch: pytest.MonkeyPatch, compositor: type[Wrapping]) -> None:
    monkeypatch.setattr(Case, "create", lambda self: compositor())
    case = Case(discover(), StageKind.COMPOSITOR, "feather-opencv")
    if compositor.clips:
        overshoot_is_clipped(case)
    else:
        assert "Clip before converting" in failed(case, "overshoot_is_clipped")
