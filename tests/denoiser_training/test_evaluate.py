from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest

SIDE = 128


def picture(seed: int, height: int, width: int) -> Any:
    low = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
    return cv2.resize(low, (width, height), interpolation=cv2.INTER_CUBIC)


@pytest.fixture
def case() -> Any:
    """Two frames of 300 × 200 px whose crop is a turned square of theirs."""
    from mini_training.evaluate import Case

    matrix = np.array([[0.95, 0.1, -60.0], [-0.1, 0.95, 5.0]])
    frames = [picture(seed, 200, 300) for seed in (1, 2)]
    crops = np.stack([cv2.warpAffine(f, matrix, (SIDE, SIDE)) for f in frames])
    shapes, points = np.zeros((2, 8), np.float32), np.full((68, 2), (64.0, 88.0))
    points[[36, 45, 33, 8]] = (34, 40), (94, 40), (64, 72), (64, 118)  # outer eye corners, nose, chin
    points[[48, 54]] = (44, 88), (84, 88)  # corners of the mouth
    back = cv2.invertAffineTransform(matrix)
    landmarks = np.stack([points @ back[:, :2].T + back[:, 2]] * 2).astype(np.float32)
    return Case("clip", "someone", frames, np.stack([matrix] * 2), crops, shapes, shapes, landmarks, np.zeros(2), 25.0)


def test_a_crop_laid_back_is_the_frame(case: Any) -> None:
    from mini_training.evaluate import paste

    for frame, pasted in zip(case.frames, paste(case, case.crops), strict=True):
        assert np.abs(frame.astype(int) - pasted).mean() < 0.5


def test_only_what_the_mask_covers_changes(case: Any) -> None:
    from mini_training.evaluate import paste

    from lipsync_face.fixed_mask import generate_area

    area = cv2.warpAffine(generate_area(SIDE), case.matrices[0], (300, 200), flags=cv2.WARP_INVERSE_MAP)
    for frame, pasted in zip(case.frames, paste(case, 255 - case.crops), strict=True):
        changed = (frame != pasted).any(axis=2)
        assert changed.sum() > 1000
        assert not (changed & (cv2.dilate(area, np.ones((5, 5))) == 0)).any()  # resampled another way, 2 px at most


def test_each_stretch_of_a_clip_has_its_own_usual_mouth(case: Any) -> None:
    from dataclasses import replace

    from mini_training.evaluate import generate

    class Reference:
        """Makes crops of the grey of their reference."""

        def generate(self, crops: Any, tokens: Any, reference: int) -> Any:
            assert len(crops) == len(tokens)
            return np.broadcast_to(crops[reference], crops.shape)

    count = 240
    opening = np.random.default_rng(0).uniform(0, 9, count)
    crops = np.arange(count, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8)
    long: Any = replace(case, crops=crops, opening=opening)
    made = generate(Reference(), long, np.zeros((count, 8), np.float32))[:, 0, 0, 0]  # type: ignore[arg-type]
    for half in (range(120), range(120, 240)):
        (shown,) = set(made[half].tolist())
        assert shown in half
        assert abs(int((opening[half] < opening[shown]).sum()) - 60) <= 1


def test_the_opening_is_measured_in_crop_pixels() -> None:
    from mini_training.evaluate import opening

    from lipsync_core import landmarks as lm

    points = np.zeros((1, 68, 2), np.float32)
    points[0, lm.UPPER_LIP_INNER] = 50, 60
    points[0, lm.LOWER_LIP_INNER] = 50, 64
    assert opening(points, np.array([[[2.0, 0, 3], [0, 2.0, -7]]])) == pytest.approx(8.0)


def test_similarity_of_pictures() -> None:
    from mini_training.evaluate import psnr, ssim

    a = picture(3, 40, 60)[None]
    other = picture(4, 40, 60)[None]
    noisy = np.clip(a.astype(int) + np.random.default_rng(0).normal(0, 10, a.shape), 0, 255).astype(np.uint8)
    assert ssim(a, a) == pytest.approx(1.0)
    assert ssim(a, a) > ssim(a, noisy) > ssim(a, other)
    assert psnr(a, noisy) == pytest.approx(20 * np.log10(255 / 10), abs=0.7)


def test_ssim_agrees_with_scikit_image() -> None:
    metrics = pytest.importorskip("skimage.metrics")
    from mini_training.evaluate import ssim

    a, b = picture(5, 64, 64), picture(6, 64, 64)
    luma = [np.asarray(p @ np.array([0.299, 0.587, 0.114])) for p in (a, b)]
    wanted = metrics.structural_similarity(
        *luma, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    assert ssim(a[None], b[None]) == pytest.approx(wanted, abs=0.01)


def test_every_frame_hears_its_neighbours() -> None:
    from mini_training.evaluate import context

    shapes = np.arange(6, dtype=np.float32)[:, None].repeat(8, axis=1)
    tokens = context(shapes)
    assert tokens.shape == (6, 5, 40)
    assert tokens[3, 0, 0] == 1
    assert tokens[3, 4, 39] == 5
    assert tokens[0, 0, 0] == 0  # the clip's start is repeated


def test_a_speaker_with_many_clips_counts_once() -> None:
    from mini_training.evaluate import means

    table = {"a": {"r": 1.0}, "b": {"r": 3.0}, "c": {"r": 8.0}}
    assert means({"a": "one", "b": "one", "c": "two"}, table) == {
        "one": {"r": 2.0},
        "two": {"r": 8.0},
        "mean": {"r": 4.0},
        "mean of speakers": {"r": 5.0},
    }
