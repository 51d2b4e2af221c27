"""One dubbing job: analyse, plan, render in segments, join them with the new sound."""

from __future__ import annotations

import logging
import time
import wave
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lipsync_core import __version__, provenance
from lipsync_core.analysis import Analysis, analyse
from lipsync_core.backends import StageKind
from lipsync_core.cache import analysis_key, cached
from lipsync_core.errors import NoFaceError, SettingsError
from lipsync_core.inputs import WatchedFile
from lipsync_core.job_settings import signing
from lipsync_core.media.audio import AudioSource
from lipsync_core.media.extras import Extras
from lipsync_core.media.mux import frames_in, mux
from lipsync_core.media.prefetch import prefetch
from lipsync_core.media.reader import VideoReader
from lipsync_core.media.timeline import REFERENCE_SAMPLE_RATE, Timeline, build_timeline, reference_timeline
from lipsync_core.media.voice import Segments, SpeechOnly, find_speech, spoken
from lipsync_core.media.writer import EncodeSettings, SegmentWriter, cannot_write
from lipsync_core.memory import give_back, peak_rss, tidied
from lipsync_core.models.folder import file_mark
from lipsync_core.models.known import described_folders, preview_note
from lipsync_core.pipeline import FeatureStream, Stages, chunks, dubbed_scenes, render
from lipsync_core.progress import Progress
from lipsync_core.ranges import FrameRange, frame_ranges
from lipsync_core.rest import RestingMouths, RestPlan
from lipsync_core.resume import WorkFolder
from lipsync_core.settings import MODEL_OPTION, Settings
from lipsync_core.source import JobSource, encode, own_sound
from lipsync_core.stages import OfModel, Preparable
from lipsync_core.types import FrameBatch

_log = logging.getLogger(__name__)

_WEIGHTS = (".safetensors", ".bin", ".pt", ".onnx")
_SEGMENT_FRAMES = 240  # about ten seconds: what an interruption can cost
_PICTURE_QUEUE = 4  # decoded frames waiting for the loop; eight took 10 MB more of 720p
_TIDY_CHUNKS = 2  # after so many, freed memory goes back to the system: 1 ms each; 16 took 5 MB more of 720p
_FRAME_QUEUE = 1  # finished chunks waiting for the encoder


@dataclass(frozen=True, slots=True)
class DubResult:
    """What a job did.

    output: the file written. model: the denoiser's, None where it has none to choose.
    frames: of the output, of which `dubbed` have a new mouth and `passed_through` are left as decoded.
    rested: of the dubbed, those whose mouth rests: nothing was generated for them.
    seconds: wall time of the whole job. realtime_factor: output duration ÷ `seconds`.
    peak_rss_bytes: of this process so far; None where the system does not tell.
    analysis_cached: pass 1 was skipped. resumed_frames: taken over from an interrupted run.
    preview: where the model is a stand-in of low resolution: that it is, and how to get the full one.
    ranges: what became of which frames, and why, in order and without gaps.
    """

    output: Path
    profile: str
    model: str | None
    width: int
    height: int
    fps: float
    frames: int
    dubbed: int
    rested: int
    passed_through: int
    duration_s: float
    seconds: float
    realtime_factor: float
    peak_rss_bytes: int | None
    analysis_cached: bool
    resumed_frames: int
    preview: str | None = None
    ranges: tuple[FrameRange, ...] = ()


@dataclass(frozen=True, slots=True)
class _Plan:
    """Each output frame's `scene` [N], −1 where it is passed through; where the mouth rests; what the encoder hears."""

    scene: NDArray[np.int64]
    rest: RestPlan
    heard: AudioSource


