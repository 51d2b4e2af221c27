"""The demo's own parts; the dub it calls is tested elsewhere."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import wave
from pathlib import Path
from types import ModuleType

import av
import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from lipsync_core.api import DubResult
from lipsync_core.errors import InputError, WeightsError

DEMO = Path(__file__).resolve().parents[2] / "examples" / "demo.py"


@pytest.fixture(scope="module")
def demo() -> ModuleType:
    spec = importlib.util.spec_from_file_location("demo", DEMO)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_speech_is_audible_unclipped_and_of_a_sentences_length(demo: ModuleType, tmp_path: Path) -> None:
    pytest.importorskip("espeakng_loader", reason="the extra `demo` is not installed")
    path = demo.write_speech(tmp_path / "speech.wav")
    with wave.open(str(path)) as file:
        assert (file.getnchannels(), file.getsampwidth()) == (1, 2)
        rate = file.getframerate()
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(float) / 32768
    assert 5 < len(samples) / rate < 9
    assert 0.3 < np.abs(samples).max() < 0.99
    loud = [np.abs(part).max() > 0.05 for part in np.array_split(samples, round(len(samples) / rate * 10))]
    assert np.mean(loud) > 0.6
    # the mouth is to begin and end closed
    assert np.abs(samples[: rate // 5]).max() < 0.01
    assert np.abs(samples[-rate // 5 :]).max() < 0.01


def test_each_text_is_spoken_as_itself(demo: ModuleType) -> None:
    pytest.importorskip("espeakng_loader", reason="the extra `demo` is not installed")
    short, rate = demo.speak("Yes.")
    long, _ = demo.speak("Yes, and then a good deal more than that.")
    assert len(long) > len(short) + rate


def test_the_speech_is_the_same_in_every_run(tmp_path: Path) -> None:
    pytest.importorskip("espeakng_loader", reason="the extra `demo` is not installed")
    code = "import demo, pathlib, sys; demo.write_speech(pathlib.Path(sys.argv[1]))"
    files = [tmp_path / "one.wav", tmp_path / "two.wav"]
    for file in files:
        subprocess.run([sys.executable, "-c", code, str(file)], cwd=DEMO.parent, check=True)
    assert files[0].read_bytes() == files[1].read_bytes()


def test_the_portrait_is_the_astronaut(demo: ModuleType, tmp_path: Path) -> None:
    pytest.importorskip("skimage", reason="the extra `demo` is not installed")
    picture = cv2.imread(str(demo.write_portrait(tmp_path / "portrait.png")))
    assert picture is not None
    assert picture.shape == (1024, 1024, 3)
    suit = picture[600:760, 240:320].reshape(-1, 3).mean(axis=0)
    assert suit[2] > 2 * suit[0], "the suit is orange, so red and blue are not swapped"


def test_a_missing_extra_is_one_sentence_with_the_cure(
    demo: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "skimage.data", None)
    assert demo.main(["--out", str(tmp_path)]) == 2
    message = capsys.readouterr().err
    assert len(message.splitlines()) == 1
    assert "skimage" in message
    assert 'pip install "lipsync-core[demo]"' in message
    with pytest.raises(InputError):
        demo.write_portrait(tmp_path / "portrait.png")


def _write_video(path: Path, frames: list[NDArray[np.uint8]]) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "10"})
        stream.height, stream.width = frames[0].shape[:2]
        for pixels in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def _result(output: Path, frames: int) -> DubResult:
    return DubResult(
        output=output,
        profile="draft",
        model=None,
        width=64,
        height=64,
        fps=25.0,
        frames=frames,
        dubbed=frames,
        rested=0,
        passed_through=0,
        duration_s=frames / 25,
        seconds=1.0,
        realtime_factor=1.0,
        peak_rss_bytes=None,
        analysis_cached=False,
        resumed_frames=0,
    )


def test_the_contact_sheet_pairs_each_dubbed_frame_with_the_one_it_was_made_from(
    demo: ModuleType, tmp_path: Path
) -> None:
    # the source's grey tells its number; the output goes forth and back over it, ten levels brighter
    grey = [np.full((64, 64, 3), 60 + 5 * number, np.uint8) for number in range(12)]
    turning = [grey[k] + np.uint8(10) for k in (*range(12), *range(11, -1, -1))]
    source = _write_video(tmp_path / "source.mp4", grey)
    output = _write_video(tmp_path / "dubbed.mp4", turning)
    try:
        sheet = demo.contact_sheet(source, _result(output, 24))
    except WeightsError as error:
        pytest.skip(f"needs the face model: {error.cure}")
    assert sheet.shape == (demo.LABEL + 2 * demo.TILE, demo.ROW_TITLE + demo.COLUMNS * demo.TILE, 3)
    half = demo.TILE // 2
    columns = [demo.ROW_TITLE + k * demo.TILE + half for k in range(demo.COLUMNS)]
    above = sheet[demo.LABEL + half, columns, 0].astype(int)
    below = sheet[demo.LABEL + demo.TILE + half, columns, 0].astype(int)
    np.testing.assert_allclose(below - above, 10, atol=3)
    assert len(set(above // 4)) > demo.COLUMNS // 2
    assert sheet[: demo.LABEL].min() < 100, "times are written above"


def test_a_still_is_its_own_source_throughout(demo: ModuleType, tmp_path: Path) -> None:
    still = tmp_path / "still.png"
    cv2.imwrite(str(still), np.full((64, 64, 3), 80, np.uint8))
    output = _write_video(tmp_path / "dubbed.mp4", [np.full((64, 64, 3), 120, np.uint8)] * 5)
    try:
        sheet = demo.contact_sheet(still, _result(output, 5))
    except WeightsError as error:
        pytest.skip(f"needs the face model: {error.cure}")
    shown = (sheet.shape[1] - demo.ROW_TITLE) // demo.TILE
    assert shown <= 5
    assert sheet[demo.LABEL + demo.TILE // 2, demo.ROW_TITLE + demo.TILE // 2, 0] == 80
