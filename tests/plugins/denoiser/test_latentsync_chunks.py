"""Windows of a chunk, and models whose parts do not fit."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lipsync_core.errors import LipsyncError, SettingsError, WeightsError
from lipsync_core.types import AlignedFaces, FaceTrack
from lipsync_denoiser.latentsync.chunks import (
    check,
    fade,
    latent_shape,
    longest_chunk,
    references,
    windows,
)

from .tiny_latentsync import AUDIO, AUTOENCODER, UNET, model_config


@given(count=st.integers(1, 60), length=st.integers(1, 16), data=st.data())
def test_windows_cover_every_frame_and_their_weights_sum_to_one(count: int, length: int, data: st.DataObject) -> None:
    overlap = data.draw(st.integers(0, length - 1))
    cuts = windows(count, length, overlap)
    total = np.zeros(count, np.float32)
    for cut, weight in zip(cuts, fade(cuts), strict=True):
        assert weight.dtype == np.float32
        assert cut.stop - cut.start == len(weight) == min(count, length)
        assert (weight > 0).all()
        total[cut] += weight
    np.testing.assert_allclose(total, 1, rtol=1e-5)
    assert (cuts[0].start, cuts[-1].stop) == (0, count)
    for before, after in pairwise(cuts):
        assert before.stop - after.start >= overlap
        assert after.start > before.start


def test_weights_cross_over_in_equal_steps() -> None:
    first, last = fade([slice(0, 8), slice(5, 13)])
    np.testing.assert_allclose(first, [1, 1, 1, 1, 1, 0.75, 0.5, 0.25])
    np.testing.assert_allclose(last, [0.25, 0.5, 0.75, 1, 1, 1, 1, 1])


def test_what_a_chunk_is() -> None:
    config = model_config()
    check(config, 7)
    assert latent_shape(config) == (3, 4, 8, 8)
    assert longest_chunk(config, 0) == 8
    assert longest_chunk(config, 4) == 8 + 7 * 4


@pytest.mark.parametrize(
    ("changes", "overlap", "kind", "text"),
    [
        ({"unet": UNET | {"in_channels": 9}}, 0, WeightsError, "takes 13"),
        ({"autoencoder": AUTOENCODER | {"latent_channels": 16}}, 0, WeightsError, "takes 49"),
        ({"audio": AUDIO | {"width": 32}}, 0, WeightsError, "width 64, but the encoder gives 32"),
        ({"frames": 25}, 0, WeightsError, "25 frames is longer than the 24"),
        ({"autoencoder": AUTOENCODER | {"block_out_channels": (16,) * 8}}, 0, WeightsError, "multiple of 128 px"),
        ({}, 8, SettingsError, "not less than the 8 frames"),
    ],
)
def test_parts_that_do_not_fit(changes: dict[str, Any], overlap: int, kind: type[LipsyncError], text: str) -> None:
    with pytest.raises(kind, match=text):
        check(model_config(**changes), overlap)


def test_the_model_says_what_its_reference_is() -> None:
    length = model_config().frames
    faces = some_faces(length + 2)
    shown, rows, whose = references(model_config(), faces, None)
    assert (shown == faces.pixels).all()
    assert rows.tolist() == whose.tolist() == list(range(length + 2))
    # Of a scene: where nobody looked at the source, each window's first frame.
    shown, rows, whose = references(model_config(reference="scene"), faces, None)
    assert (shown == faces.pixels[[0, length]]).all()
    assert rows.tolist() == [0, length]
    assert whose.tolist() == [0] * length + [1] * 2


def some_faces(count: int) -> AlignedFaces:
    """Crops of 8 px, each of its own grey."""
    still = np.tile(np.eye(2, 3), (count, 1, 1))
    track = FaceTrack(3, still, np.ones(count, np.bool_), np.zeros((count, 68, 2), np.float32), 8)
    grey = np.arange(count, dtype=np.uint8)[:, None, None, None]
    return AlignedFaces(track, np.ascontiguousarray(np.broadcast_to(grey, (count, 8, 8, 3))))
