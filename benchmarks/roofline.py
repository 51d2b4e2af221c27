"""What LatentSync's networks ask of a machine, and what this one can do: `python -m benchmarks.roofline`.

Counts floating-point operations and bytes of the U-Net and the autoencoder a frame, on tensors without data, and
measures this machine's matrix product and memory rates.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.bench_latentsync_torch import FRAMES, GEMM_SIDE, GUIDED, SD_VAE, STAGE_2
from lipsync_denoiser.latentsync.autoencoder_torch import Autoencoder, blank_autoencoder
from lipsync_denoiser.latentsync.unet_torch import blank_unet

CROPS: Final = (256, 512)  # px
_COPY_BYTES: Final = 512 << 20
_REPEATS: Final = 5


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one network, a frame: 10⁹ operations, a multiply-add counted as two; 10⁹ bytes of weights and of activations.

    weight_gb: read once for a chunk of 16 frames. activation_gb: if every operation read its inputs from memory and
    wrote its outputs there: the most that can be, as caches and fused operations save some of it.
    """

    name: str
    gflop: float
    weight_gb: float
    activation_gb: float


class _Bytes(TorchDispatchMode):
    """Adds up the bytes of every operation's tensors but views and weights."""

    def __init__(self, weights: set[int]) -> None:
        super().__init__()
        self.total = 0
        self._weights = weights

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if not func.is_view:
            for leaf in tree_leaves((args, kwargs, out)):
                if isinstance(leaf, Tensor) and id(leaf) not in self._weights:
                    self.total += leaf.numel() * leaf.element_size()
        return out


def count(name: str, net: torch.nn.Module, call: Callable[[], Any]) -> Cost:
    """Run a network of `meta` tensors on one chunk and return its cost a frame."""
    weights = list(net.parameters())
    flops, moved = FlopCounterMode(display=False), _Bytes({id(weight) for weight in weights})
    with torch.inference_mode(False), torch.no_grad(), flops, moved:
        call()
    size = sum(weight.numel() * weight.element_size() for weight in weights)
    return Cost(name, flops.get_total_flops() / FRAMES / 1e9, size / FRAMES / 1e9, moved.total / FRAMES / 1e9)


def costs(crop: int) -> list[Cost]:
    """Return the cost of one guided step of the U-Net, of encoding and of decoding, float32, crops of `crop` px."""
    side = crop // 8
    with torch.device("meta"):
        unet, net = blank_unet(STAGE_2, torch.float32), blank_autoencoder(SD_VAE, torch.float32)
        sample = torch.empty(GUIDED, STAGE_2.in_channels, FRAMES, side, side)
        audio = torch.empty(GUIDED * FRAMES, 50, STAGE_2.cross_attention_dim)
        step = torch.empty(1, dtype=torch.long)
        autoencoder = Autoencoder(SD_VAE, net, FRAMES)
        pictures, latents = torch.empty(FRAMES, 3, crop, crop), torch.empty(FRAMES, 4, side, side)
        return [
            count(f"U-Net, one guided step, {crop} px", unet, lambda: unet.full(sample, step, audio)),
            count(f"VAE encode, {crop} px", net, lambda: autoencoder.encode(pictures, None)),
            count(f"VAE decode, {crop} px", net, lambda: autoencoder.decode(latents)),
        ]


def gemm_rate(dtype: torch.dtype) -> float:
    """Return 10⁹ operations a CPU second of a square matrix product, the median of five."""
    a, b = torch.randn(2, GEMM_SIDE, GEMM_SIDE).to(dtype)
    torch.mm(a, b)
    return statistics.median(2 * GEMM_SIDE**3 / _cpu(lambda: torch.mm(a, b)) / 1e9 for _ in range(_REPEATS))


def copy_rate() -> float:
    """Return 10⁹ bytes a CPU second, read and written, of copying an array larger than any cache, on one thread."""
    source = np.ones(_COPY_BYTES // 8)
    target = np.zeros_like(source)
    return statistics.median(2 * _COPY_BYTES / _cpu(lambda: np.copyto(target, source)) / 1e9 for _ in range(_REPEATS))


def _cpu(call: Callable[[], Any]) -> float:
    began = time.process_time()
    call()
    return time.process_time() - began


def lines() -> list[str]:
    """Return what this machine does and what the networks ask, one line each.

    Rates are a CPU second, so that a busy machine gives the same as an idle one; times are what the work takes at that
    rate and not what any backend reaches.
    """
    rates = {"float32": gemm_rate(torch.float32), "bfloat16": gemm_rate(torch.bfloat16)}
    copied = copy_rate()
    found = [f"{torch.get_num_threads()} threads, torch {torch.__version__}"]
    found += [
        f"matrix product, {GEMM_SIDE} px square, {name}: {rate:.0f} GFLOP a CPU s" for name, rate in rates.items()
    ]
    found.append(f"copying: {copied:.1f} GB a CPU s, read and written")
    for crop in CROPS:
        for cost in costs(crop):
            moved = cost.weight_gb + cost.activation_gb
            found.append(
                f"{cost.name}: {cost.gflop:.0f} GFLOP a frame, at most {moved:.2f} GB moved, {cost.gflop / moved:.0f} "
                f"FLOP a byte; at the matrix product's rate {cost.gflop / rates['float32']:.2f} CPU s in float32, "
                f"{cost.gflop / rates['bfloat16']:.2f} in bfloat16; at the copy's rate {moved / copied:.2f} s"
            )
    return found


def main() -> int:
    """Print the lines."""
    for line in lines():
        sys.stdout.write(line + "\n")
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
