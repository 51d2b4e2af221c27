"""`lipsync eval`: a video against itself is perfect, and each fault planted in a copy shows in the figure for it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from lipsync_core.api import make_stages
from lipsync_core.cache import content_hash
from lipsync_core.cli import app
from lipsync_core.errors import InputError, NoFaceError, SettingsError, WeightsError
from lipsync_core.job import analysed
from lipsync_core.media.reader import VideoReader
from lipsync_core.media.writer import EncodeSettings, SegmentWriter
from lipsync_core.models import store
from lipsync_core.progress import Silent
from lipsync_core.quality import evaluate
from lipsync_core.quality.evaluate import Video
from lipsync_core.registry import discover
from lipsync_core.settings import resolve
from lipsync_core.types import FrameBatch
from tests.core.clips import write_video

Frames = NDArray[np.uint8]
LATE = 3


@pytest.fixture(scope="module")
def clip(shared_data: Path) -> Path:
    try:
        store.locate("face-landmarker", download=False)
    except WeightsError as error:
        pytest.skip(str(error))
    return shared_data / "grid_rz_sbwe5n.mpg"


@pytest.fixture(scope="module")
def copy(clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Frames], Frames]], Path]:
    """Write the clip's frames again after something was done to them; lossless."""
    frames = np.stack([picture.pixels for picture in VideoReader(clip).pictures()])
    folder = tmp_path_factory.mktemp("copies")

    def write(name: str, change: Callable[[Frames], Frames]) -> Path:
        changed = change(frames.copy())
        height, width = changed.shape[1:3]
        settings = EncodeSettings(width=width, height=height, fps=Fraction(25), codec="libx264", crf=4)
        with SegmentWriter(folder / name, settings) as writer:
            writer.write(FrameBatch(0, changed))
        return folder / name

    return write


@pytest.fixture(scope="module")
def whole(clip: Path) -> Video:
    return evaluate.look_at(clip)


def test_a_video_against_itself(whole: Video) -> None:
    reference = evaluate.against_reference(whole, whole)
    assert (reference["max"], reference["mouth_mean"], reference["psnr"]) == (0, 0, math.inf)
    source = evaluate.against_source(whole, whole)
    assert (source["flicker"], source["sharpness"], source["elsewhere"]) == pytest.approx((1, 1, 0))
    assert math.isnan(source["seam"])
    truth = evaluate.against_truth(whole, whole)
    assert truth == pytest.approx({"opening_r": 1, "opening_lag": 0, "opening_amplitude": 1, "landmark_distance": 0})


