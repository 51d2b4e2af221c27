"""The loop's parts: chunks, features, noise, and who is blamed."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from lipsync_core.analysis import Analysis, join
from lipsync_core.backends import BackendSpec, StageKind
from lipsync_core.errors import BackendError, InputError
from lipsync_core.media.index import FrameIndex
from lipsync_core.media.timeline import Timeline
from lipsync_core.pipeline import Chunk, FeatureStream, Stages, chunks, dubbed_scenes, frame_noise, render
from lipsync_core.registry import Entry, Origin, State
from lipsync_core.rest import RestingMouths, RestPlan
from lipsync_core.types import AudioFeatures, FrameBatch

from . import fake_plugin as fake
from .test_types import make_track


def make_stages(**options: Any) -> Stages:
    chosen = fake.Options(**options)
    entries = {
        kind: Entry(
            BackendSpec(kind, f"fake-{kind}", "", "m:C", "m:O"), Origin("fake", "fake-plugin", "1.5"), State.READY
        )
        for kind in StageKind
    }
    return Stages(
        fake.FakeEncoder(chosen),
        fake.FakeAligner(chosen),
        fake.FakeMasker(chosen),
        fake.FakeDenoiser(chosen),
        fake.FakeCompositor(chosen),
        entries,
    )


def make_analysis(found: list[bool], scene_lengths: list[int]) -> Analysis:
    tracks, start = [], 0
    for length in scene_lengths:
        track = make_track(length, start=start)
        track.found[:] = found[start : start + length]
        tracks.append(track)
        start += length
    n = len(found)
    index = FrameIndex(np.arange(n, dtype=np.int64), np.ones(n, bool), Fraction(1, 25), n)
    return Analysis(index, tuple(tracks))


def make_timeline(source_frames: list[int], dubbed: list[bool]) -> Timeline:
    n = len(source_frames)
    return Timeline(
        source_frames=np.array(source_frames, np.int64),
        pts=np.arange(n, dtype=np.int64),
        time_base=Fraction(1, 25),
        end_pts=n,
        dubbed=np.array(dubbed),
        fps=Fraction(25),
    )


@given(data=st.data())
def test_chunks_cover_the_output_and_cross_nothing(data: st.DataObject) -> None:
    lengths = data.draw(st.lists(st.integers(1, 9), min_size=1, max_size=4))
    n_source = sum(lengths)
    found = data.draw(st.lists(st.booleans(), min_size=n_source, max_size=n_source))
    order = data.draw(st.lists(st.integers(0, n_source - 1), min_size=1, max_size=40))
    dubbed = data.draw(st.lists(st.booleans(), min_size=len(order), max_size=len(order)))
    max_frames, segment = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 12))
    analysis, timeline = make_analysis(found, lengths), make_timeline(order, dubbed)
    scenes = dubbed_scenes(timeline, analysis)
    spoken = data.draw(st.lists(st.booleans(), min_size=len(order), max_size=len(order)))
    rest = RestPlan.of(np.array(spoken), scenes, Fraction(data.draw(st.integers(1, 30))))
    whole = list(chunks(scenes, rest, first=0, max_frames=max_frames, segment=segment))
    assert [frame for c in whole for frame in range(c.start, c.stop)] == list(range(len(order)))
    for chunk in whole:
        frames = range(chunk.start, chunk.stop)
        assert len(frames) <= max_frames
        assert frames[0] // segment == frames[-1] // segment
        for frame in frames:
            has_face = found[order[frame]] and dubbed[frame]
            scene = int(np.searchsorted(np.cumsum(lengths), order[frame], side="right"))
            assert chunk.scene == (scene if has_face else None)
            assert chunk.generates == (rest.weight[frame] < 1)
        # Each resting mouth is made before it is shown, once.
        shown = {int(rest.anchors[pause]) for pause in rest.pause[: chunk.stop] if pause >= 0}
        assert {anchor for c in whole[: whole.index(chunk) + 1] for anchor in c.anchors} == shown
        assert chunk.pictures == [*chunk.anchors, *frames]
        assert chunk.runs == [1] * len(chunk.anchors) + [len(frames)]
    assert len(rest.anchors) == sum(len(c.anchors) for c in whole)
    # A job resumed at a segment makes the same chunks.
    first = segment * data.draw(st.integers(0, len(order) // segment))
    resumed = list(chunks(scenes, rest, first=first, max_frames=max_frames, segment=segment))
    assert [replace(c, anchors=()) for c in resumed] == [replace(c, anchors=()) for c in whole if c.start >= first]
    # Resting mouths of earlier pauses are not needed; one whose pause goes on is made again.
    later = {int(rest.anchors[pause]) for pause in rest.pause[first:] if pause >= 0}
    assert sorted(anchor for c in resumed for anchor in c.anchors) == sorted(later)


def test_gather_takes_the_rows_asked_for() -> None:
    analysis = make_analysis([True] * 7, [3, 4])
    track = analysis.gather(1, np.array([6, 5, 5, 4]), start=90)
    assert track.start == 90
    assert (track.landmarks == analysis.tracks[1].landmarks[[3, 2, 2, 1]]).all()


@given(cuts=st.lists(st.integers(0, 5), max_size=8), takes=st.lists(st.integers(1, 6), max_size=8))
def test_features_come_in_the_sizes_asked_for(cuts: list[int], takes: list[int]) -> None:
    values = np.arange(sum(cuts), dtype=np.float32).reshape(-1, 1, 1)
    bounds = np.cumsum([0, *cuts])
    stream = FeatureStream((AudioFeatures(int(a), values[a:b]) for a, b in pairwise(bounds)), 50)
    at = 0
    for count in takes:
        if at + count > len(values):
            with pytest.raises(BackendError, match="audio encoder gave features for"):
                stream.take(count)
            return
        part = stream.take(count)
        assert part.start == 50 + at
        assert (part.values == values[at : at + count]).all()
        at += count


def test_noise_depends_on_seed_and_frame_alone() -> None:
    whole = frame_noise(7, 0, 6, (4, 2))
    assert (frame_noise(7, 2, 3, (4, 2)) == whole[2:5]).all()
    assert not (frame_noise(8, 0, 6, (4, 2)) == whole).any()
    many = frame_noise(1, 0, 200, (50,))
    assert abs(float(many.mean())) < 0.05
    assert abs(float(many.std()) - 1) < 0.05


def test_the_first_noise_is_the_same_in_all_frames_where_asked() -> None:
    shape = (3, 4, 2)
    own, shared = frame_noise(7, 5, 4, shape), frame_noise(7, 5, 4, shape, same_start=True)
    assert (shared[:, 0] == frame_noise(7, 0, 1, shape)[0, 0]).all()
    assert (shared[:, 1:] == own[:, 1:]).all()
    assert not (shared[:, 0] == own[:, 0]).any()


def in_runs(pictures: NDArray[np.uint8], work: list[Chunk]) -> Iterator[NDArray[np.uint8]]:
    """As `VideoReader.in_runs`: each run's array, once for each picture that is in it by then."""
    left = iter(pictures)
    for length in (length for chunk in work for length in chunk.runs):
        pixels = np.full((length, *pictures.shape[1:]), 99, np.uint8)
        for row, picture in zip(range(length), left, strict=False):
            pixels[row] = picture
            yield pixels
        del pixels


