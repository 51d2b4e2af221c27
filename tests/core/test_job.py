"""Whole jobs with tiny backends: what comes out, what is reused, and how an interrupted one goes on."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from lipsync_core import api, job
from lipsync_core.api import Treatment, dub
from lipsync_core.errors import BackendError, NoFaceError, OutputError, SettingsError, WeightsError
from lipsync_core.registry import discover

from . import fake_plugin as fake
from .clips import write_sound, write_video

SIZE = 48
SEGMENT = 12  # frames; three chunks of the fake denoiser


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Only the fake backends, short segments, a cache of this test's own."""
    point = EntryPoint("fake", fake.__name__, "lipsync")
    monkeypatch.setattr(api, "discover", lambda: discover([point]))
    monkeypatch.setattr(job, "_SEGMENT_FRAMES", SEGMENT)
    monkeypatch.setenv("LIPSYNC_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    stages = "".join(
        f'[{kind}]\nbackend = "fake"\n' for kind in ("audio", "aligner", "masker", "denoiser", "compositor")
    )
    (tmp_path / "fake.toml").write_text(stages + "[job]\ncrf = 1\n")


def make_video(path: Path, greys: list[int], **more: Any) -> Path:
    write_video(path, np.stack([np.full((SIZE, SIZE, 3), grey, np.uint8) for grey in greys]), **more)
    return path


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """Twenty grey frames; the four in the middle are black: no face."""
    return make_video(tmp_path / "in.mp4", [200] * 8 + [0] * 4 + [200] * 8)


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    write_sound(tmp_path / "say.wav", seconds=1.2)
    return tmp_path / "say.wav"


def run(video: Path, sound: Path, output: str = "out.mp4", **more: Any) -> api.DubResult:
    return dub(video, sound, output, profile="fake.toml", **more)


