"""What LatentSync does with the 106 points, held to what it gave."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lipsync_core import landmarks as lm
from lipsync_face.geometry import LatentSyncGeometry, fit_similarity
from lipsync_face.reference import (
    BROW_LEFT_106,
    BROW_RIGHT_106,
    INSIGHT_TO_IBUG,
    NOSE_106,
    biased_fit,
    rounded_three_points,
    three_points_106,
)


@pytest.mark.parametrize("resolution", [256, 512])
def test_latentsyncs_smoothed_matrices(shared_reference: Path, resolution: int) -> None:
    golden = np.load(shared_reference / "align.npz")
    points = golden[f"seq{resolution}.landmarks3"]
    template = LatentSyncGeometry(resolution).template
    matrices, biases = biased_fit(points, template)
    np.testing.assert_allclose(biases, golden[f"seq{resolution}.p_bias"], atol=1e-5)
    # The reference computes in float32: its translations of some hundred px are good to 2e-4.
    np.testing.assert_allclose(matrices, golden[f"seq{resolution}.matrices_smooth"], atol=3e-4)
    np.testing.assert_allclose(matrices[..., :2], golden[f"seq{resolution}.matrices_smooth"][..., :2], atol=1e-5)
    moved = matrices - fit_similarity(points, template)
    assert 0.1 < np.abs(moved[..., 2]).max() < 1


def test_latentsyncs_three_points(shared_reference: Path) -> None:
    golden = np.load(shared_reference / "align.npz")
    points = rounded_three_points(golden["lmk106"][None].astype(np.float64))
    np.testing.assert_array_equal(points[0], golden["landmarks3"])


def test_latentsyncs_matrices_of_a_video(shared_reference: Path) -> None:
    golden = np.load(shared_reference / "tiny_pipeline.npz")
    points = rounded_three_points(golden["lmk106"].astype(np.float64))
    matrices, _ = biased_fit(points, LatentSyncGeometry(64).template)
    np.testing.assert_allclose(matrices, golden["affine_matrices"], atol=1e-4)


def test_points_are_rounded_half_to_even_before_and_after_their_mean() -> None:
    points = np.zeros((1, 106, 2))
    points[0, list(BROW_LEFT_106)] = (10.5, 11.5)  # each rounds to 10 and 12
    points[0, list(BROW_RIGHT_106)] = (20.4, 3)
    points[0, list(NOSE_106)] = (6, 6)
    points[0, NOSE_106[:2], 0] = 7  # the mean is 6.5, which rounds to 6
    assert rounded_three_points(points).tolist() == [[[10, 12], [20, 3], [6, 6]]]
    assert three_points_106(points)[0, 0].tolist() == [10.5, 11.5]


def test_the_mapping_to_68_agrees_with_latentsyncs_groups() -> None:
    assert len(INSIGHT_TO_IBUG) == lm.COUNT == len(set(INSIGHT_TO_IBUG))
    assert min(INSIGHT_TO_IBUG) >= 0
    assert max(INSIGHT_TO_IBUG) < 106
    assert set(INSIGHT_TO_IBUG[lm.BROW_LEFT]) == set(BROW_LEFT_106)
    assert set(INSIGHT_TO_IBUG[lm.BROW_RIGHT]) == set(BROW_RIGHT_106)
    assert INSIGHT_TO_IBUG[lm.NOSE_TIP] in NOSE_106
    assert set(INSIGHT_TO_IBUG[lm.JAW]) <= set(range(33))
    assert set(INSIGHT_TO_IBUG[lm.LIPS]) == set(range(52, 72))