@pytest.mark.parametrize("declared", [None, False, True])
def test_a_denoiser_says_whether_its_frames_start_from_one_noise(declared: bool | None) -> None:
    seen: list[Any] = []

    class Denoiser(fake.FakeDenoiser):
        def generate(self, faces: Any, mask: Any, audio: Any, noise: Any) -> Any:
            seen.append(noise)
            return super().generate(faces, mask, audio, noise)

    denoiser = Denoiser(fake.Options())
    if declared is not None:
        denoiser.same_start_noise = declared  # type: ignore[attr-defined]
    stages = replace(make_stages(side=8), denoiser=denoiser)
    n = 6
    analysis, timeline = make_analysis([True] * n, [n]), make_timeline([*range(n)], [True] * n)
    rest = RestPlan.none(n)
    work = list(chunks(dubbed_scenes(timeline, analysis), rest, first=0, max_frames=4, segment=8))
    pictures = in_runs(np.zeros((n, 40, 40, 3), np.uint8), work)
    features = FeatureStream(iter([AudioFeatures(0, np.zeros((n, 1, 2), np.float32))]), 0)
    for _ in render(stages, work, timeline, analysis, pictures, features, RestingMouths(rest, None), 3):
        pass
    noise = np.concatenate(seen)
    assert [len(part) for part in seen] == [4, 2]
    assert (noise == frame_noise(3, 0, n, (2, 3), same_start=declared is True)).all()


