from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from lipsync_compositor.paste import crop_rectangle
from lipsync_compositor.resize import resized

from .restoring import synthetic_face


def test_latentsyncs_resized_face(shared_reference: Path) -> None:
    face = np.ascontiguousarray(synthetic_face(shared_reference).transpose(1, 2, 0))
    golden = np.load(shared_reference / "align.npz")["r256.synth_face_resized_every8"]
    np.testing.assert_allclose(resized(face, *crop_rectangle(256)).transpose(2, 0, 1)[:, ::8, ::8], golden, atol=1e-5)


sides = st.integers(2, 150)


@settings(max_examples=60)
@given(sides, sides, sides, sides, st.integers(0, 1000))
def test_it_is_pytorchs(from_width: int, from_height: int, width: int, height: int, seed: int) -> None:
    torch = pytest.importorskip("torch")
    image = np.random.default_rng(seed).random((from_height, from_width, 3), np.float32)
    planes = torch.from_numpy(image).permute(2, 0, 1)[None].contiguous()
    resize = torch.nn.functional.interpolate
    expected = resize(planes, (height, width), mode="bicubic", antialias=True, align_corners=False)
    np.testing.assert_allclose(resized(image, width, height), expected[0].permute(1, 2, 0).numpy(), atol=1e-4)


@given(sides, sides, sides, sides)
def test_an_even_picture_stays_even_and_keeps_its_size_asked_for(a: int, b: int, width: int, height: int) -> None:
    out = resized(np.full((a, b, 3), 0.3, np.float32), width, height)
    assert out.shape == (height, width, 3)
    np.testing.assert_allclose(out, 0.3, atol=1e-6)


@given(sides, sides, st.integers(0, 1000))
def test_its_own_size_is_itself(width: int, height: int, seed: int) -> None:
    image = np.random.default_rng(seed).random((height, width, 3), np.float32)
    np.testing.assert_array_equal(resized(image, width, height), image)


@given(sides, sides)
def test_one_line_is_the_mean_of_many(width: int, height: int) -> None:
    """Symmetric input keeps its middle."""
    assume(height > 4)
    image = np.zeros((height, width, 3), np.float32)
    image[: height // 2], image[-(height // 2) :] = 0.2, 0.8
    if height % 2:
        image[height // 2] = 0.5
    np.testing.assert_allclose(resized(image, width, 1), 0.5, atol=1e-5)