def test_a_jobs_analysis_is_taken_over(clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIPSYNC_CACHE", str(tmp_path))
    settings, stages = make_stages(discover(), resolve(discover(), profile="draft", folder=tmp_path, environment={}))
    analysed(settings, stages, VideoReader(clip), content_hash(clip), Silent())
    kept = list((tmp_path / "analysis").iterdir())
    evaluate.look_at(clip)
    assert list((tmp_path / "analysis").iterdir()) == kept


def test_a_mouth_that_comes_late(whole: Video, copy: Callable[..., Path]) -> None:
    late = copy("late.mkv", lambda frames: np.concatenate([frames[:1].repeat(LATE, axis=0), frames[:-LATE]]))
    figures = evaluate.against_truth(evaluate.look_at(late), whole)
    assert figures["opening_lag"] == LATE
    assert figures["opening_r"] < 0.9
    assert figures["landmark_distance"] > 0.5


def test_videos_of_two_rates_are_compared_at_the_same_moments(clip: Path, whole: Video, tmp_path: Path) -> None:
    frames = np.stack([picture.pixels for picture in VideoReader(clip).pictures()])
    write_video(tmp_path / "twice.mkv", frames.repeat(2, axis=0), fps=Fraction(50))
    twice = evaluate.look_at(tmp_path / "twice.mkv")
    for output, other in ((twice, whole), (whole, twice)):
        truth = evaluate.against_truth(output, other)
        assert truth["opening_r"] > 0.85  # landmarks are smoothed over other times
        assert abs(truth["opening_lag"]) <= 1
        assert evaluate.against_reference(output, other)["mouth_psnr"] > 35


def test_a_mouth_that_is_frozen_and_blurred(whole: Video, copy: Callable[..., Path]) -> None:
    x, y, width, height = evaluate.metrics.mouth_box(whole.landmarks[0], 360, 288)

    def freeze(frames: Frames) -> Frames:
        frames[:, y : y + height, x : x + width] = frames[0, y : y + height, x : x + width].mean(axis=(0, 1))
        return frames

    frozen = evaluate.look_at(copy("frozen.mkv", freeze))
    source = evaluate.against_source(frozen, whole)
    assert source["flicker"] < 0.6
    assert source["sharpness"] < 0.9  # only the hard edge of what was pasted is left
    assert source["elsewhere"] < 1.5
    reference = evaluate.against_reference(frozen, whole)
    assert reference["mouth_psnr"] < reference["psnr"] - 5
    assert reference["mouth_mean"] > 5 * reference["mean"]


def test_a_mouth_with_a_hard_edge(whole: Video, copy: Callable[..., Path]) -> None:
    x, y, width, height = evaluate.metrics.mouth_box(whole.landmarks[0], 360, 288)

    def brighten(frames: Frames) -> Frames:
        frames[:12, y : y + height, x : x + width] += np.uint8(30)
        return frames[:12]

    figures = evaluate.against_source(evaluate.look_at(copy("bright.mkv", brighten)), whole)
    assert figures["seam"] > 1.5
    assert figures["flicker"] == pytest.approx(1, abs=0.15)


def test_beyond_its_end_the_source_goes_back(whole: Video, copy: Callable[..., Path]) -> None:
    there_and_back = copy("there_and_back.mkv", lambda frames: np.concatenate([frames, frames[::-1][:10]]))
    output = evaluate.look_at(there_and_back)
    assert (
        evaluate.against_source(output, whole)["elsewhere"]
        < evaluate.against_source(output, whole, extend="loop")["elsewhere"]
    )


def test_what_cannot_be_compared(whole: Video, copy: Callable[..., Path], tmp_path: Path) -> None:
    wide = evaluate.look_at(copy("wide.mkv", lambda frames: np.ascontiguousarray(frames[:12, :, 10:-10])))
    with pytest.raises(InputError, match=r"wide.mkv \(340x288\) and grid_rz_sbwe5n.mpg \(360x288\) differ in size"):
        evaluate.against_reference(wide, whole)
    short = evaluate.look_at(copy("short.mkv", lambda frames: frames[:5]))
    with pytest.raises(InputError, match="Only 5 frames show a face in both"):
        evaluate.against_truth(short, whole)
    with pytest.raises(NoFaceError, match=r"No frame of blank.mkv shows a face"):
        evaluate.look_at(copy("blank.mkv", lambda frames: np.full_like(frames[:5], 90)))


def test_the_command(clip: Path) -> None:
    run = CliRunner()
    done = run.invoke(app, ["eval", str(clip), "--reference", str(clip), "--truth", str(clip), "--json"])
    assert done.exit_code == 0
    figures = json.loads(done.stdout)
    assert figures["reference"]["psnr"] is None  # infinite
    assert figures["truth"]["opening_lag"] == 0
    shown = run.invoke(app, ["eval", str(clip), "--source", str(clip)]).stdout
    assert "against the source\n  flicker                    1  x the source's\n" in shown
    assert "  seam                       -  x the source's\n" in shown
    for words, why in (([], "nothing to compare"), (["--source", str(clip), "--extend", "lop"], "Did you mean 'loop'")):
        failed = run.invoke(app, ["eval", str(clip), *words])
        assert isinstance(failed.exception, SettingsError)
        assert why in str(failed.exception)
