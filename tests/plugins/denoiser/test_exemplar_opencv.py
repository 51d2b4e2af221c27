from __future__ import annotations

import importlib
from importlib.util import find_spec

import numpy as np
import pytest
from pydantic import ValidationError

from lipsync_core.backends import StageKind
from lipsync_core.errors import BackendError
from lipsync_core.stages import Closable, LatentDenoiser, Preparable
from lipsync_core.types import AudioFeatures
from lipsync_denoiser import exemplar_opencv, plan
from lipsync_denoiser.exemplar_opencv import ExemplarOpencv, ExemplarOptions
from lipsync_denoiser.plugin import lipsync_register_backends

from .drawing import Source, dark_height, features, landmarks, lower_face_mask, poses, shapes_of_opening

N = 48


def _talk(n: int, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=n + 4)
    return np.clip(0.08 + 0.07 * np.convolve(noise, np.ones(5) / np.sqrt(5), "valid"), 0, 0.22)


def _points(opening: np.ndarray, **pose) -> np.ndarray:
    return landmarks(shapes_of_opening(opening), poses(len(opening), **pose))


def _source(n: int = 60, outputs: int = N, seed: int = 0, **changes) -> Source:
    wave = np.sin(np.arange(outputs) / 2.5)
    given = {
        "points": _points(_talk(n, seed)),
        "source_frames": (np.arange(outputs) % n).astype(np.int64),
        "target": features(wave),
    }
    return Source(**{**given, **changes})


def _generate(denoiser: ExemplarOpencv, source: Source, start: int, stop: int):
    faces = source.output(start, stop)
    mask = lower_face_mask(faces)
    audio = AudioFeatures(start, np.ascontiguousarray(source._target[start:stop]))
    return faces, mask, denoiser.generate(faces, mask, audio, None).pixels


def _prepared(source: Source, **options) -> ExemplarOpencv:
    denoiser = ExemplarOpencv(ExemplarOptions(**options))
    denoiser.prepare(source)
    return denoiser


def test_it_is_what_the_contract_asks_for():
    denoiser = ExemplarOpencv(ExemplarOptions())
    typed: LatentDenoiser = denoiser
    assert typed.feature_shape == (1, 137)
    assert typed.crop_size is None
    assert typed.latent_shape is None
    assert typed.max_frames >= 1
    assert isinstance(denoiser, Preparable)
    assert isinstance(denoiser, Closable)


def test_its_spec_leads_to_it():
    (spec,) = [spec for spec in lipsync_register_backends() if spec.name == "exemplar-opencv"]
    assert (spec.kind, spec.name) == (StageKind.DENOISER, "exemplar-opencv")
    for path, thing in ((spec.factory, ExemplarOpencv), (spec.options, ExemplarOptions)):
        module, name = path.split(":")
        assert getattr(importlib.import_module(module), name) is thing
    assert all(find_spec(module) for module in spec.requires)


def test_options_are_strict():
    with pytest.raises(ValidationError):
        ExemplarOptions(own_voices=True)


def test_a_frame_before_the_source_was_seen_is_an_error_with_a_cure():
    source = _source()
    with pytest.raises(BackendError, match="prepare"):
        _generate(ExemplarOpencv(ExemplarOptions()), source, 0, 2)


def test_the_mouth_follows_the_sound():
    source = _source(seed=4)
    _, _, pixels = _generate(_prepared(source), source, 0, 16)
    _, _, more = _generate(_prepared(source), source, 16, 32)
    heights = [dark_height(p) for p in np.concatenate([pixels, more])]
    wave = np.sin(np.arange(32) / 2.5)
    assert np.corrcoef(heights, wave)[0, 1] > 0.8
    untouched = [dark_height(p) for p in source.output(0, 32).pixels]
    assert abs(np.corrcoef(untouched, wave)[0, 1]) < 0.5


def test_in_a_pause_the_mouth_closes_whatever_the_prediction():
    wide = np.full(N, 1.0)
    wide[::4] = -1.0
    _, _, talking = _generate(_prepared(_source(target=features(wide))), _source(target=features(wide)), 21, 31)
    paused = _source(target=features(wide, pauses=slice(18, 48)))
    _, _, quiet = _generate(_prepared(paused), paused, 21, 31)
    assert np.median([dark_height(p) for p in talking]) > 4
    assert max(dark_height(p) for p in quiet) <= 1


