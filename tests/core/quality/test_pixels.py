"""Measures of pictures, on pictures whose answer is known."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from lipsync_core.quality import pixels


def noise(seed: int = 0, shape: tuple[int, ...] = (40, 60, 3)) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(20, 200, shape, np.uint8)


def test_differences_of_known_pictures() -> None:
    apart = pixels.Difference()
    picture = noise()
    apart.add(picture, picture)
    assert (apart.max, apart.mean, apart.psnr) == (0, 0, math.inf)
    apart.add(picture, picture + np.uint8(2))
    assert (apart.max, apart.mean) == (2, 1)
    assert apart.psnr == pytest.approx(10 * math.log10(255**2 / 2))


def test_nothing_added_is_not_a_number() -> None:
    apart = pixels.Difference()
    apart.add(noise(shape=(0, 5, 3)), noise(shape=(0, 5, 3)))
    assert all(math.isnan(value) for value in (apart.mean, apart.psnr, apart.ssim))
    assert math.isnan(pixels.Seam().ratio)


def test_ssim_falls_with_noise_and_forgives_a_shift_of_brightness() -> None:
    pytest.importorskip("skimage", reason="needs scikit-image (extra eval)")
    picture = cv2.GaussianBlur(noise(), (0, 0), 3)
    same, brighter, noisy = (pixels.Difference() for _ in range(3))
    same.add(picture, picture)
    brighter.add(picture, picture + np.uint8(10))
    noisy.add(picture, cv2.add(picture, noise(1) // 8))
    assert same.ssim == pytest.approx(1)
    assert 0.95 < brighter.ssim < 1
    assert noisy.ssim < 0.9
    assert set(same.figures("mouth_")) == {"mouth_max", "mouth_mean", "mouth_psnr", "mouth_ssim"}


def test_without_scikit_image_the_rest_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pixels, "find_spec", lambda name: None)
    apart = pixels.Difference()
    apart.add(noise(0), noise(1))
    assert math.isnan(apart.ssim)
    assert apart.max > 0


def test_a_hard_edge_is_a_seam_and_a_feathered_one_is_less() -> None:
    base = cv2.GaussianBlur(noise(shape=(120, 120, 3)), (0, 0), 4)
    inside = np.zeros((120, 120, 1), np.float32)
    inside[40:80, 30:90] = 1
    ratios = []
    for feather in (0.0, 8.0):
        weight = cv2.GaussianBlur(inside, (0, 0), feather)[:, :, None] if feather else inside
        seam = pixels.Seam()
        seam.add((base + weight * 40).astype(np.uint8), base)
        ratios.append(seam.ratio)
    assert ratios[0] > 4
    assert 1 < ratios[1] < ratios[0] / 2


def test_what_encoding_does_is_no_edge() -> None:
    base = noise(shape=(120, 120, 3))
    seam = pixels.Seam()
    seam.add(base + np.random.default_rng(1).integers(0, 3, base.shape, np.uint8), base)
    assert math.isnan(seam.ratio)


def test_the_face_and_what_is_outside_it() -> None:
    landmarks = np.tile(np.array([[50.0, 40.0]]), (68, 1))
    landmarks[36], landmarks[45] = (40, 40), (60, 40)
    assert pixels.face_box(landmarks, 100, 45) == (32, 32, 36, 13)
    area = pixels.outside((32, 32, 36, 13), 100, 45)
    assert area.sum() == 100 * 45 - 36 * 13
    assert not area[32, 32]
    assert area[31, 32]
