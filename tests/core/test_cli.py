"""The command line: every bad input is one line and exit code 2, and nothing is written."""

from __future__ import annotations

import io
import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from lipsync_core import __version__, api
from lipsync_core.cli import main
from lipsync_core.cli.console import progress_to

from .clips import write_sound, write_video


@pytest.fixture
def lipsync(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Any:
    monkeypatch.setenv("LIPSYNC_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("LIPSYNC_DEBUG", raising=False)
    monkeypatch.chdir(tmp_path)

    def run(*words: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["lipsync", *map(str, words)])
        with pytest.raises(SystemExit) as stop:
            main()
        out, err = capsys.readouterr()
        return int(stop.value.code or 0), out, err

    return run


@pytest.fixture
def inputs(tmp_path: Path) -> dict[str, Path]:
    """Good and bad files by name."""
    files = {name: tmp_path / name for name in ("noise.mp4", "speech.wav", "text.mp4", "empty.mp4", "empty.wav")}
    write_video(files["noise.mp4"], np.random.default_rng(1).integers(0, 255, (6, 96, 96, 3), np.uint8))
    write_sound(files["speech.wav"], seconds=0.2)
    files["text.mp4"].write_text("This is not a video.")
    files["empty.mp4"].touch()
    files["empty.wav"].touch()
    (tmp_path / "taken.mp4").write_text("precious")
    return files


BAD: list[tuple[list[str], str]] = [
    (["missing.mp4", "speech.wav", "-o", "out.mp4"], "missing.mp4"),
    (["noise.mp4", "missing.wav", "-o", "out.mp4"], "missing.wav"),
    (["text.mp4", "speech.wav", "-o", "out.mp4"], "text.mp4"),
    (["empty.mp4", "speech.wav", "-o", "out.mp4"], "empty.mp4"),
    (["noise.mp4", "empty.wav", "-o", "out.mp4"], "empty.wav"),
    (["noise.mp4", "noise.mp4", "-o", "out.mp4"], "noise.mp4"),
    (["noise.mp4", "speech.wav", "-o", "nowhere/out.mp4"], "There is no folder 'nowhere'"),
    (["noise.mp4", "speech.wav", "-o", "taken.mp4"], "'taken.mp4' exists already"),
    (["noise.mp4", "speech.wav", "-o", "out.xyz"], ".mp4"),
    (["noise.mp4", "speech.wav", "-o", "noise.mp4", "--overwrite"], "also an input"),
    (["noise.mp4", "speech.wav", "-o", "out.mp4", "--profile", "drat"], "Did you mean 'draft'"),
    (
        ["noise.mp4", "speech.wav", "-o", "out.mp4", "--set", "denoiser.backend=exemplar"],
        "Did you mean 'exemplar-opencv'",
    ),
    (["noise.mp4", "speech.wav", "-o", "out.mp4", "--set", "aligner.options.fase=left"], "Did you mean 'face'"),
    (["noise.mp4", "speech.wav", "-o", "out.mp4", "--extend", "pingpung"], "did you mean 'pingpong'"),
    (["noise.mp4", "speech.wav", "-o", "out.mp4", "--silence", "rset"], "did you mean 'rest'"),
    (["noise.mp4", "speech.wav", "-o", "out.mp4", "--face", "tallest"], "did you mean"),
    (["noise.mp4", "speech.wav", "-o", "out.mp4", "--crf", "99"], "job.crf = 99"),
    (
        ["noise.mp4", "speech.wav", "-o", "out.mp4", "--crf", "x"],
        "Invalid value for '--crf': ",
    ),
    (["noise.mp4", "speech.wav", "-o", "out.mp4", "--crp", "9"], "No such option: --crp"),
    (["noise.mp4", "-o", "out.mp4"], "See `lipsync run --help`."),
]


@pytest.mark.parametrize(("words", "message"), BAD, ids=[" ".join(words) for words, _ in BAD])
def test_bad_input_is_one_line_and_writes_nothing(
    lipsync: Any, inputs: dict[str, Path], tmp_path: Path, words: list[str], message: str
) -> None:
    before = {path: path.stat().st_size for path in tmp_path.iterdir()}
    code, out, err = lipsync("run", *words)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert message in err
    assert "Traceback" not in err
    assert {path: path.stat().st_size for path in tmp_path.iterdir()} == before


@pytest.mark.facemodel
def test_a_video_without_a_face_is_refused_and_leaves_nothing(
    lipsync: Any, inputs: dict[str, Path], tmp_path: Path
) -> None:
    code, _, err = lipsync("run", inputs["noise.mp4"], inputs["speech.wav"], "-o", "out.mp4", "-q")
    assert code == 2
    assert "No frame of noise.mp4 shows a face." in err
    assert not (tmp_path / "out.mp4").exists()
    assert not list(tmp_path.glob(".out*"))


def test_the_summary_says_how_many_frames_rested() -> None:
    from lipsync_core.cli.run import _as_json, summary
    from lipsync_core.job import DubResult
    from lipsync_core.ranges import FrameRange, Treatment

    counts = {"frames": 40, "dubbed": 30, "passed_through": 10, "resumed_frames": 0}
    sizes = {"width": 64, "height": 48, "fps": 25.0, "duration_s": 1.6, "seconds": 1.0, "realtime_factor": 1.6}
    facts: dict[str, Any] = {"peak_rss_bytes": None, "analysis_cached": False, "profile": "p", "model": None}
    result = DubResult(output=Path("o.mp4"), rested=12, **counts, **sizes, **facts)
    result = replace(result, ranges=(FrameRange(0, 40, 0.0, 1.6, Treatment.NO_FACE),))
    assert "30 dubbed (12 of them at rest), 10 passed through" in summary(result)
    told = json.loads(_as_json(result))
    assert told["rested"] == 12
    spans = {"start": 0, "stop": 40, "start_s": 0.0, "stop_s": 1.6, "treatment": "passed through: no face"}
    assert told["ranges"] == [spans]


def test_debug_shows_the_traceback(lipsync: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIPSYNC_DEBUG", "1")
    monkeypatch.setattr(sys, "argv", ["lipsync", "run", "missing.mp4", "a.wav", "-o", "out.mp4"])
    from lipsync_core.errors import InputError

    with pytest.raises(InputError):
        main()


def test_native_threads_are_told_to_sleep_unless_the_user_says_otherwise(
    lipsync: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "3")
    lipsync("--version")
    assert (os.environ["OMP_WAIT_POLICY"], os.environ["OPENBLAS_NUM_THREADS"]) == ("passive", "3")


def test_an_output_that_lacks_a_letter_gets_another(lipsync: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    narrow = io.TextIOWrapper(io.BytesIO(), encoding="cp1252")
    monkeypatch.setattr(sys, "stdout", narrow)
    lipsync("--version")
    sys.stdout.write("20 → 4")
    narrow.flush()
    assert narrow.buffer.getvalue().splitlines()[-1] == b"20 ? 4"  # type: ignore[attr-defined] # a BytesIO


def test_a_closed_output_is_written_nothing_to() -> None:
    with progress_to(None, quiet=False) as progress:
        progress.start("Working", 3)
        progress.advance(3)


@pytest.mark.parametrize(("words", "said"), [((), {}), (("--provenance",), {"job.provenance": True})])
def test_provenance_is_left_to_the_layers_below_unless_it_is_said(
    lipsync: Any, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], said: dict[str, bool]
) -> None:
    flags: dict[str, Any] = {}

    def dub(*_: Any, **more: Any) -> None:
        flags.update(more["flags"])
        raise KeyboardInterrupt

    monkeypatch.setattr(api, "dub", dub)
    assert lipsync("run", "a.mp4", "b.wav", "-o", "c.mp4", *words)[0] == 130
    assert flags == said


def test_version(lipsync: Any) -> None:
    assert lipsync("--version")[:2] == (0, f"lipsync {__version__}\n")


def test_backends_lists_states_and_succeeds(lipsync: Any) -> None:
    code, out, _ = lipsync("backends")
    assert code == 0
    line = next(line for line in out.splitlines() if "exemplar-opencv" in line)
    assert line.startswith("denoiser")
    assert "ready" in line
    code, out, _ = lipsync("backends", "--json")
    assert {"kind": "denoiser", "name": "exemplar-opencv", "state": "ready"}.items() <= {
        key: value for row in json.loads(out) if row["name"] == "exemplar-opencv" for key, value in row.items()
    }.items()


def test_profile_show_says_where_values_come_from(lipsync: Any, tmp_path: Path) -> None:
    (tmp_path / "lipsync.toml").write_text("[job]\ncrf = 20\n")
    _, out, _ = lipsync("profile", "show", "--set", "job.seed=7")
    rows = {line.split()[0]: line.split()[1:] for line in out.splitlines()}
    assert rows["job.crf"] == ["20", "lipsync.toml"]
    assert rows["job.seed"] == ["7", "--set"]
    assert rows["job.extend"] == ["pingpong", "default"]
    assert rows["denoiser.backend"][0] == "exemplar-opencv"
    assert "draft" in lipsync("profile", "list")[1]


def test_cache_info_and_clear(lipsync: Any, tmp_path: Path) -> None:
    folder = tmp_path / "cache" / "analysis"
    assert "0 analyses" in lipsync("cache", "info")[1]
    folder.mkdir(parents=True)
    (folder / "a.npz").write_bytes(b"x" * 2_000_000)
    (folder / "keep.txt").touch()
    assert "1 analyses, 2.0 MB" in lipsync("cache", "info")[1]
    assert "1 analyses deleted" in lipsync("cache", "clear")[1]
    assert [p.name for p in folder.iterdir()] == ["keep.txt"]


def test_doctor_checks_codecs_weights_plugins_and_disk(lipsync: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    code, out, _ = lipsync("doctor")
    assert code == 0
    assert cv2.__version__ in out
    for topic in ("encoders", "decoders", "weights", "backend", "profile", "cache", "temporary"):
        assert f" {topic}" in out
    monkeypatch.setattr("lipsync_core.diagnosis._ENCODERS", ("libx264", "no-such-codec"))
    assert "without no-such-codec" in lipsync("doctor")[1]
