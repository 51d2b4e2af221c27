"""Adapting from Python and from the command line, with a denoiser that learns nothing."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import BaseModel, ConfigDict

from lipsync_core import BackendSpec, StageKind, api, hookimpl
from lipsync_core import adapt as adapting
from lipsync_core.adapt import adapt, adapted
from lipsync_core.cli import main
from lipsync_core.errors import BackendError, InputError, LipsyncError, NoFaceError, OutputError, SettingsError
from lipsync_core.models.folder import MODEL_FILE
from lipsync_core.registry import discover
from lipsync_core.types import Fit

from . import fake_plugin as fake
from .clips import write_sound
from .test_job import make_video

pytest.importorskip("torch", reason="the tiny model is made by torch (extra torch)")
from lipsync_core.models.tiny import CONFIG

LEARNT: list[dict[str, Any]] = []


class Options(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = "none"


class Learner(fake.FakeDenoiser):
    """Writes what it is given; `broken` in a model's name makes it fail."""

    def __init__(self, options: Options) -> None:
        super().__init__(fake.Options())
        self.model = Path(options.model)

    def adapt(
        self, source: Any, masker: Any, folder: Path, *, steps: int, seed: int, progress: Any, report: Any
    ) -> Fit:
        assert list(folder.iterdir()) == []
        assert list(source.target_audio()) == []
        LEARNT.append(
            {
                "frames": [faces.track.start for faces in source.faces()],
                "heard": source.audio() is not None,
                "steps": steps,
                "seed": seed,
            }
        )
        (folder / "weights").write_bytes(b"new")
        if "broken" in self.model.name:
            raise FloatingPointError("planted")
        report(3, 21.5)
        (folder / MODEL_FILE).write_text(CONFIG.model_copy(update={"name": "tiny-adapted"}).model_dump_json())
        return Fit(20.0, 21.5, 3)


class Unlearned(fake.FakeDenoiser):
    """Runs the same models and cannot adapt them."""

    def __init__(self, options: Options) -> None:
        super().__init__(fake.Options())


@hookimpl
def lipsync_register_backends() -> list[BackendSpec]:
    def denoiser(name: str, factory: str = "Learner", **more: Any) -> BackendSpec:
        where = (f"{__name__}:{factory}", f"{__name__}:Options")
        return BackendSpec(StageKind.DENOISER, name, "For tests", *where, **more)

    return [
        *fake.lipsync_register_backends(),
        denoiser("learner"),
        denoiser("unlearned", "Unlearned"),
        denoiser("absent", requires=("no_such_module",), install='pip install "lipsync-core[torch]"'),
    ]


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Only the backends of this file, a cache of this test's own."""

    def found() -> Any:
        return discover([EntryPoint("here", __name__, "lipsync")])

    for module in (api, adapting):
        monkeypatch.setattr(module, "discover", found)
    monkeypatch.setattr(adapting, "DENOISER", "learner")
    monkeypatch.setenv("LIPSYNC_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    table = {kind: "learner" if kind == "denoiser" else "fake" for kind in StageKind}
    stages = "".join(f'[{kind}]\nbackend = "{name}"\n' for kind, name in table.items())
    Path("learn.toml").write_text(f"{stages}[job]\nmodel = 'model'\n")
    Path("unlearned.toml").write_text(Path("learn.toml").read_text().replace("learner", "unlearned"))
    make_model("model")
    LEARNT.clear()


def make_model(name: str) -> None:
    folder = Path(name)
    for weights in CONFIG.weights:
        (folder / weights).parent.mkdir(parents=True, exist_ok=True)
        (folder / weights).write_bytes(b"old")
    (folder / MODEL_FILE).write_text(CONFIG.model_dump_json())


@pytest.fixture
def video() -> Path:
    return make_video(Path("in.mp4"), [200] * 8 + [0] * 4 + [200] * 8)


def test_the_denoiser_sees_the_source_and_the_folder_gets_what_it_wrote(video: Path) -> None:
    told: list[tuple[int, float]] = []
    result = adapt(
        video, "new", profile="learn.toml", steps=5, seed=7, report=lambda step, psnr: told.append((step, psnr))
    )
    assert LEARNT == [{"frames": [0, 12], "heard": False, "steps": 5, "seed": 7}]
    assert told == [(3, 21.5)]
    assert (result.folder, result.model, result.best_step) == (Path("new"), "tiny-adapted", 3)
    assert (result.psnr_before, result.psnr_after) == (20.0, 21.5)
    assert sorted(file.name for file in Path("new").iterdir()) == [MODEL_FILE, "weights"]
    assert [file for file in Path().iterdir() if file.name.startswith(".lipsync")] == []


def test_the_same_video_is_adapted_to_once(video: Path) -> None:
    first = adapted(video, profile="learn.toml")
    assert adapted(video, profile="learn.toml") == first
    assert len(LEARNT) == 1
    folder = Path(first[0].removeprefix("job.model="))
    assert (folder / "weights").read_bytes() == b"new"
    assert first[1] == f"denoiser.options.model={folder}"

    make_video(video, [180] * 20)
    assert adapted(video, profile="learn.toml") != first
    make_model("other")
    Path("other", CONFIG.unet.weights).write_bytes(b"another")
    adapted(video, profile="learn.toml", flags={"job.model": "other"})
    adapted(video, profile="learn.toml", overrides=["denoiser.options.model=other"])
    assert len(LEARNT) == 3
    # How it is dubbed is nothing to the model; what it learnt from is.
    adapted(video, profile="learn.toml", overrides=["job.crf=30", "compositor.options.face=left"])
    assert len(LEARNT) == 3
    adapted(video, profile="learn.toml", overrides=["aligner.options.face=left"])
    assert len(LEARNT) == 4


def test_a_denoiser_that_can_adapt_does_it_itself(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapting, "DENOISER", "absent")
    adapt(video, "new", profile="learn.toml")
    assert len(LEARNT) == 1


def test_for_one_that_cannot_another_does(video: Path) -> None:
    adapt(video, "new", profile="unlearned.toml")
    assert len(LEARNT) == 1


def test_what_the_denoiser_is_set_to_for_dubbing_does_not_matter(video: Path) -> None:
    adapted(video, profile="learn.toml")
    profile = Path("learn.toml").read_text().replace("learner", "fake")
    Path("other.toml").write_text(profile)
    with pytest.raises(SettingsError, match="has no model that could be adapted"):
        adapted(video, profile="other.toml", overrides=["denoiser.options.fail_at=3"])


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda: make_video(Path("in.mp4"), [0] * 20), NoFaceError, "No frame of in.mp4 shows a face"),
        (lambda: Path("new").mkdir() or Path("new", "mine").touch(), OutputError, "'new' exists already"),
        (lambda: Path("new").touch(), OutputError, "'new' exists already"),
    ],
)
def test_errors_have_cause_and_cure(
    video: Path, change: Callable[[], Any], error: type[LipsyncError], message: str
) -> None:
    change()
    with pytest.raises(error, match=message):
        adapt(video, "new", profile="learn.toml")
    assert LEARNT == []