def test_a_finished_chunk_is_not_held_while_the_next_one_is_made() -> None:
    finished: list[weakref.ref[NDArray[np.uint8]]] = []

    class Compositor(fake.FakeCompositor):
        def composite(self, *given: Any) -> FrameBatch:
            assert all(earlier() is None for earlier in finished)
            batch = super().composite(*given)
            finished.append(weakref.ref(batch.pixels))
            return batch

    stages = replace(make_stages(side=8), compositor=Compositor(fake.Options()))
    n = 12
    analysis, timeline = make_analysis([True] * n, [n]), make_timeline([*range(n)], [True] * n)
    rest = RestPlan.none(n)
    work = list(chunks(dubbed_scenes(timeline, analysis), rest, first=0, max_frames=4, segment=12))
    features = FeatureStream(iter([AudioFeatures(0, np.zeros((n, 1, 2), np.float32))]), 0)
    pictures = in_runs(np.zeros((n, 40, 40, 3), np.uint8), work)
    for batch in render(stages, work, timeline, analysis, pictures, features, RestingMouths(rest, None), 3):
        assert batch.pixels is finished[-1]()
        del batch
    assert len(finished) == 3


def test_pictures_that_run_short_are_an_error_and_no_end() -> None:
    n = 4
    analysis, timeline = make_analysis([True] * n, [n]), make_timeline([*range(n)], [True] * n)
    rest = RestPlan.none(n)
    work = list(chunks(dubbed_scenes(timeline, analysis), rest, first=0, max_frames=4, segment=4))
    features = FeatureStream(iter([AudioFeatures(0, np.zeros((n, 1, 2), np.float32))]), 0)
    pictures = in_runs(np.zeros((n - 1, 40, 40, 3), np.uint8), work)
    with pytest.raises(RuntimeError, match="StopIteration"):
        list(render(make_stages(side=8), work, timeline, analysis, pictures, features, RestingMouths(rest, None), 3))


def _rendered(first: int, asked: list[tuple[int, int, float]]) -> tuple[list[Chunk], NDArray[np.uint8]]:
    """Thirty frames of which 6…20 are silent, from `first` on; notes (start, count, features) of what is generated."""

    class Denoiser(fake.FakeDenoiser):
        def generate(self, faces: Any, mask: Any, audio: Any, noise: Any) -> Any:
            asked.append((audio.start, len(audio.values), float(audio.values.max())))
            return super().generate(faces, mask, audio, noise)

    n = 30
    stages = replace(make_stages(side=8), denoiser=Denoiser(fake.Options()))
    analysis, timeline = make_analysis([True] * n, [n]), make_timeline([*range(n)], [True] * n)
    for track in analysis.tracks:
        track.landmarks[:] = np.nan
    frame_numbers = np.arange(n)
    rest = RestPlan.of((frame_numbers < 6) | (frame_numbers > 20), dubbed_scenes(timeline, analysis), Fraction(25))
    work = list(chunks(dubbed_scenes(timeline, analysis), rest, first=first, max_frames=4, segment=12))
    order = [frame for chunk in work for frame in chunk.pictures]
    pictures = in_runs(np.repeat(np.array(order, np.uint8), 40 * 40 * 3).reshape(-1, 40, 40, 3), work)
    features = FeatureStream(iter([AudioFeatures(first, np.full((n - first, 1, 2), 0.5, np.float32))]), first)
    resting = RestingMouths(rest, AudioFeatures(0, np.full((1, 1, 2), -7, np.float32)))
    batches = list(render(stages, work, timeline, analysis, pictures, features, resting, 3))
    assert [batch.start for batch in batches] == [chunk.start for chunk in work]
    assert next(pictures, None) is None
    return work, np.concatenate([batch.pixels for batch in batches])


