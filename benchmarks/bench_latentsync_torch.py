"""What LatentSync's full-size networks cost in PyTorch: `python -m benchmarks.bench_latentsync_torch [CASE …]`.

Random weights, one 16-frame chunk, two threads on a CPU. Each case runs in a process of its own, so that its peak
memory is its own, and prints one line: seconds of all cores, seconds on the clock, peak resident memory while the
weights were made and at the end, and how far the output is from the first case's of the same work.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from lipsync_core.memory import peak_rss
from lipsync_core.models.folder import AutoencoderPart, UNetPart
from lipsync_denoiser.latentsync.autoencoder_torch import Autoencoder, blank_autoencoder
from lipsync_denoiser.latentsync.unet_torch import build_unet, channels_last, initialise

FRAMES: Final = 16
GUIDED: Final = 2  # the unconditional and the conditional half
THREADS: Final = 2
STAGE_2: Final = UNetPart.model_validate({"weights": "latentsync_unet.pt", "motion": {}})
SD_VAE: Final = AutoencoderPart.model_validate({"weights": "vae.safetensors"})
GEMM_SIDE: Final = 4096


@dataclass(frozen=True, slots=True)
class Case:
    """What to run. `work` names the computation; `side` is the latents', 32 for crops of 256 px.

    sliced: the autoencoder takes one frame at a time. frames: that the autoencoder is given.
    """

    work: str
    dtype: torch.dtype
    channels_last: bool = True
    compiled: bool = False
    side: int = 32
    sliced: bool = False
    frames: int = FRAMES


CASES: Final[dict[str, Case]] = {
    "unet-float32": Case("unet", torch.float32),
    "unet-float32-nchw": Case("unet", torch.float32, channels_last=False),
    "unet-float32-compile": Case("unet", torch.float32, compiled=True),
    "unet-bfloat16": Case("unet", torch.bfloat16),
    "unet-bfloat16-nchw": Case("unet", torch.bfloat16, channels_last=False),
    "unet-bfloat16-compile": Case("unet", torch.bfloat16, compiled=True),
    "unet-float32-512": Case("unet", torch.float32, side=64),
    "unet-bfloat16-512": Case("unet", torch.bfloat16, side=64),
    "cheap-float32": Case("cheap", torch.float32),
    "cheap-bfloat16": Case("cheap", torch.bfloat16),
    "encode-float32": Case("encode", torch.float32),
    "encode-float32-nchw": Case("encode", torch.float32, channels_last=False),
    "encode-float32-sliced": Case("encode", torch.float32, sliced=True),
    "encode-bfloat16-sliced": Case("encode", torch.bfloat16, sliced=True),
    "encode-bfloat16": Case("encode", torch.bfloat16),
    "decode-float32": Case("decode", torch.float32),
    "decode-float32-nchw": Case("decode", torch.float32, channels_last=False),
    "decode-float32-sliced": Case("decode", torch.float32, sliced=True),
    "decode-bfloat16-sliced": Case("decode", torch.bfloat16, sliced=True),
    "decode-bfloat16": Case("decode", torch.bfloat16),
    "encode-float32-512": Case("encode", torch.float32, side=64, frames=1),
    "decode-float32-512": Case("decode", torch.float32, side=64, frames=1),
    "encode-bfloat16-512": Case("encode", torch.bfloat16, side=64, frames=1),
    "decode-bfloat16-512": Case("decode", torch.bfloat16, side=64, frames=1),
    "gemm-float32": Case("gemm", torch.float32),
    "gemm-bfloat16": Case("gemm", torch.bfloat16),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the cases asked for, each in its own process."""
    parser = argparse.ArgumentParser(description="Measure LatentSync's networks.")
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)}; all where none is given")
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.inside is not None:
        run_case(options.cases[0], options.inside)
        return 0
    with tempfile.TemporaryDirectory(prefix="lipsync-bench-") as folder:
        for name in options.cases or CASES:
            command = [sys.executable, "-m", "benchmarks.bench_latentsync_torch", name, "--inside", folder]
            subprocess.run(command, check=True)
    return 0