class Job:
    """One job after its inputs have been checked."""

    def __init__(
        self,
        settings: Settings,
        stages: Stages,
        reader: VideoReader,
        sound: AudioSource,
        output: Path,
        progress: Progress,
    ) -> None:
        self._settings = settings
        self._stages = stages
        self._reader = reader
        self._sound = sound
        self._output = output
        self._progress = progress
        self._offset_s = settings.job.sync_offset_ms / 1000

    def run(self, began: float, *, resume: bool) -> DubResult:
        """Run both passes and return what was done."""
        # First: what this lacks is to be known before the video is analysed.
        speech = None if self._settings.job.silence == "generate" else find_speech(self._sound)
        inputs = WatchedFile(self._reader.path), WatchedFile(self._sound.path)
        analysis, was_cached = analysed(
            self._settings, self._stages, self._reader, inputs[0].hash, self._progress, inputs[0].check
        )
        timeline = self._timeline(analysis)
        plan = self._plan(analysis, timeline, speech)
        work = WorkFolder(self._output)
        with work.opened(self._facts(*inputs, timeline), resume=resume):
            done = self._render_segments(analysis, timeline, plan, work, inputs)
            self._mux(analysis, timeline, work)
        dubbed = int((plan.scene >= 0).sum())
        seconds = time.perf_counter() - began
        duration = float(timeline.duration)
        return DubResult(
            output=self._output,
            profile=self._settings.profile,
            model=self._model(),
            width=self._reader.info.width,
            height=self._reader.info.height,
            fps=float(timeline.fps),
            frames=len(timeline),
            dubbed=dubbed,
            rested=int((plan.rest.weight == 1).sum()),
            passed_through=len(timeline) - dubbed,
            duration_s=duration,
            seconds=seconds,
            realtime_factor=duration / seconds,
            peak_rss_bytes=peak_rss(),
            analysis_cached=was_cached,
            resumed_frames=done,
            preview=preview_note(self._settings.model),
            ranges=frame_ranges(plan.scene, plan.rest.weight == 1, timeline, analysis),
        )

    def _timeline(self, analysis: Analysis) -> Timeline:
        job = self._settings.job
        audio_duration = self._sound.duration + self._offset_s
        if audio_duration <= 0 < self._sound.duration:
            raise SettingsError(
                f"A sync offset of {job.sync_offset_ms:g} ms leaves nothing of {self._sound.duration:.2f} s of sound.",
                "Give one nearer to 0.",
            )
        if job.timing == "reference":
            return reference_timeline(
                analysis.index, self._reader.info.fps, audio_duration=audio_duration, still=self._reader.is_still
            )
        return build_timeline(
            analysis.index,
            self._reader.info.fps,
            audio_duration=audio_duration,
            length=job.length,
            extend=job.extend,
            output_fps=None if job.fps == "source" else job.fps,
            still=self._reader.is_still,
        )

    def _plan(self, analysis: Analysis, timeline: Timeline, speech: Segments | None) -> _Plan:
        scene, rest = dubbed_scenes(timeline, analysis), RestPlan.none(len(timeline))
        if speech is None:
            return _Plan(scene, rest, self._sound)
        said = spoken(speech, timeline.times, float(timeline.duration))
        if self._settings.job.silence == "keep":
            return _Plan(np.where(said, scene, -1), rest, self._sound)
        return _Plan(scene, RestPlan.of(said, scene, timeline.fps), SpeechOnly(self._sound, speech))

    def _facts(self, video: WatchedFile, sound: WatchedFile, timeline: Timeline) -> dict[str, object]:
        """What the segments depend on, for the work folder.

        A backend's version is not among it: a job that one broke goes on after an update of that one.
        """
        return {
            "version": __version__,
            "video": video.hash,
            "audio": sound.hash,
            "settings": self._settings.values(),
            "model": self._model(),
            "files": self._files(),
            "frames": len(timeline),
        }

    def _files(self) -> dict[str, tuple[int, int]]:
        """Return the marks of the model's weights and graphs, and of the files that options name."""
        model = getattr(self._settings.stages[StageKind.DENOISER].options, MODEL_OPTION, None)
        folders = described_folders(model) if isinstance(model, str) else []
        files = [file for folder in folders for file in folder.rglob("*") if file.suffix in _WEIGHTS]
        for stage in self._settings.stages.values():
            files += [value for _, value in stage.options if isinstance(value, Path) and value.is_file()]
        return {str(file): file_mark(file) for file in files}

    def _model(self) -> str | None:
        denoiser = self._stages.denoiser
        return denoiser.model_name if isinstance(denoiser, OfModel) else None

    def _segment_frames(self) -> int:
        longest = self._stages.denoiser.max_frames
        return -(-_SEGMENT_FRAMES // longest) * longest

    def _render_segments(
        self,
        analysis: Analysis,
        timeline: Timeline,
        plan: _Plan,
        work: WorkFolder,
        inputs: Iterable[WatchedFile],
    ) -> int:
        """Render and encode every segment that is not there yet; returns how many frames were."""
        segment = self._segment_frames()
        first = min(_whole(work, segment, len(timeline)) * segment, len(timeline))
        if first == len(timeline):
            return first
        self._prepare(analysis, timeline, plan.heard)
        resting = self._resting(timeline, plan)
        give_back()
        self._progress.start("Rendering", len(timeline) - first)
        longest = self._stages.denoiser.max_frames
        todo = list(chunks(plan.scene, plan.rest, first=first, max_frames=longest, segment=segment))
        order = timeline.source_frames[np.concatenate([chunk.pictures for chunk in todo])]
        runs = [length for chunk in todo for length in chunk.runs]
        pictures = prefetch(self._reader.in_runs(analysis.index, order, runs), _PICTURE_QUEUE)
        features = FeatureStream(encode(self._stages, plan.heard, timeline.times[first:]), first)
        seed = self._settings.job.seed
        finished = prefetch(
            render(self._stages, todo, timeline, analysis, pictures, features, resting, seed), _FRAME_QUEUE
        )
        with closing(pictures), closing(finished):
            for number in range(first // segment, -(-len(timeline) // segment)):
                stop = min((number + 1) * segment, len(timeline))
                with SegmentWriter(work.segment(number), self._encoding(timeline)) as writer:
                    for batch in tidied(_until(stop, finished), _TIDY_CHUNKS):
                        writer.write(batch)
                        self._progress.advance(len(batch.pixels))
                        del batch  # or it would be held while the next one is waited for
                    for file in inputs:  # before the segment counts: it would be taken for the old content's
                        file.check()
                give_back()
        return first

    def _resting(self, timeline: Timeline, plan: _Plan) -> RestingMouths:
        pauses = plan.rest.pause[plan.rest.pause >= 0]
        if not len(pauses):
            return RestingMouths(plan.rest, None)
        # Silence sounds the same in every pause, and the middle of the longest hears least of the speech around it.
        quietest = plan.rest.anchors[np.bincount(pauses).argmax()]
        heard = encode(self._stages, plan.heard, timeline.times[[quietest]])
        return RestingMouths(plan.rest, FeatureStream(heard, int(quietest)).take(1))

    def _prepare(self, analysis: Analysis, timeline: Timeline, heard: AudioSource) -> None:
        if not isinstance(self._stages.denoiser, Preparable):
            return
        own = own_sound(self._reader)
        source = JobSource(self._stages, self._reader, analysis, timeline, own, heard, self._progress)
        with self._stages.blame(StageKind.DENOISER, "looking at the source"):
            self._stages.denoiser.prepare(source)

    def _encoding(self, timeline: Timeline) -> EncodeSettings:
        return EncodeSettings.for_video(self._reader, self._output, fps=timeline.fps, crf=self._settings.job.crf)

    def _mux(self, analysis: Analysis, timeline: Timeline, work: WorkFolder) -> None:
        count = -(-len(timeline) // self._segment_frames())
        sound = self._sound
        if self._settings.job.timing == "reference":
            sound = _as_the_reference_writes_it(sound, work.path / "sound.wav")
        extras = Extras.of(self._reader.path, int(analysis.index.pts[0]) * analysis.index.time_base)
        mux(
            [work.segment(number) for number in range(count)],
            timeline,
            sound,
            self._output,
            settings=self._encoding(timeline),
            metadata=self._tags(extras.tags.get("comment", "")),
            audio_offset_s=self._offset_s,
            extras=extras,
            folder=work.path,
            finish=self._finish,
        )

    def _tags(self, comment: str) -> dict[str, str]:
        if not self._settings.job.provenance:
            return {}
        return provenance.tags(self._settings.profile, self._output.suffix.lower(), comment)

    def _finish(self, path: Path) -> None:
        suffix, job = self._output.suffix.lower(), self._settings.job
        if job.provenance and suffix == ".mp4":
            provenance.append_xmp(path, provenance.xmp(provenance.note(self._settings.profile)))
        credentials = signing(job)
        if credentials is not None:
            credentials.sign(path, suffix)


def _whole(work: WorkFolder, segment: int, frames: int) -> int:
    """Return how many segments need not be rendered again: those before the first that is absent or damaged."""
    finished = work.finished()
    for number in range(finished):
        if frames_in(work.segment(number)) != min(segment, frames - number * segment):
            _log.warning("%s is damaged; the job goes on before it", work.segment(number))
            return number
    return finished


def analysed(
    settings: Settings,
    stages: Stages,
    reader: VideoReader,
    video_hash: str,
    progress: Progress,
    check: Callable[[], None] = lambda: None,
) -> tuple[Analysis, bool]:
    """Return pass 1 of a video and whether it came from the cache; raises `NoFaceError` where no frame has a face.

    `check` raises where the file is not the one that was hashed, before the result is kept under that hash.
    """
    stage = settings.stages[StageKind.ALIGNER]
    version = f"{stage.entry.origin.version} {getattr(stages.aligner, 'version', '')}"
    key = analysis_key(video_hash, stage.entry.spec.name, version, stage.options.model_dump(mode="json"))

    def compute() -> Analysis:
        with stages.blame(StageKind.ALIGNER, f"the analysis of {reader.path.name}"):
            analysis = analyse(reader, stages.aligner, progress)
        check()
        give_back()
        return analysis

    analysis, was_cached = cached(key, compute)
    if not analysis.found.any():
        face = str(getattr(stage.options, "face", ""))
        if face.isdecimal() and face != "0":
            raise NoFaceError(
                f"No frame of {reader.path.name} shows a face number {face}, or none at all.",
                "Faces are counted from the left, from 0: give a lower number, or --face largest.",
            )
        raise NoFaceError(
            f"No frame of {reader.path.name} shows a face.",
            "Use a video in which the speaker's face is at least 40 pixels wide and turned to the camera.",
        )
    return analysis, was_cached


def _as_the_reference_writes_it(sound: AudioSource, path: Path) -> AudioSource:
    """Write the sound as 16-bit mono of 16 kHz, all that LatentSync keeps of it (FACTS §8)."""
    try:
        with wave.open(str(path), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(REFERENCE_SAMPLE_RATE)
            for block in sound.blocks(REFERENCE_SAMPLE_RATE):
                file.writeframes((block.samples * 32768).astype("<i2").tobytes())  # undoes the division of `blocks`
    except OSError as error:
        raise cannot_write(path, error) from error
    return AudioSource(path)


def _until(stop: int, batches: Iterator[FrameBatch]) -> Iterator[FrameBatch]:
    """Yield batches up to the one that ends before frame `stop`, without asking for the one after it."""
    for batch in batches:
        is_last = batch.start + len(batch.pixels) >= stop
        yield batch
        del batch  # or it would be held while the next one is waited for
        if is_last:
            return