def test_pauses_are_measured_in_output_frames(monkeypatch):
    seen = []
    monkeypatch.setattr(exemplar_opencv, "silence", lambda loudness, fps: seen.append(fps) or np.zeros(len(loudness)))
    source = _source()
    source.fps = 60.0
    _prepared(source)
    assert seen == [60.0]


def test_any_cutting_into_chunks_gives_the_same_frames():
    source = _source()
    denoiser = _prepared(source)
    _, _, whole = _generate(denoiser, source, 4, 20)
    parts = [_generate(denoiser, source, a, b)[2] for a, b in ((4, 5), (5, 12), (12, 20))]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    np.testing.assert_array_equal(_generate(_prepared(source), source, 4, 20)[2], whole)


def test_nothing_outside_the_mask_changes_and_no_input_is_written_to():
    source = _source()
    denoiser = _prepared(source)
    faces, mask, audio = source.output(0, 8), None, AudioFeatures(0, source._target[:8])
    mask = lower_face_mask(faces)
    arrays = (faces.pixels, mask.generate, faces.track.landmarks, faces.track.frame_to_crop, audio.values)
    before = [array.copy() for array in arrays]
    for array in arrays:
        array.flags.writeable = False
    out = denoiser.generate(faces, mask, audio, None).pixels
    for array, kept in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(array, kept)
    outside = mask.generate == 0
    np.testing.assert_array_equal(np.rint(out * 255)[outside], faces.pixels[outside])
    assert (np.rint(out * 255)[~outside] != faces.pixels[~outside]).any()
    assert out.dtype == np.float32


def test_the_frames_of_a_run_are_not_changed_by_what_is_asked_for_in_between():
    source = _source()
    denoiser = _prepared(source)
    first = _generate(denoiser, source, 0, 8)[2]
    _generate(denoiser, source, 20, 30)
    np.testing.assert_array_equal(_generate(denoiser, source, 0, 8)[2], first)


@pytest.mark.parametrize("own", [None, "noise", "own"])
def test_any_sound_of_the_sources_own_will_do(own):
    opening = _talk(60)
    z = (opening - opening.mean()) / opening.std()
    sound = {"noise": features(np.random.default_rng(1).normal(size=60)), "own": features(0.6 * z)}.get(own or "")
    source = _source(points=_points(opening), own=sound)
    _, _, pixels = _generate(_prepared(source), source, 0, 16)
    heights = [dark_height(p) for p in pixels]
    assert np.corrcoef(heights, np.sin(np.arange(16) / 2.5))[0, 1] > 0.7


@pytest.mark.parametrize("opening", [0.0, 0.1])
def test_a_still_picture_speaks(opening):
    source = _source(points=_points(np.array([opening])), source_frames=np.zeros(N, np.int64))
    _, _, pixels = _generate(_prepared(source), source, 0, 16)
    heights = [dark_height(p) for p in pixels]
    assert np.corrcoef(heights, np.sin(np.arange(16) / 2.5))[0, 1] > 0.7
    assert max(heights) >= 3


def test_a_still_picture_keeps_no_bank():
    source = _source(points=_points(np.zeros(1)), source_frames=np.zeros(N, np.int64))
    _prepared(source)
    assert source.faces_seen == 0


def test_each_scene_speaks_with_its_own_mouths():
    near, far = _points(_talk(40, 1)), _points(_talk(40, 2), scale=45.0, at=(70.0, 90.0))
    job = np.r_[np.arange(20), 40 + np.arange(28)].astype(np.int64)
    source = _source(points=np.concatenate([near, far]), source_frames=job, scenes=(range(0, 40), range(40, 80)))
    denoiser = _prepared(source)
    assert denoiser._plan is not None
    mouths = np.array(denoiser._plan.points)[denoiser._plan.mouth]
    width = np.linalg.norm(mouths[:, 45] - mouths[:, 36], axis=1)
    np.testing.assert_allclose(width[:20], 60, atol=1)
    np.testing.assert_allclose(width[20:], 45, atol=1)
    _, _, pixels = _generate(denoiser, source, 20, 36)
    assert np.corrcoef([dark_height(p) for p in pixels], np.sin(np.arange(20, 36) / 2.5))[0, 1] > 0.7


