"""One dubbing job: analyse, plan, render in segments, join them with the new sound."""

from __future__ import annotations

import time
import wave
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from lipsync_core import __version__
from lipsync_core.analysis import Analysis, analyse
from lipsync_core.backends import StageKind
from lipsync_core.cache import analysis_key, cached, content_hash
from lipsync_core.errors import NoFaceError
from lipsync_core.media.audio import AudioSource
from lipsync_core.media.mux import mux
from lipsync_core.media.prefetch import prefetch
from lipsync_core.media.reader import VideoReader
from lipsync_core.media.timeline import REFERENCE_SAMPLE_RATE, Timeline, build_timeline, reference_timeline
from lipsync_core.media.writer import EncodeSettings, SegmentWriter
from lipsync_core.memory import give_back, peak_rss
from lipsync_core.pipeline import FeatureStream, Stages, chunks, render
from lipsync_core.progress import Progress
from lipsync_core.resume import WorkFolder
from lipsync_core.settings import Settings
from lipsync_core.source import JobSource, encode
from lipsync_core.stages import OfModel, Preparable
from lipsync_core.types import FrameBatch

_SEGMENT_FRAMES = 240  # about ten seconds: what an interruption can cost
_PICTURE_QUEUE = 8  # decoded frames waiting for the loop
_FRAME_QUEUE = 1  # finished chunks waiting for the encoder


