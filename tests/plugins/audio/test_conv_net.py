"""The net's arithmetic against a direct evaluation, and what a bad weight file says."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lipsync_audio.conv_net import CONTEXT, LAYERS, NORM_EPS, STEP, expected_shapes, gelu, load_net
from lipsync_core.errors import WeightsError

Arrays = dict[str, NDArray[Any]]


@pytest.fixture
def arrays() -> Arrays:
    rng = np.random.default_rng(5)
    made = {
        name: rng.normal(0.0, 1.0 / math.sqrt(np.prod(shape[1:])), shape).astype(np.float16)
        for name, shape in expected_shapes().items()
    }
    return {**made, "metadata": np.array(json.dumps({"seed": 7}))}


def written(folder: Path, arrays: Arrays) -> Path:
    file = folder / "weights.npz"
    np.savez(file, allow_pickle=False, **arrays)
    return file


def by_definition(arrays: Arrays, rows: NDArray[np.float64], row: int) -> NDArray[np.float64]:
    """Evaluate one output row in plain loops, in double precision, from the input rows it needs."""

    def value(layer: int, at: int) -> NDArray[np.float64]:
        if layer < 0:
            return rows[at]
        kernel, stride, dilation = LAYERS[layer]
        weight = arrays[f"conv{layer}.weight"].astype(np.float64)
        total = arrays[f"conv{layer}.bias"].astype(np.float64)
        for tap in range(kernel):
            total = total + weight[:, :, tap] @ cached(layer - 1, at * stride + tap * dilation)
        total = (total - total.mean()) / math.sqrt(total.var() + NORM_EPS)
        total = total * arrays[f"norm{layer}.weight"] + arrays[f"norm{layer}.bias"]
        root = math.sqrt(2 / math.pi)
        return np.array([v / 2 * (1 + math.tanh(root * (v + 0.044715 * v**3))) for v in total])

    known: dict[tuple[int, int], NDArray[np.float64]] = {}

    def cached(layer: int, at: int) -> NDArray[np.float64]:
        if (layer, at) not in known:
            known[layer, at] = value(layer, at)
        return known[layer, at]

    return cached(len(LAYERS) - 1, row)


def test_forward_is_the_definition(tmp_path: Path, arrays: Arrays) -> None:
    net = load_net(written(tmp_path, arrays))
    rows = np.random.default_rng(6).normal(size=(2 * CONTEXT + 1 + 3 * STEP, 80)).astype(np.float32)
    hidden = net.hidden(rows)
    assert hidden.shape == (4, 128)
    assert hidden.dtype == np.float32
    for row in (0, 3):
        np.testing.assert_allclose(hidden[row], by_definition(arrays, rows.astype(np.float64), row), atol=1e-4)
    shape = hidden @ arrays["head.weight"].astype(np.float32).T + arrays["head.bias"]
    np.testing.assert_allclose(net.shape(hidden), shape, atol=1e-5)
    assert net.metadata == {"seed": 7}


def test_a_row_sees_its_context_and_no_more(tmp_path: Path, arrays: Arrays) -> None:
    net = load_net(written(tmp_path, arrays))
    rows = np.random.default_rng(6).normal(size=(2 * CONTEXT + 1 + 40 * STEP, 80)).astype(np.float32)
    before = net.hidden(rows)
    changed = rows.copy()
    changed[CONTEXT + 20 * STEP] += 1.0
    moved = np.abs(net.hidden(changed) - before).max(axis=1) > 1e-6
    assert moved[20]
    far = np.abs(np.arange(41) - 20) * STEP > CONTEXT
    assert not moved[far].any()


def test_a_window_gives_the_rows_of_the_whole(tmp_path: Path, arrays: Arrays) -> None:
    net = load_net(written(tmp_path, arrays))
    rows = np.random.default_rng(6).normal(size=(2 * CONTEXT + 1 + 60 * STEP, 80)).astype(np.float32)
    window = net.hidden(rows[10 * STEP : 10 * STEP + 2 * CONTEXT + 1 + 5 * STEP])
    np.testing.assert_allclose(window, net.hidden(rows)[10:16], atol=1e-5)


def test_gelu_at_known_points() -> None:
    # The exact GELU is 0.841345 at 1; the tanh form is 0.841192 there.
    np.testing.assert_allclose(gelu(np.array([-10, 0, 1, 10], np.float32)), [0, 0, 0.841192, 10], atol=1e-6)


def test_matches_torch(tmp_path: Path, arrays: Arrays) -> None:
    torch = pytest.importorskip("torch", reason="compares with torch, which only the training extra brings")
    functional = torch.nn.functional
    net = load_net(written(tmp_path, arrays))
    rows = np.random.default_rng(6).normal(size=(2 * CONTEXT + 1 + 30 * STEP, 80)).astype(np.float32)
    get = {k: torch.from_numpy(v.astype(np.float32)) for k, v in arrays.items() if k != "metadata"}
    x = torch.from_numpy(rows.T[None].copy())
    for i, layer in enumerate(LAYERS):
        x = functional.conv1d(
            x, get[f"conv{i}.weight"], get[f"conv{i}.bias"], stride=layer.stride, dilation=layer.dilation
        ).transpose(1, 2)
        x = functional.layer_norm(x, (128,), get[f"norm{i}.weight"], get[f"norm{i}.bias"], NORM_EPS).transpose(1, 2)
        x = functional.gelu(x, approximate="tanh")
    np.testing.assert_allclose(net.hidden(rows), x[0].T.numpy(), atol=1e-4)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no such file"):
        load_net(tmp_path / "absent.npz")


@pytest.mark.parametrize("content", [b"", b"not an archive", b"PK\x03\x04 cut short"])
def test_a_file_that_is_no_archive(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "weights.npz"
    file.write_bytes(content)
    with pytest.raises(WeightsError, match="cannot be read") as caught:
        load_net(file)
    assert "train_mouth_shape.py" in caught.value.cure


def test_pickled_arrays_are_refused(tmp_path: Path, arrays: Arrays) -> None:
    file = tmp_path / "weights.npz"
    np.savez(file, **{**arrays, "conv0.bias": np.array([{"a": 1}], dtype=object)})
    with pytest.raises(WeightsError, match="cannot be read"):
        load_net(file)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("conv3.weight", None, "conv3.weight is absent"),
        ("head.bias", np.zeros(7, np.float16), r"head.bias is float16 \[7\], not a float \[8\]"),
        ("spread", np.zeros(8, np.int64), "spread is int64"),
        ("norm2.bias", np.full(128, np.nan, np.float16), "norm2.bias that are not finite"),
    ],
)
def test_arrays_that_do_not_fit(
    tmp_path: Path, arrays: Arrays, name: str, value: NDArray[Any] | None, said: str
) -> None:
    del arrays[name]
    if value is not None:
        arrays[name] = value
    with pytest.raises(WeightsError, match=said):
        load_net(written(tmp_path, arrays))