def test_frames_without_a_face_are_no_hindrance():
    found = np.ones(60, bool)
    found[[0, 10, 11, 40]] = False
    points = _points(_talk(60))
    points[~found] = np.nan
    source = _source(points=points, found=found)
    denoiser = _prepared(source)
    assert denoiser._plan is not None
    assert set(np.flatnonzero(denoiser._plan.mouth == plan.NO_PLAN)) == {0, 10, 11, 40}
    assert np.isfinite(_generate(denoiser, source, 12, 28)[2]).all()


def test_an_aligned_geometry_that_turns_and_scales_works_too():
    turn = np.radians(12)
    matrix = 0.9 * np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    affine = np.concatenate([matrix, (75 - matrix @ [80, 95])[:, None]], axis=1)
    source = _source(points=_points(_talk(60), roll=12.0), affine=affine)
    faces, mask, pixels = _generate(_prepared(source), source, 0, 16)
    assert np.corrcoef([dark_height(p) for p in pixels], np.sin(np.arange(16) / 2.5))[0, 1] > 0.7
    np.testing.assert_array_equal(np.rint(pixels * 255)[mask.generate == 0], faces.pixels[mask.generate == 0])


def test_the_bank_is_bounded_in_frames_and_bytes(monkeypatch):
    monkeypatch.setattr(plan, "SCENE_FRAMES", 20)
    few = _prepared(_source(n=120, source_frames=(np.arange(N) + 30).astype(np.int64)))
    assert few._plan is not None
    assert len(few._plan.patches) == 20
    monkeypatch.setattr(plan, "FILE_BYTES", 300_000)
    small = _prepared(_source(n=120))
    assert small._plan is not None
    size = sum(3 * p.rect[2] * p.rect[3] for p in small._plan.patches)
    assert 0 < size < 1.2 * 300_000


def test_only_the_part_of_the_source_that_can_be_used_is_read(monkeypatch):
    monkeypatch.setattr(plan, "SCENE_FRAMES", 20)
    source = _source(n=200, outputs=20)
    _prepared(source)
    assert source.faces_seen <= 41


def test_preparing_anew_forgets_the_last_video():
    first, second = _source(seed=1), _source(seed=2)
    denoiser = _prepared(first)
    denoiser.prepare(second)
    np.testing.assert_array_equal(_generate(denoiser, second, 0, 8)[2], _generate(_prepared(second), second, 0, 8)[2])
    denoiser.close()
    denoiser.close()
    with pytest.raises(BackendError):
        _generate(denoiser, second, 0, 2)


def test_a_job_without_any_face_is_planned_as_untouched():
    found = np.zeros(60, bool)
    source = _source(found=found)
    denoiser = _prepared(source)
    assert denoiser._plan is not None
    assert (denoiser._plan.mouth == plan.NO_PLAN).all()


@pytest.mark.parametrize("still", [False, True])
def test_a_long_job_is_planned_in_blocks_as_in_one(monkeypatch, still):
    points = _points(np.zeros(1)) if still else _points(_talk(60))
    source = _source(points=points, source_frames=(np.arange(N) % len(points)).astype(np.int64))
    whole = _prepared(source)._plan
    monkeypatch.setattr(plan, "_BLOCK", 7)
    parts = _prepared(source)._plan
    assert whole is not None
    assert parts is not None
    np.testing.assert_array_equal(parts.mouth, whole.mouth)
    np.testing.assert_allclose(parts.targets.read(0, N), whole.targets.read(0, N), atol=1e-4)


def test_the_upper_face_and_the_hinge_of_the_jaw_are_not_moved():
    source = _source()
    made = _prepared(source)._plan
    assert made is not None
    hinge = [0, 1, 2, 14, 15, 16]
    np.testing.assert_allclose(
        made.targets.read(0, N)[:, hinge], source.points[source.source_frames][:, hinge], atol=1e-3
    )
