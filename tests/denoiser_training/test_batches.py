from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lipsync_face.fixed_mask import generate_area


def level(pictures: Any) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Frame numbers of one-grey pictures −1…1."""
    return np.rint((np.asarray(pictures).mean(axis=(1, 2, 3)) + 1) * 127.5 / 8).astype(int)


@given(count=st.integers(11, 40), seed=st.integers(0, 2**31), data=st.data())
def test_a_reference_is_never_near_its_target(count: int, seed: int, data: st.DataObject) -> None:
    from mini_training.batches import REFERENCE_GAP, pick_reference

    usable = np.flatnonzero(np.random.default_rng(seed).random(count) < 0.9)
    target = data.draw(st.integers(0, count - 1))
    rng = np.random.default_rng(seed)
    if not (np.abs(usable - target) >= REFERENCE_GAP).any():
        with pytest.raises(ValueError, match="no frame"):
            pick_reference(rng, usable, target)
    else:
        reference = pick_reference(rng, usable, target)
        assert abs(reference - target) >= REFERENCE_GAP
        assert reference in usable


def test_pictures_tokens_and_references_belong_together(make_clip: Callable[..., Any]) -> None:
    from mini_training.batches import REFERENCE_GAP, Sampler

    batch = Sampler([make_clip("a", "one"), make_clip("b", "two")], 3, augment=False).batch(0, 0, 20, 3)
    target, reference = level(batch.target), level(batch.reference)
    assert (np.abs(target - reference) >= REFERENCE_GAP).all()
    assert len(set(target)) > 10
    around = np.clip(target[:, None] + np.arange(-2, 3), 0, 23)
    for token in range(5):
        columns = slice(8 * token, 8 * token + 8)
        assert (batch.tokens[:, token, columns].numpy() == around[:, token, None]).all()
        outside = np.delete(batch.tokens[:, token].numpy(), np.r_[columns], axis=1)
        assert (outside == 0).all()


def test_references_come_from_other_clips_of_the_same_speaker_too(
    make_clip: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from mini_training import batches

    # Without colours and places to vary, a clip's grey tells it.
    monkeypatch.setattr(batches.Look, "__call__", lambda self, stored: stored[:128, :128])
    monkeypatch.setattr(batches, "JOINT", 0.0)
    monkeypatch.setattr(batches, "ELSEWHERE", 0.0)
    one, same, stranger = make_clip("a", "one", 15), make_clip("b", "one", 15), make_clip("c", "two", 15)
    same = replace(same, pictures=same.pictures + np.uint8(128))
    stranger = replace(stranger, pictures=np.full_like(stranger.pictures, 127))
    sampler = batches.Sampler([one, same, stranger], 0)
    drawn = [sampler.batch(step, 0, 20, 1) for step in range(20)]
    high = [
        np.concatenate([level(b.target) for b in drawn]) >= 16,
        np.concatenate([level(b.reference) for b in drawn]) >= 16,
    ]
    alien = np.concatenate([np.isclose(np.asarray(b.target)[:, 0, 0, 0], 127 / 127.5 - 1, atol=1e-5) for b in drawn])
    assert (high[0] != high[1])[~alien].mean() == pytest.approx(batches.OTHER_CLIP, abs=0.08)
    assert not (high[0] != high[1])[alien].any()


def test_two_people_make_one_face_of_like_mouths(
    make_clip: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from mini_training import batches

    one, two = make_clip("a", "one"), make_clip("b", "two")
    two = replace(two, pictures=two.pictures + np.uint8(4), shapes=two.shapes + np.float32(0.25))
    lips = batches.Lips(np.ones(3, np.float32), np.zeros(3, np.float32), 0.0)
    picture, _, shapes = batches.Person(two, 0.5, 0.25, lips)(one, 7)
    # Frame 7 of the second clip has the shapes nearest those of the first one's.
    assert (picture == 8 * 7 + 1).all()
    assert shapes[2] == pytest.approx(7.125)
    alone, _, shapes = batches.Person(None, 0.5, 0.25, lips)(one, 7)
    assert (alone == 8 * 7).all()
    assert shapes[2] == pytest.approx(7.0)


def test_a_second_person_is_never_the_first(make_clip: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    from mini_training import batches

    monkeypatch.setattr(batches, "JOINT", 1.0)
    clips = [make_clip("a", "one"), make_clip("b", "one"), make_clip("c", "two")]
    sampler, rng = batches.Sampler(clips, 0), np.random.default_rng(0)
    assert {sampler._person(rng, clips[0]).second.name for _ in range(20)} == {"c"}
    assert {sampler._person(rng, clips[2]).second.name for _ in range(40)} == {"a", "b"}
    assert batches.Sampler(clips[:2], 0)._person(rng, clips[0]).second is None


def test_what_is_seen_around_the_mask_may_be_of_another_frame(
    make_clip: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from mini_training import batches

    monkeypatch.setattr(batches.Look, "__call__", lambda self, stored: stored[:128, :128])
    monkeypatch.setattr(batches, "ELSEWHERE", 0.0)
    sampler = batches.Sampler([make_clip("a", "one")], 0)
    target = np.concatenate([np.asarray(sampler.batch(step, 0, 20, 1).target) for step in range(10)])
    grey = np.rint((target[:, 0] + 1) * 127.5 / 8).astype(int)
    mouth, around = grey[:, 80, 64], grey[:, 20, 64]
    assert (mouth != around).mean() == pytest.approx(batches.OTHER_SURROUNDINGS, abs=0.08)
    assert (np.abs(mouth - around)[mouth != around] >= batches.REFERENCE_GAP).all()
    # Where the U-Net sees the picture, but for the mask's edge, it is the other frame's.
    kept = cv2.erode(np.float32(generate_area(128) < 0.5), np.ones((13, 13), np.uint8)) > 0
    assert (grey[:, kept] == around[:, None]).all()


def test_only_what_is_large_is_stretched() -> None:
    from mini_training.batches import LARGE, stretched

    shapes = np.array([-4.0, -LARGE, 0.3, 2.0, LARGE + 1], np.float32)
    assert stretched(shapes, 3.0) == pytest.approx([-LARGE - 3 * (4 - LARGE), -LARGE, 0.3, 2.0, LARGE + 3])
    assert stretched(shapes, 1.0) == pytest.approx(shapes)


def test_a_nudged_look_is_a_little_beside() -> None:
    from mini_training.batches import NUDGE_SHIFT, Look
    from mini_training.footage import DETAIL

    rng = np.random.default_rng(5)
    for _ in range(20):
        look = Look(rng)
        near = look.nudged(rng)
        moved = np.hypot(near._x - look._x, near._y - look._y)
        assert 0 < moved[64, 64] < DETAIL * (2 * NUDGE_SHIFT + 4)
        assert moved.max() < 40


def test_a_batch_depends_on_seed_step_and_worker_alone(make_clip: Callable[..., Any]) -> None:
    from mini_training.batches import Sampler

    def tokens(seed: int, step: int, worker: int) -> Any:
        return Sampler([make_clip("a", "one")], seed).batch(step, worker, 2, 2).tokens.numpy()

    assert (tokens(1, 2, 0) == tokens(1, 2, 0)).all()
    for other in ((2, 2, 0), (1, 3, 0), (1, 2, 1)):
        assert (tokens(1, 2, 0) != tokens(*other)).any()


def test_speakers_with_few_frames_are_not_drowned(make_clip: Callable[..., Any]) -> None:
    from mini_training.batches import Sampler

    clips = [make_clip(f"a{k}", "many") for k in range(16)] + [make_clip("b", "few")]
    assert Sampler(clips, 0).odds == pytest.approx(np.array([16**0.35, 1]) / (1 + 16**0.35))


def test_one_look_is_the_same_for_every_picture_of_an_item() -> None:
    from mini_training.batches import Look
    from mini_training.footage import STORED

    picture = (
        np.random.default_rng(0).integers(0, 256, (9, 9, 3), np.uint8).repeat(STORED // 9, 0).repeat(STORED // 9, 1)
    )
    look = Look(np.random.default_rng(1))
    assert (look(picture) == look(picture)).all()
    assert (look(picture) != Look(np.random.default_rng(2))(picture)).any()


def test_without_augmentation_the_crop_is_the_middle_at_its_own_size() -> None:
    from mini_training.batches import Look
    from mini_training.footage import DETAIL, MARGIN, STORED
    from mini_training.recipe import SIDE

    ramp = np.broadcast_to((np.arange(STORED) / 2)[None, :, None], (STORED, STORED, 3)).astype(np.uint8)
    wanted = (DETAIL * (np.arange(SIDE) + 0.5) - 0.5 + MARGIN) / 2
    assert np.abs(Look(np.random.default_rng(0), augment=False)(ramp)[60, :, 1] - wanted).max() <= 1
