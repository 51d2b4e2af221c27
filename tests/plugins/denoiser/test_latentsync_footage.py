"""What a model is adapted to: which frames, what was heard in them, and what the mouth did."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="needs PyTorch")
pytest.importorskip("diffusers", reason="needs diffusers")

from lipsync_audio.mouth_shape_numpy import MouthShapeNumpy, MouthShapeOptions  # noqa: E402
from lipsync_core import landmarks as lm  # noqa: E402
from lipsync_core.errors import InputError  # noqa: E402
from lipsync_denoiser.latentsync import footage  # noqa: E402
from lipsync_denoiser.latentsync.footage import REFERENCE_GAP, choose, gather, tokens_around  # noqa: E402

from .small_latentsync import NUMBERS, SIDE, TOKENS, LowerHalf, Speaker, config  # noqa: E402

WHISPER = config(audio={"kind": "whisper", "weights": "tiny.pt"})


def test_the_last_frames_are_held_back_and_their_neighbours_are_not_learnt_from() -> None:
    source = Speaker(60)
    got = gather(source, LowerHalf(), config())
    assert got.frames.tolist() == list(range(60))
    assert (got.pixels == source.pixels).all()
    assert got.unseen.tolist() == list(range(51, 60))
    assert got.learnt.tolist() == list(range(51 - REFERENCE_GAP + 1))
    assert (got.keep[: SIDE // 2] == 1).all()
    assert (got.keep[SIDE // 2 :] == 0).all()
    rows, columns = got.mouth
    assert 16 < rows.start < 20 and 24 < rows.stop < 29  # noqa: PT018 - where the lips go
    assert 7 < columns.start < 10 and 22 < columns.stop < 25  # noqa: PT018 - likewise


def test_what_was_heard_belongs_to_its_frame() -> None:
    got = gather(Speaker(60), LowerHalf(), WHISPER)
    assert not got.measured
    assert got.features[:, 0, 0].tolist() == [11.0 * (frame // 11) for frame in range(60)]


def test_measured_shapes_stand_where_the_encoder_puts_them() -> None:
    source = Speaker(60)
    values = tokens_around([source.track], np.arange(60), 25.0, 1, 2.0).reshape(60, TOKENS, TOKENS, NUMBERS)
    unit = footage.SHAPE_UNITS[0] * SIDE * 2.0  # of the opening, px
    asked = (source.opening - np.median(source.opening)) / unit
    np.testing.assert_allclose(values[:, 1, 1, 0], asked.clip(-4, 4), atol=1e-5)
    np.testing.assert_allclose(values[1:, 0, 0, 0], asked[:-1].clip(-4, 4), atol=1e-5)
    np.testing.assert_allclose(values[:-1, 2, 2, 0], asked[1:].clip(-4, 4), atol=1e-5)
    off = values[:, ~np.eye(TOKENS, dtype=bool)]
    assert (off == 0).all()


def test_shapes_are_25_a_second_whatever_the_rate() -> None:
    source = Speaker(60)
    slow = tokens_around([source.track], np.arange(60), 50.0, 1, 1.0).reshape(60, TOKENS, TOKENS, NUMBERS)
    np.testing.assert_allclose(slow[:-2, 2, 2, 0], slow[2:, 1, 1, 0], atol=1e-6)


def test_the_units_are_near_those_the_audio_net_was_trained_in() -> None:
    """Of other landmarks than this project's, which lie some .75 × as far apart."""
    net = MouthShapeNumpy(MouthShapeOptions()).net
    ratio = footage.SHAPE_UNITS / net.spread
    assert (np.delete(ratio, 4) > 0.65).all()
    assert (ratio < 0.95).all()


@given(st.lists(st.booleans(), min_size=1, max_size=200), st.integers(1, 20), st.integers(8, 90))
def test_chosen_frames_have_a_face_ascend_and_are_few(found: list[bool], length: int, most: int) -> None:
    track = dataclasses.replace(Speaker(len(found)).track, found=np.array(found), start=7)
    got = choose([track], most, length)
    assert len(got) <= max(most, length)
    assert (np.diff(got) > 0).all()
    assert track.found[got - 7].all()
    if sum(found) <= most // max(length, sum(np.diff(found, prepend=False, append=False)) or 1):
        assert len(got) == sum(found)


def test_a_short_clip_is_refused() -> None:
    with pytest.raises(InputError, match="Only 39 frames show a face"):
        gather(Speaker(39), LowerHalf(), config())


def test_a_silent_clip_is_refused_only_by_models_that_need_its_sound() -> None:
    silent = Speaker(60, heard=False)
    assert gather(silent, LowerHalf(), config()).measured
    with pytest.raises(InputError, match="is silent, and this model learns from sound"):
        gather(silent, LowerHalf(), WHISPER)


def test_without_landmarks_only_the_sound_counts() -> None:
    source = Speaker(60)
    points = source.track.landmarks.copy()
    points[:, lm.CHIN] = np.nan
    source.track = dataclasses.replace(source.track, landmarks=points)
    got = gather(source, LowerHalf(), config())
    assert not got.measured
    assert got.features[20, 0, 0] == 11