def test_the_model_that_a_run_takes_is_the_one_adapted(video: Path) -> None:
    """Also where a lower layer names another, and where its folder's name reads as a number."""
    make_model("2024")
    Path("lipsync.toml").write_text('[denoiser.options]\nmodel = "elsewhere"\n')
    settings = adapting._settings("learn.toml", ["denoiser.options.model='2024'"], None)
    assert settings.stages[StageKind.DENOISER].options.model_dump()["model"] == "2024"
    Path("lipsync.toml").unlink()
    settings = adapting._settings("learn.toml", [], {"job.model": "2024"})
    assert settings.stages[StageKind.DENOISER].options.model_dump()["model"] == "2024"


@pytest.mark.parametrize("link", [True, False])
def test_the_current_folder_or_a_link_to_an_empty_one(video: Path, link: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    start = Path().resolve()
    (start / "empty").mkdir()
    if link:
        (start / "link").symlink_to("empty")
    else:
        monkeypatch.chdir("empty")
    adapt(
        start / video,
        Path("link") if link else Path(),
        profile=start / "learn.toml",
        flags={"job.model": str(start / "model")},
    )
    assert (start / "empty" / MODEL_FILE).is_file()


def test_nothing_is_left_of_a_failure(video: Path) -> None:
    make_model("broken")
    before = sorted(Path().iterdir())
    with pytest.raises(BackendError, match="failed at adapting to the speaker: FloatingPointError: planted"):
        adapt(video, "new", profile="learn.toml", flags={"job.model": "broken"})
    assert sorted(file for file in Path().iterdir() if file.name != "cache") == before


def test_a_still_image_is_refused(tmp_path: Path) -> None:
    import cv2

    cv2.imwrite("face.png", np.full((48, 48, 3), 200, np.uint8))
    with pytest.raises(InputError, match=r"face\.png is a still image"):
        adapt("face.png", "new", profile="learn.toml")


def test_without_torch_one_line_says_what_to_install(
    video: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(adapting, "DENOISER", "absent")
    code, out, err = run_cli(monkeypatch, capsys, "adapt", str(video), "-o", "new", "--profile", "unlearned.toml")
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert 'pip install "lipsync-core[torch]"' in err


def test_the_command_says_how_well_it_went(
    video: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("adapt", str(video), "-o", "new", "--profile", "learn.toml", "--steps", "9", "--seed", "4")
    code, out, err = run_cli(monkeypatch, capsys, *words)
    assert (code, err) == (0, "")
    assert (LEARNT[0]["steps"], LEARNT[0]["seed"]) == (9, 4)
    assert "step 3: mouth PSNR 21.50 dB on frames held back" in out
    *_, last, place = out.splitlines()
    assert last.startswith("tiny-adapted: mouth PSNR 20.00 → 21.50 dB on frames held back (step 3), ")
    assert place == "new"


def test_run_dubs_with_the_adapted_model(
    video: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_sound(Path("say.wav"), seconds=0.4)
    models: list[Path] = []
    generate = Learner.generate
    monkeypatch.setattr(Learner, "generate", lambda self, *words: models.append(self.model) or generate(self, *words))
    words = ("run", str(video), "say.wav", "-o", "out.mp4", "--profile", "learn.toml", "--adapt")
    code, _, err = run_cli(monkeypatch, capsys, *words)
    assert (code, err) == (0, "")
    assert {model.parent for model in models} == {Path("cache/adapted").absolute()}
    code, _, err = run_cli(monkeypatch, capsys, *words)
    assert "exists already" in err
    assert len(LEARNT) == 1

    assert "1 adapted models" in run_cli(monkeypatch, capsys, "cache", "info")[1]
    assert "1 adapted models deleted" in run_cli(monkeypatch, capsys, "cache", "clear")[1]
    assert not any(Path("cache/adapted").iterdir())


def run_cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["lipsync", *words])
    with pytest.raises(SystemExit) as stop:
        main()
    out, err = capsys.readouterr()
    return int(stop.value.code or 0), out, err