@dataclass(frozen=True, slots=True)
class DubResult:
    """What a job did.

    output: the file written. model: the denoiser's, None where it has none to choose.
    frames: of the output, of which `dubbed` were generated and `passed_through` left as decoded.
    seconds: wall time of the whole job. realtime_factor: output duration ÷ `seconds`.
    peak_rss_bytes: of this process so far; None where the system does not tell.
    analysis_cached: pass 1 was skipped. resumed_frames: taken over from an interrupted run.
    """

    output: Path
    profile: str
    model: str | None
    width: int
    height: int
    fps: float
    frames: int
    dubbed: int
    passed_through: int
    duration_s: float
    seconds: float
    realtime_factor: float
    peak_rss_bytes: int | None
    analysis_cached: bool
    resumed_frames: int


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
        video_hash = content_hash(self._reader.path)
        analysis, was_cached = self._analyse(video_hash)
        if not analysis.found.any():
            raise NoFaceError(
                f"No frame of {self._reader.path.name} shows a face.",
                "Use a video in which the speaker's face is at least 40 pixels wide and turned to the camera.",
            )
        timeline = self._timeline(analysis)
        work = WorkFolder(self._output)
        work.open(self._facts(video_hash, timeline), resume=resume)
        try:
            done = self._render_segments(analysis, timeline, work)
            self._mux(timeline, work)
        except BaseException:
            # Segments are worth keeping; an empty folder is only litter.
            if work.finished() == 0 or not resume:
                work.remove()
            raise
        work.remove()
        dubbed = int((analysis.found[timeline.source_frames] & timeline.dubbed).sum())
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
            passed_through=len(timeline) - dubbed,
            duration_s=duration,
            seconds=seconds,
            realtime_factor=duration / seconds,
            peak_rss_bytes=peak_rss(),
            analysis_cached=was_cached,
            resumed_frames=done,
        )

    def _analyse(self, video_hash: str) -> tuple[Analysis, bool]:
        stage = self._settings.stages[StageKind.ALIGNER]
        version = f"{stage.entry.origin.version} {getattr(self._stages.aligner, 'version', '')}"
        key = analysis_key(video_hash, stage.entry.spec.name, version, stage.options.model_dump(mode="json"))

        def compute() -> Analysis:
            with self._stages.blame(StageKind.ALIGNER, f"the analysis of {self._reader.path.name}"):
                analysis = analyse(self._reader, self._stages.aligner, self._progress)
            give_back()
            return analysis

        return cached(key, compute)

    def _timeline(self, analysis: Analysis) -> Timeline:
        job = self._settings.job
        audio_duration = self._sound.duration + self._offset_s
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

    def _facts(self, video_hash: str, timeline: Timeline) -> dict[str, object]:
        """What the segments depend on, for the work folder.

        A backend's version is not among it: a job that one broke goes on after an update of that one.
        """
        return {
            "version": __version__,
            "video": video_hash,
            "audio": content_hash(self._sound.path),
            "settings": self._settings.values(),
            "model": self._model(),
            "frames": len(timeline),
        }

    def _model(self) -> str | None:
        denoiser = self._stages.denoiser
        return denoiser.model_name if isinstance(denoiser, OfModel) else None

    def _segment_frames(self) -> int:
        longest = self._stages.denoiser.max_frames
        return -(-_SEGMENT_FRAMES // longest) * longest

    def _render_segments(self, analysis: Analysis, timeline: Timeline, work: WorkFolder) -> int:
        """Render and encode every segment that is not there yet; returns how many frames were."""
        segment = self._segment_frames()
        first = min(work.finished() * segment, len(timeline))
        if first == len(timeline):
            return first
        self._prepare(analysis, timeline)
        give_back()
        self._progress.start("Rendering", len(timeline) - first)
        pictures = prefetch(self._reader.in_order(analysis.index, timeline.source_frames[first:]), _PICTURE_QUEUE)
        features = encode(self._stages, self._sound, timeline.times[first:], self._offset_s)
        plan = chunks(timeline, analysis, first=first, max_frames=self._stages.denoiser.max_frames, segment=segment)
        finished = prefetch(
            render(
                self._stages,
                plan,
                timeline,
                analysis,
                pictures,
                FeatureStream(features, first),
                self._settings.job.seed,
            ),
            _FRAME_QUEUE,
        )
        with closing(pictures), closing(finished):
            for number in range(first // segment, -(-len(timeline) // segment)):
                stop = min((number + 1) * segment, len(timeline))
                with SegmentWriter(work.segment(number), self._encoding(timeline)) as writer:
                    for batch in _until(stop, finished):
                        writer.write(batch)
                        self._progress.advance(len(batch.pixels))
                give_back()
        return first

    def _prepare(self, analysis: Analysis, timeline: Timeline) -> None:
        if not isinstance(self._stages.denoiser, Preparable):
            return
        own = AudioSource(self._reader.path) if self._reader.info.has_audio else None
        source = JobSource(
            self._stages, self._reader, analysis, timeline, own, self._sound, self._offset_s, self._progress
        )
        with self._stages.blame(StageKind.DENOISER, "looking at the source"):
            self._stages.denoiser.prepare(source)

    def _encoding(self, timeline: Timeline) -> EncodeSettings:
        return EncodeSettings.for_video(self._reader, self._output, fps=timeline.fps, crf=self._settings.job.crf)

    def _mux(self, timeline: Timeline, work: WorkFolder) -> None:
        count = -(-len(timeline) // self._segment_frames())
        sound = self._sound
        if self._settings.job.timing == "reference":
            sound = _as_the_reference_writes_it(sound, work.path / "sound.wav")
        mux(
            [work.segment(number) for number in range(count)],
            timeline,
            sound,
            self._output,
            settings=self._encoding(timeline),
            audio_offset_s=self._offset_s,
        )


def _as_the_reference_writes_it(sound: AudioSource, path: Path) -> AudioSource:
    """Write the sound as 16-bit mono of 16 kHz, all that LatentSync keeps of it (FACTS §8)."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(REFERENCE_SAMPLE_RATE)
        for block in sound.blocks(REFERENCE_SAMPLE_RATE):
            file.writeframes((block.samples * 32768).astype("<i2").tobytes())  # undoes the division of `blocks`
    return AudioSource(path)


def _until(stop: int, batches: Iterator[FrameBatch]) -> Iterator[FrameBatch]:
    """Yield batches up to the one that ends before frame `stop`, without asking for the one after it."""
    for batch in batches:
        yield batch
        if batch.start + len(batch.pixels) >= stop:
            return