def decode(path: str | Path) -> NDArray[np.uint8]:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def mouth(frames: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Mean grey of the middle of the region the fake stages generate, [n]."""
    centre = frames[:, fake.OFFSET + 10 : fake.OFFSET + 14, fake.OFFSET + 4 : fake.OFFSET + 12]
    return centre.astype(np.float64).mean(axis=(1, 2, 3))


def test_faces_are_dubbed_and_the_rest_passes_through(video: Path, sound: Path) -> None:
    result = run(video, sound)
    assert (result.frames, result.dubbed, result.passed_through) == (30, 24, 6)
    assert (result.width, result.height, result.fps) == (SIZE, SIZE, 25)
    assert result.duration_s == pytest.approx(1.2)
    dubbed, no_face = Treatment.DUBBED, Treatment.NO_FACE
    assert [(r.start, r.stop, r.treatment) for r in result.ranges] == [
        (0, 8, dubbed), (8, 12, no_face), (12, 28, dubbed), (28, 30, no_face)
    ]  # fmt: skip
    assert [(r.start_s, r.stop_s) for r in result.ranges] == [(0, 0.32), (0.32, 0.48), (0.48, 1.12), (1.12, 1.2)]
    frames = decode("out.mp4")
    assert len(frames) == 30
    expected = [(i % 10) * 25.5 for i in range(30)]
    expected[8:12] = [0.0] * 4
    # The source has 20 frames: 20…29 are 19…10 (ping-pong), of which 11, 10 have no face.
    expected[28:30] = [0.0] * 2
    assert np.abs(mouth(frames) - expected).max() < 8
    corner = frames[:, 2, 2].astype(int).max(axis=1)
    assert (np.abs(corner[:8] - 200) < 6).all()
    assert list(Path().glob(".out*")) == []


def test_the_second_language_skips_the_analysis(video: Path, sound: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not run(video, sound, "first.mp4").analysis_cached
    monkeypatch.setattr(job, "analyse", None)  # not to be called again
    assert run(video, sound, "second.mp4").analysis_cached
    assert (decode("first.mp4") == decode("second.mp4")).all()


def test_a_damaged_cache_is_made_anew(video: Path, sound: Path, caplog: pytest.LogCaptureFixture) -> None:
    run(video, sound, "first.mp4")
    (cached,) = (Path("cache") / "analysis").iterdir()
    cached.write_bytes(cached.read_bytes()[:200])
    assert not run(video, sound, "second.mp4").analysis_cached
    assert "made anew" in caplog.text
    assert run(video, sound, "third.mp4").analysis_cached


def test_other_content_or_options_are_analysed_anew(video: Path, sound: Path) -> None:
    run(video, sound, "first.mp4")
    assert not run(video, sound, "second.mp4", overrides=["aligner.options.face=left"]).analysis_cached
    make_video(video, [180] * 20)
    assert not run(video, sound, "third.mp4").analysis_cached


def test_each_scene_is_tracked_apart(tmp_path: Path, sound: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[int]] = []
    original = fake.FakeAligner.track

    def track(self: fake.FakeAligner, frames: Any, *, video: Any) -> Any:
        seen.append([])
        for part in original(self, frames, video=video):
            seen[-1] += range(part.start, part.start + len(part))
            yield part

    monkeypatch.setattr(fake.FakeAligner, "track", track)
    run(make_video(tmp_path / "cut.mp4", [100] * 9 + [220] * 11), sound)
    assert seen == [list(range(9)), list(range(9, 20))]


def test_a_video_without_a_face_is_an_error_before_anything_is_written(tmp_path: Path, sound: Path) -> None:
    with pytest.raises(NoFaceError, match=r"No frame of black\.mp4"):
        run(make_video(tmp_path / "black.mp4", [0] * 5), sound)
    assert not list(Path().glob("*out*"))


def break_at(monkeypatch: pytest.MonkeyPatch, frame: int, error: BaseException) -> None:
    original = fake.FakeDenoiser.generate

    def generate(self: fake.FakeDenoiser, faces: Any, *rest: Any) -> Any:
        if faces.track.start <= frame < faces.track.start + len(faces.pixels):
            raise error
        return original(self, faces, *rest)

    monkeypatch.setattr(fake.FakeDenoiser, "generate", generate)


@pytest.mark.parametrize("error", [FloatingPointError("planted"), KeyboardInterrupt()])
def test_an_interrupted_job_goes_on_and_gives_the_same_frames(
    video: Path, sound: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    run(video, sound, "whole.mp4")
    with monkeypatch.context() as patched:
        break_at(patched, 26, error)
        with pytest.raises((BackendError, KeyboardInterrupt)):
            run(video, sound)
    assert not Path("out.mp4").exists()
    assert sorted(p.name for p in Path(".out.mp4.lipsync").iterdir()) == ["000000.mkv", "000001.mkv", "job.json"]
    result = run(video, sound)
    assert result.resumed_frames == 2 * SEGMENT
    assert (decode("out.mp4") == decode("whole.mp4")).all()
    assert not Path(".out.mp4.lipsync").exists()


@pytest.mark.parametrize(("damage", "number"), [("zeros", 0), ("empty", 0), ("short", 0), ("short", 1)])
def test_a_damaged_segment_is_made_anew(
    video: Path, sound: Path, monkeypatch: pytest.MonkeyPatch, damage: str, number: int
) -> None:
    run(video, sound, "whole.mp4")
    with monkeypatch.context() as patched:
        break_at(patched, 26, FloatingPointError("planted"))
        with pytest.raises(BackendError):
            run(video, sound)
    content = (segment := Path(".out.mp4.lipsync") / f"{number:06}.mkv").read_bytes()
    segment.write_bytes({"zeros": bytes(len(content)), "empty": b"", "short": content[: len(content) // 2]}[damage])
    assert run(video, sound).resumed_frames == number * SEGMENT
    assert (decode("out.mp4") == decode("whole.mp4")).all()


def test_an_offset_that_leaves_no_sound_is_refused(video: Path, sound: Path) -> None:
    with pytest.raises(SettingsError, match=r"A sync offset of -1500 ms leaves nothing of 1.20 s of sound"):
        run(video, sound, flags={"job.sync_offset_ms": -1500.0})


def test_a_face_that_is_not_there_is_named_by_its_number(tmp_path: Path, sound: Path) -> None:
    with pytest.raises(NoFaceError, match="shows a face number 2.*counted from the left, from 0"):
        run(make_video(tmp_path / "black.mp4", [0] * 4), sound, flags={"aligner.options.face": "2"})


def test_a_failure_names_the_backend_and_the_frames(video: Path, sound: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    break_at(monkeypatch, 26, FloatingPointError("planted"))
    with pytest.raises(
        BackendError, match="denoiser backend fake .* failed at frames 24–27: FloatingPointError: planted"
    ):
        run(video, sound)


def test_other_settings_start_anew(video: Path, sound: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        break_at(patched, 26, FloatingPointError("planted"))
        with pytest.raises(BackendError):
            run(video, sound)
    assert run(video, sound, overrides=["job.seed=3"]).resumed_frames == 0


@pytest.mark.parametrize(("content", "resumed"), [(b"old", 2 * SEGMENT), (b"newer", 0)])
def test_other_content_of_a_file_that_an_option_names_starts_anew(
    video: Path, sound: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, resumed: int
) -> None:
    (weights := Path("weights.pt")).write_bytes(b"old")
    overrides = ["denoiser.options.weights=weights.pt"]
    with monkeypatch.context() as patched:
        break_at(patched, 26, FloatingPointError("planted"))
        with pytest.raises(BackendError):
            run(video, sound, overrides=overrides)
    if content != b"old":
        weights.write_bytes(content)
    assert run(video, sound, overrides=overrides).resumed_frames == resumed


def test_without_resume_nothing_is_taken_or_kept(video: Path, sound: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        break_at(patched, 26, FloatingPointError("planted"))
        for resume in (False, True):
            with pytest.raises(BackendError):
                run(video, sound, resume=resume)
            assert Path(".out.mp4.lipsync").exists() is resume
    assert run(video, sound, resume=False).resumed_frames == 0


def test_an_early_failure_leaves_no_folder(video: Path, sound: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    break_at(monkeypatch, 0, FloatingPointError("planted"))
    with pytest.raises(BackendError):
        run(video, sound)
    assert not list(Path().glob("*out*"))


def test_a_folder_that_is_not_ours_is_never_touched(video: Path, sound: Path) -> None:
    other = Path(".out.mp4.lipsync")
    other.mkdir()
    (other / "precious.txt").touch()
    with pytest.raises(OutputError, match="is in the way"):
        run(video, sound)
    assert (other / "precious.txt").exists()


def test_an_existing_output_is_replaced_only_if_asked(video: Path, sound: Path) -> None:
    Path("out.mp4").write_text("precious")
    with pytest.raises(OutputError, match="--overwrite"):
        run(video, sound)
    assert Path("out.mp4").read_text() == "precious"
    assert run(video, sound, overwrite=True).frames == 30


def test_the_rest_of_the_video_is_kept_untouched(video: Path, sound: Path, tmp_path: Path) -> None:
    write_sound(tmp_path / "short.wav", seconds=0.2)
    result = run(video, tmp_path / "short.wav", flags={"job.length": "video"})
    assert (result.frames, result.dubbed) == (20, 5)
    # Frames without a face are said to be that whether or not there is sound.
    assert [(r.stop, r.treatment.name) for r in result.ranges] == [
        (5, "DUBBED"), (8, "NO_SOUND"), (12, "NO_FACE"), (20, "NO_SOUND")
    ]  # fmt: skip


def test_a_job_laid_out_as_latentsync_does(video: Path, tmp_path: Path) -> None:
    """25 frames a second back and forth, two frames past the sound, 16 kHz mono; the default is none of it."""
    write_sound(tmp_path / "high.wav", seconds=1.2, rate=48000)
    result = run(video, tmp_path / "high.wav", flags={"job.timing": "reference"})
    assert (result.frames, result.fps, result.passed_through) == (32, 25, 8)  # 8…11, and 31…28 show them again
    with av.open("out.mp4") as container:
        stream = container.streams.audio[0]
        assert (stream.rate, stream.channels) == (16000, 1)
    usual = run(video, tmp_path / "high.wav", "usual.mp4")
    assert usual.frames == 30
    with av.open("usual.mp4") as container:
        assert container.streams.audio[0].rate == 48000
    assert not list(Path().glob(".*lipsync"))


# Where nobody speaks


@pytest.fixture
def talk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Forty frames with a face, and sound that holds speech in frames 0…9 and 30…39."""
    monkeypatch.setattr(job, "find_speech", lambda sound: np.array([[-np.inf, 0.39], [1.21, np.inf]]))
    write_sound(tmp_path / "talk.wav", seconds=1.6)
    return make_video(tmp_path / "talk.mp4", [200] * 40), tmp_path / "talk.wav"


def test_frames_of_silence_are_kept(talk: tuple[Path, Path]) -> None:
    result = run(*talk, flags={"job.silence": "keep"})
    assert (result.frames, result.dubbed, result.rested, result.passed_through) == (40, 20, 0, 20)
    assert [(r.stop, r.treatment.name) for r in result.ranges] == [(10, "DUBBED"), (30, "NO_SPEECH"), (40, "DUBBED")]
    expected = np.arange(40) % 10 * 25.5
    expected[10:30] = 200
    assert np.abs(mouth(decode("out.mp4")) - expected).max() < 8


def test_the_mouth_rests_in_silence(talk: tuple[Path, Path]) -> None:
    result = run(*talk, flags={"job.silence": "rest"})
    assert (result.frames, result.dubbed, result.rested, result.passed_through) == (40, 40, 14, 0)
    assert [(r.stop, r.treatment.name) for r in result.ranges] == [(13, "DUBBED"), (27, "RESTED"), (40, "DUBBED")]
    expected = np.arange(40) % 10 * 25.5
    resting = expected[20]  # the middle of the silence
    expected[13:27] = resting
    for frames in ((10, 11, 12), (29, 28, 27)):
        for step, frame in enumerate(frames, 1):
            expected[frame] += step / 4 * (resting - expected[frame])
    assert np.abs(mouth(decode("out.mp4")) - expected).max() < 8
    assert run(*talk, "usual.mp4").rested == 0


@pytest.mark.parametrize(("offset_ms", "frames"), [(200.0, 45), (-200.0, 35)])
def test_a_shift_of_the_sound_leaves_the_mouth_and_its_pauses(
    talk: tuple[Path, Path], offset_ms: float, frames: int
) -> None:
    run(*talk, "usual.mp4", flags={"job.silence": "keep"})
    result = run(*talk, flags={"job.silence": "keep", "job.sync_offset_ms": offset_ms})
    assert result.frames == frames
    both = min(frames, 40)
    assert np.abs(mouth(decode("out.mp4"))[:both] - mouth(decode("usual.mp4"))[:both]).max() < 8


@pytest.mark.parametrize("at", [16, 30])
def test_a_job_interrupted_in_silence_goes_on_with_the_same_mouth(
    talk: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """Segments are 12 frames; the silence is 10…29 and its mouth is generated on frame 20."""
    rest = {"job.silence": "rest"}
    run(*talk, "whole.mp4", flags=rest)
    original = fake.FakeCompositor.composite
    with monkeypatch.context() as patched:

        def composite(self: fake.FakeCompositor, frames: Any, *more: Any) -> Any:
            if frames.start <= at < frames.start + len(frames.pixels):
                raise KeyboardInterrupt
            return original(self, frames, *more)

        patched.setattr(fake.FakeCompositor, "composite", composite)
        with pytest.raises(KeyboardInterrupt):
            run(*talk, flags=rest)
    assert run(*talk, flags=rest).resumed_frames == at // SEGMENT * SEGMENT
    assert (decode("out.mp4") == decode("whole.mp4")).all()


def test_the_encoder_hears_silence_where_the_mouth_rests(
    talk: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[NDArray[np.float32]] = []
    original = fake.FakeEncoder.encode

    def encode(self: fake.FakeEncoder, audio: Any, *, times: Any) -> Any:
        heard.append(np.concatenate([block.samples for block in audio]))
        return original(self, audio, times=times)

    monkeypatch.setattr(fake.FakeEncoder, "encode", encode)
    for silence, quiet in (("rest", True), ("keep", False)):
        heard.clear()
        run(*talk, flags={"job.silence": silence}, overwrite=True)
        assert heard
        for samples in heard:
            assert samples[:3120].any()
            assert samples[9680:].any()
            assert (not samples[3121:9679].any()) is quiet


def test_a_sound_without_speech_rests_all_along(talk: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "find_speech", lambda sound: np.zeros((0, 2)))
    assert run(*talk, flags={"job.silence": "rest"}).rested == 40
    result = run(*talk, flags={"job.silence": "keep"}, overwrite=True)
    assert (result.dubbed, result.passed_through) == (0, 40)


def test_what_silence_needs_is_missed_before_the_analysis(
    talk: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def find_speech(sound: object) -> None:
        raise WeightsError("It is not here.", "Get it.")

    monkeypatch.setattr(job, "find_speech", find_speech)
    monkeypatch.setattr(job, "analyse", None)  # not to be called
    with pytest.raises(WeightsError):
        run(*talk, flags={"job.silence": "rest"})
    assert not list(Path().glob("*out*"))


def test_backends_are_closed(video: Path, sound: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[fake.FakeDenoiser] = []
    original = fake.FakeDenoiser.__init__

    def init(self: fake.FakeDenoiser, options: fake.Options) -> None:
        original(self, options)
        made.append(self)

    monkeypatch.setattr(fake.FakeDenoiser, "__init__", init)
    run(video, sound)
    assert [denoiser.closed for denoiser in made] == [1]
    assert sum(made[0].prepared) == 16