@torch.inference_mode()
def run_case(name: str, folder: Path) -> None:
    """Run one case and print its line; outputs are compared through files in `folder`."""
    case = CASES[name]
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    work = {"unet": _unet, "cheap": _cheap, "encode": _encode, "decode": _decode, "gemm": _gemm}[case.work](case)
    made = peak_rss() or 0
    notes = ""
    if case.compiled:
        compile_cpu, compile_wall, _ = _timed(work)
        notes = f", first call {compile_cpu:.1f} CPU s, {compile_wall:.1f} s"
    cpu, wall, out = _timed(work)
    truth = folder / f"{case.work}-{case.side}.pt"
    if truth.exists():
        want = torch.load(truth, weights_only=True)
        notes += f", differs by {(out.float() - want).norm() / want.norm():.1e} of the norm"
    else:
        torch.save(out.float(), truth)
    if case.work == "gemm":
        notes = f", {2 * GEMM_SIDE**3 / wall / 1e9:.0f} GFLOP/s"
    memory = f"{made / 1e9:.2f} GB made, {(peak_rss() or 0) / 1e9:.2f} GB peak"
    sys.stdout.write(f"{name:22} {cpu:7.1f} CPU s {wall:7.1f} s  {memory}{notes}\n")
    sys.stdout.flush()


def _timed(work: Callable[[], Tensor]) -> tuple[float, float, Tensor]:
    cpu, wall = time.process_time(), time.perf_counter()
    out = work()
    return time.process_time() - cpu, time.perf_counter() - wall, out


def _unet(case: Case) -> Callable[[], Tensor]:
    unet = build_unet(STAGE_2, case.dtype, "cpu", seed=0)
    if case.channels_last:
        channels_last(unet)
    if case.compiled:
        unet.compile_passes()
    sample = torch.randn(GUIDED, STAGE_2.in_channels, FRAMES, case.side, case.side).to(case.dtype)
    audio = torch.randn(GUIDED * FRAMES, 50, STAGE_2.cross_attention_dim).to(case.dtype)
    return lambda: unet.full(sample, torch.tensor([801]), audio)[0]


def _cheap(case: Case) -> Callable[[], Tensor]:
    unet = build_unet(STAGE_2, case.dtype, "cpu", seed=0)
    if case.channels_last:
        channels_last(unet)
    width = STAGE_2.block_out_channels[0]
    sample = torch.randn(GUIDED, STAGE_2.in_channels, FRAMES, case.side, case.side).to(case.dtype)
    audio = torch.randn(GUIDED * FRAMES, 50, STAGE_2.cross_attention_dim).to(case.dtype)
    deep = torch.randn(GUIDED * FRAMES, width, case.side, case.side).to(case.dtype)
    deep = deep.contiguous(memory_format=torch.channels_last if case.channels_last else torch.contiguous_format)
    return lambda: unet.shallow(sample, torch.tensor([801]), audio, deep)


def _autoencoder(case: Case) -> Autoencoder:
    net = blank_autoencoder(SD_VAE, case.dtype)
    initialise(net, 0)
    if case.channels_last:
        channels_last(net)
    return Autoencoder(SD_VAE, net, 1 if case.sliced else FRAMES)


def _encode(case: Case) -> Callable[[], Tensor]:
    autoencoder, pictures = _autoencoder(case), torch.randn(case.frames, 3, 8 * case.side, 8 * case.side)
    return lambda: autoencoder.encode(pictures, None)


def _decode(case: Case) -> Callable[[], Tensor]:
    autoencoder, latents = _autoencoder(case), torch.randn(case.frames, 4, case.side, case.side)
    return lambda: autoencoder.decode(latents)


def _gemm(case: Case) -> Callable[[], Tensor]:
    a, b = torch.randn(2, GEMM_SIDE, GEMM_SIDE).to(case.dtype)
    torch.mm(a, b)
    return lambda: torch.mm(a, b)


if __name__ == "__main__":
    sys.exit(main())