def test_a_pause_costs_one_generated_mouth_and_its_two_fades() -> None:
    asked: list[tuple[int, int, float]] = []
    _, frames = _rendered(0, asked)
    # Three frames each way fade; 9…17 rest. The anchor, 13, is asked for first, with the features of silence.
    assert asked == [
        (0, 4, 0.5),
        (13, 1, -7.0),
        (4, 4, 0.5),
        (8, 1, 0.5),
        (18, 4, 0.5),
        (22, 2, 0.5),
        (24, 4, 0.5),
        (28, 2, 0.5),
    ]
    mouth = frames[:, 13, 12, 0].astype(int)
    generated = np.rint(np.arange(30) % 10 / 10 * 255)
    assert (mouth[9:18] == generated[13]).all()
    assert (mouth[:6] == generated[:6]).all()
    assert (mouth[21:] == generated[21:]).all()
    for frame, weight in {6: 0.25, 7: 0.5, 8: 0.75, 18: 0.75, 19: 0.5, 20: 0.25}.items():
        assert mouth[frame] == pytest.approx(weight * generated[13] + (1 - weight) * generated[frame], abs=1)
    assert (frames[:, 2, 2, 0] == np.arange(30)).all()  # the anchor's picture is shown nowhere else


@pytest.mark.parametrize("first", [12, 24])
def test_a_job_resumed_within_a_pause_shows_the_same_mouth(first: int) -> None:
    asked: list[tuple[int, int, float]] = []
    _, whole = _rendered(0, [])
    work, resumed = _rendered(first, asked)
    assert (resumed == whole[first:]).all()
    assert [chunk.anchors for chunk in work if chunk.anchors] == ([(13,)] if first == 12 else [])
    assert (13, 1, -7.0) in asked or first == 24


def test_neighbours_that_fit_pass() -> None:
    make_stages().check_neighbours()


def test_neighbours_that_do_not_fit_are_both_named() -> None:
    with pytest.raises(
        BackendError, match=r"fake-audio gives features of shape \(1, 3\), but the denoiser fake-denoiser"
    ):
        make_stages(dim=3).check_neighbours()
    with pytest.raises(BackendError, match=r"fake-aligner gives crops of 32 px, but .* takes 16 px"):
        make_stages(side=32).check_neighbours()


def test_a_failing_backend_is_named_with_its_place() -> None:
    stages = make_stages()
    with (
        pytest.raises(BackendError, match=r"fake-masker \(fake-plugin 1\.5\) failed at frames 3–5: KeyError: 'x'"),
        stages.blame(StageKind.MASKER, "frames 3–5"),
    ):
        raise KeyError("x")
    with pytest.raises(InputError), stages.blame(StageKind.MASKER, "x"):
        raise InputError("As it is.", "Passed on.")


def test_pieces_of_a_track_must_follow_each_other() -> None:
    pieces = [make_track(3, start=5), make_track(2, start=8)]
    assert (len(join(pieces, 5)), join(pieces, 5).start) == (5, 5)
    with pytest.raises(BackendError, match="every frame once"):
        join([make_track(3, start=5), make_track(2, start=9)], 5)
