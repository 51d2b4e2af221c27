"""The command: what it refuses, and one bench of the packaged maskers on the drawn face."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from lipsync_core.bench import runner
from lipsync_core.cli import main


@pytest.fixture
def lipsync(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Any:
    monkeypatch.setenv("LIPSYNC_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["lipsync", *words])
        with pytest.raises(SystemExit) as stop:
            main()
        out, err = capsys.readouterr()
        return int(stop.value.code or 0), out, err

    return run


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--backends", "feather-opencv", "--synthetic"], "Say which with --stage"),
        (["--stage", "masker", "--profiles", "draft", "--synthetic"], "--profiles are for whole jobs"),
        (["--profiles", "draft"], "Give --video and --audio, or --synthetic"),
        (["--profiles", "draft", "--video", "a.mp4"], "Give --video and --audio, or --synthetic"),
        (["--profiles", "draft", "--video", "a.mp4", "--audio", "a.wav", "--synthetic"], "one thing to dub"),
        (["--profiles", "drat", "--synthetic"], "Did you mean 'draft'"),
        (["--profiles", "draft,draft", "--synthetic"], "named twice"),
        (["--stage", "masker", "--backends", "mouth-musk", "--synthetic"], "Did you mean 'mouth-mask'"),
        (["--profiles", "draft", "--reference", "drat", "--synthetic"], "is no contender"),
        (["compare", "here", "there"], "cannot be read"),
    ],
)
def test_what_is_refused(lipsync: Any, words: list[str], said: str, tmp_path: Path) -> None:
    code, out, err = lipsync("bench", *words)
    assert (code, out) == (2, "")
    assert said in err
    assert err.count("\n") == 1
    assert not list(tmp_path.glob("bench*"))


@pytest.mark.facemodel
def test_two_maskers_and_a_comparison_with_itself(
    lipsync: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "SYNTHETIC_FRAMES", 20)
    names = "mouth-mask,fixed-mask"
    code, out, _ = lipsync("bench", "--stage", "masker", "--backends", names, "--synthetic", "--repeats", "1")
    assert code == 0
    assert "fixed-mask" in out
    assert "The face is drawn" in out
    stored = json.loads((tmp_path / "bench" / "results.json").read_text())
    assert [entrant["name"] for entrant in stored["entrants"]] == ["mouth-mask", "fixed-mask"]
    assert stored["work"]["frames"] == 20
    assert [entrant["profile"] for entrant in stored["entrants"]] == ["draft", "draft"]  # one makes the inputs for both
    assert stored["quality"]["fixed-mask"]["reference"]["max"] == 1
    code, out, _ = lipsync("bench", "compare", "bench", "bench", "--fail")
    assert code == 0
    assert out.rstrip().endswith("costs rose beyond the noise.")
    assert "0 of" in out
