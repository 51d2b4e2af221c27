"""Operations and bytes are counted as by hand."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="needs torch (extra torch)")
pytest.importorskip("diffusers", reason="needs diffusers (extra torch)")

from benchmarks.bench_latentsync_torch import FRAMES  # noqa: E402
from benchmarks.roofline import count  # noqa: E402


def test_a_convolution() -> None:
    with torch.device("meta"):
        net = torch.nn.Conv2d(8, 16, 3, padding=1, bias=False)
        pictures = torch.empty(FRAMES, 8, 32, 32)
    cost = count("convolution", net, lambda: net(pictures))
    assert cost.gflop * 1e9 == pytest.approx(2 * 9 * 8 * 16 * 32 * 32)
    assert cost.activation_gb * 1e9 == pytest.approx(4 * (8 + 16) * 32 * 32)
    assert cost.weight_gb * 1e9 == pytest.approx(4 * 9 * 8 * 16 / FRAMES)
