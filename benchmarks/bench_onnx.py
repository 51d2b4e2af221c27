"""LatentSync's full-size networks in ONNX Runtime beside PyTorch: `python -m benchmarks.bench_onnx FOLDER`.

FOLDER gets a random model of LatentSync 1.5's dimensions and its exports, some 17 GB, and keeps them for the next time.
At 256 px on two threads of a CPU: a 16-frame chunk in the U-Net, four frames in the autoencoder, 30 s in Whisper.
`plain` is the graph of standard operators, one for one, which ONNX Runtime fuses by itself as it can when it loads it;
the others are fused as `lipsync export` does.

Each measurement runs in a process of its own, after a warm-up; in each round all variants of a network take turns.
Printed are medians: seconds of all cores, peak resident memory, nodes in the file and kernels that ran, the ratio to
PyTorch's seconds, and how far the output is from PyTorch's (root mean square and largest, over its root mean square).
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from lipsync_core.memory import peak_rss
from lipsync_core.models.exported import RECORD_FILE, Exported, GraphName, Precision, export_folder
from lipsync_core.models.folder import MODEL_FILE, ModelFolder, read_config
from lipsync_core.models.session_onnx import OnnxOptions, Runtime
from lipsync_core.registry import discover
from lipsync_denoiser.latentsync.chunks import AT_ONCE

# ruff: noqa: PLC0415 - torch is imported where it is used: it is not to count in the memory of the others

MODEL: Final = "latentsync-1.5.json"
FRAMES: Final = 16
PICTURES: Final = 4  # the autoencoder's frames are independent of each other
GUIDED: Final = 2  # the unconditional and the conditional half
THREADS: Final = 2
TORCH, PLAIN = "torch", "plain"
VARIANTS: Final = (TORCH, "float32", PLAIN, "int8", "float16")
WORKS: Final = {
    "unet": (GraphName.UNET, VARIANTS),
    "encode": (GraphName.VAE_ENCODER, (TORCH, "float32", PLAIN, "float16")),
    "decode": (GraphName.VAE_DECODER, (TORCH, "float32", PLAIN, "float16")),
    "whisper": (GraphName.WHISPER, (TORCH, "float32", PLAIN, "float16")),
}
Inputs = dict[str, NDArray[np.float32]]
Run = Callable[[Inputs], NDArray[np.float32]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Prepare the models, run the rounds and print a line for each variant."""
    parser = argparse.ArgumentParser(description="Measure LatentSync's networks in ONNX Runtime beside PyTorch.")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="where the models are, or are made")
    parser.add_argument("--works", nargs="+", choices=list(WORKS), default=list(WORKS), help="networks to measure")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS), help="how they are run")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each")
    parser.add_argument("--at-once", type=int, default=AT_ONCE, help="frames the autoencoder takes")
    parser.add_argument("--frames", type=int, default=FRAMES, help="frames the U-Net takes")
    parser.add_argument("--inside", nargs=2, metavar=("OUTPUT", "PROFILE"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.inside:
        measure(
            options.folder,
            options.works[0],
            options.variants[0],
            (options.at_once, options.frames),
            *map(Path, options.inside),
        )
        return 0
    # In a process of its own, whose gigabytes go with it.
    made = multiprocessing.get_context("spawn").Process(target=prepare, args=(options.folder, options.variants))
    made.start()
    made.join()
    if made.exitcode:
        return 1
    with tempfile.TemporaryDirectory(prefix="lipsync-bench-") as temporary:
        for work in options.works:
            variants = [variant for variant in WORKS[work][1] if variant in options.variants]
            report(work, rounds(options, work, variants, Path(temporary)), Path(temporary))
    return 0


def prepare(folder: Path, variants: Sequence[str]) -> None:
    """Make the model and the exports that are not there."""
    from lipsync_core.models.export_torch import export_model
    from lipsync_core.models.tiny import write_random

    root = folder / "model"
    if not (root / MODEL_FILE).exists():
        say(f"making a random model in {root}")
        write_random(root, read_config(files("lipsync_core.models") / MODEL))
    for variant in variants:
        home, precision = place(folder, variant)
        if variant != TORCH and not (export_folder(home, precision) / RECORD_FILE).exists():
            say(f"exporting {variant}")
            export_model(ModelFolder.open(root), precision, root=home, fused=variant != PLAIN)


def place(folder: Path, variant: str) -> tuple[Path, Precision]:
    """Return the model folder that holds a variant's graphs, and their precision."""
    if variant == PLAIN:
        return folder / "plain", Precision.FLOAT32
    return folder / "model", Precision.FLOAT32 if variant == TORCH else Precision(variant)


def rounds(options: Any, work: str, variants: list[str], temporary: Path) -> dict[str, list[dict[str, Any]]]:
    """Measure each variant of a network once a round."""
    found: dict[str, list[dict[str, Any]]] = {variant: [] for variant in variants}
    for number in range(options.rounds):
        for variant in variants if number % 2 == 0 else reversed(variants):
            command = [sys.executable, "-m", "benchmarks.bench_onnx", str(options.folder)]
            command += ["--works", work, "--variants", variant, "--at-once", str(options.at_once)]
            command += ["--frames", str(options.frames)]
            command += ["--inside", str(temporary / f"{work}-{variant}.npy"), str(temporary / "profile")]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
            found[variant].append(json.loads(done.stdout))
    return found


def measure(folder: Path, work: str, variant: str, lengths: tuple[int, int], output: Path, profile: Path) -> None:
    """Run one variant of a network, keep what it gives and print what it took as JSON.

    lengths: frames the autoencoder takes at once, and the U-Net.
    """
    run = _torch(folder, work) if variant == TORCH else _onnx(folder, work, variant, profile)
    warm, batches = _inputs(folder, work, *lengths)
    run.call(warm)
    began, on_the_clock = time.process_time(), time.perf_counter()
    result = np.concatenate([run.call(batch) for batch in batches])
    spent = {"cpu": time.process_time() - began, "wall": time.perf_counter() - on_the_clock}
    np.save(output, result)
    sys.stdout.write(json.dumps(spent | {"peak": peak_rss() or 0} | run.facts()) + "\n")


class _Network:
    """A network in one variant: `call` returns its first output, `facts` what is to be said of its graph."""

    def __init__(self, call: Run, facts: Callable[[], dict[str, Any]] = dict) -> None:
        self.call = call
        self.facts = facts


def _inputs(folder: Path, work: str, at_once: int, frames: int) -> tuple[Inputs, list[Inputs]]:
    """Return inputs for a warm-up, and those of the chunk."""
    config = ModelFolder.open(folder / "model").config
    draw = np.random.default_rng(0)
    side = config.resolution // config.autoencoder.downscale
    latent = config.autoencoder.latent_channels

    def unet(batch: int, frames: int) -> Inputs:
        shapes = {"latents": latent, "fixed": config.unet.in_channels - latent}
        inputs = {name: draw.standard_normal((batch, n, frames, side, side), np.float32) for name, n in shapes.items()}
        inputs["timestep"] = np.array([801], np.float32)
        inputs["audio"] = draw.standard_normal((batch * frames, *config.audio.feature_shape), np.float32)
        return inputs

    def pictures(name: str, channels: int, length: int) -> tuple[Inputs, list[Inputs]]:
        each = draw.standard_normal((PICTURES, channels, length, length), np.float32)
        cuts = [each[start : start + at_once] for start in range(0, PICTURES, at_once)]
        return {name: each[:1]}, [{name: cut} for cut in cuts]

    if work == "unet":
        return unet(1, 1), [unet(GUIDED, frames)]
    if work == "encode":
        return pictures("pixels", 3, config.resolution)
    if work == "decode":
        return pictures("latents", latent, side)
    mel: Inputs = {"mel": draw.standard_normal((1, 80, 3000), np.float32)}
    return mel, [mel]


def _torch(folder: Path, work: str) -> _Network:
    """The network as its graph is made from, in float32, channels first: faster on a CPU here."""
    import torch

    torch.set_num_threads(THREADS)
    registry, model = discover(), ModelFolder.open(folder / "model")
    backends = [entry for entry in registry.entries if entry.spec.name in ("whisper-torch", "latentsync-torch")]
    wanted = WORKS[work][0]
    sources = (source for entry in backends for source in registry.factory(entry).export_graphs(model))
    source = next(source for source in sources if source.name is wanted)

    def call(inputs: Inputs) -> NDArray[np.float32]:
        with torch.inference_mode():
            outputs = source.run(**{name: torch.from_numpy(array) for name, array in inputs.items()})
            first: NDArray[np.float32] = outputs[0].numpy()
            return first

    return _Network(call)


def _onnx(folder: Path, work: str, variant: str, profile: Path) -> _Network:
    """A graph opened as the backends open it, but with onnxruntime's profile, which costs next to nothing."""
    home, precision = place(folder, variant)
    exported = Exported.open(ModelFolder.open(home), precision)
    real, name = ort.SessionOptions, WORKS[work][0]

    def profiled() -> Any:
        settings = real()
        settings.enable_profiling = True
        settings.profile_file_prefix = str(profile)
        return settings

    ort.SessionOptions = profiled
    session = Runtime(OnnxOptions(provider="cpu", threads=THREADS)).open(exported, name)

    def facts() -> dict[str, Any]:
        events = json.loads(Path(session.inner.end_profiling()).read_text(encoding="utf-8"))
        kernels = [event for event in events if event.get("cat") == "Node" and event["name"].endswith("_kernel_time")]
        spent: Counter[str] = Counter()
        for event in kernels:
            spent[event["args"]["op_name"]] += event["dur"]
        share = {kind: round(time / spent.total(), 3) for kind, time in spent.most_common(4)}
        graph = exported.record.graphs[name]
        return {"nodes": graph.nodes, "kernels": len({event["name"] for event in kernels}), "share": share}

    return _Network(lambda inputs: session.run(**inputs)[0], facts)


def report(work: str, found: dict[str, list[dict[str, Any]]], temporary: Path) -> None:
    """Print a line for each variant."""
    truth = np.load(temporary / f"{work}-{TORCH}.npy") if TORCH in found else None
    ours = statistics.median(one["cpu"] for one in found[TORCH]) if TORCH in found else None
    for variant, all_rounds in found.items():
        cpu, wall, peak = (statistics.median(one[key] for one in all_rounds) for key in ("cpu", "wall", "peak"))
        line = f"{work:8}{variant:8} {cpu:7.2f} CPU s {wall:7.2f} s {peak / 1e9:5.2f} GB"
        if ours is not None:
            line += f"  {ours / cpu:5.2f} x torch"
        if variant != TORCH:
            line += f"  {all_rounds[0]['nodes']} nodes, {all_rounds[0]['kernels']} kernels"
        if truth is not None and variant != TORCH:
            error, scale = np.load(temporary / f"{work}-{variant}.npy") - truth, np.sqrt(np.square(truth).mean())
            line += (
                f"  off by {np.sqrt(np.square(error).mean()) / scale:.1e}, at most {np.abs(error).max() / scale:.1e}"
            )
        say(line)
        if variant != TORCH:
            say(f"{'':16} {', '.join(f'{kind} {part:.0%}' for kind, part in all_rounds[0]['share'].items())}")


def say(text: str) -> None:
    """Print a line at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
