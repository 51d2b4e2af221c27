"""`lipsync export`: the networks of a model folder as ONNX graphs, each compared with PyTorch as it is written.

The core knows no architecture, so the graphs come from the backends that do. The class named by the `factory` of each
backend below has a class method that yields them one after another, reading a network's weights when its turn comes:

    audio     whisper-torch     export_graphs(folder: ModelFolder) -> Iterator[GraphSource]
    denoiser  latentsync-torch  export_graphs(folder: ModelFolder) -> Iterator[GraphSource]
"""

from __future__ import annotations

import hashlib
import math
import shutil
import tempfile
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Final

import numpy as np
import onnxruntime as ort
import torch

from lipsync_core import __version__
from lipsync_core.backends import StageKind
from lipsync_core.errors import WeightsError
from lipsync_core.models.exported import RECORD_FILE, Exported, ExportRecord, Graph, GraphName, Precision, export_folder
from lipsync_core.models.folder import MODEL_FILE, AudioPart, ModelConfig, ModelFolder
from lipsync_core.models.graph_file_torch import write_graph
from lipsync_core.models.graph_torch import OPSET, GraphBuilder, GraphSource
from lipsync_core.models.session_onnx import quantise_exactly
from lipsync_core.models.store import sha256
from lipsync_core.registry import Registry, discover

Report = Callable[[GraphName, Graph, int], None]
_BACKENDS: Final = ((StageKind.AUDIO, "whisper-torch"), (StageKind.DENOISER, "latentsync-torch"))
_PACKAGES: Final = ("torch", "onnx", "onnxruntime", "numpy")
_FATAL: Final = 4  # onnxruntime's severity: its warnings are about what it then handles itself
# What a chunk takes is nearly all in the U-Net: quantising the others would cost quality and save nothing.
_QUANTISED: Final = (GraphName.UNET,)
# The largest difference from PyTorch's float32 result, over that result's root mean square, above which a graph is
# taken to be wrong. Both have noise: where a GroupNorm has one pixel, PyTorch's own float32 is off by 1e-3.
_LIMITS: Final = {Precision.FLOAT32: 1e-2, Precision.FLOAT16: 0.1, Precision.INT8: 1.0}


def export_model(
    folder: ModelFolder,
    precision: Precision,
    *,
    root: Path | None = None,
    resolution: int | None = None,
    fused: bool = True,
    overwrite: bool = False,
    share: bool = False,
    registry: Registry | None = None,
    report: Report = lambda name, graph, size: None,
) -> Exported:
    """Write the graphs of a model into `onnx/<precision>/` of the model folder `root`, and open them.

    root: gets `model.json` if it has none; None for the model's own folder. resolution: side of the crops, px; None for
    the model's. fused: use onnxruntime's own operators; False for runtimes that lack them. report: called with each
    graph as it is written and the bytes it takes. share: where the model's own weights lie in its `onnx/float32/`, in
    float16, graphs in float32 read them from there, so that they are on the disk once.

    Nothing is there before all is. Raises: `WeightsError` where weights are missing, an export or another model is
    there, the disk is full, or a graph does not give what PyTorch gives; `BackendError` where a backend is missing.
    """
    config = _at(folder.config, resolution)
    home = root or folder.root
    target = export_folder(home, precision)
    if (target / RECORD_FILE).exists() and not overwrite:
        raise WeightsError(f"{target} holds an export already.", "Give --overwrite to replace it.")
    if root is not None and (home / MODEL_FILE).exists() and ModelFolder.open(home).config != config:
        raise WeightsError(f"{home} holds another model, or this one at another resolution.", "Choose another folder.")
    registry = registry or discover()
    # An audio encoder without weights in the folder has nothing to export.
    wanted = [b for b in _BACKENDS if b[0] is not StageKind.AUDIO or isinstance(config.audio, AudioPart)]
    backends = [registry.factory(registry.find(kind, name)) for kind, name in wanted]
    sources = {file: sha256(folder.path(file)) for file in config.weights}
    try:
        with tempfile.TemporaryDirectory(dir=_existing(home), prefix=".lipsync-export-") as temporary:
            work = Path(temporary)
            graphs = {}
            shared = _shared(folder, target, work) if share else []
            for backend in backends:
                for source in backend.export_graphs(ModelFolder(folder.root, config)):
                    graphs[source.name], size = _export(source, work, precision, fused=fused, shared=shared)
                    report(source.name, graphs[source.name], size)
            for file in shared:
                file.unlink()  # it lies where the graphs go
            record = ExportRecord(
                format=1,
                model=config.name,
                precision=precision,
                resolution=config.resolution,
                opset=OPSET,
                fused=fused,
                versions={"lipsync-core": __version__} | {name: version(name) for name in _PACKAGES},
                sources=sources,
                graphs=graphs,
            )
            (work / RECORD_FILE).write_text(record.model_dump_json(indent=2) + "\n", encoding="utf-8")
            if not (home / MODEL_FILE).exists():
                (work / MODEL_FILE).write_text(config.model_dump_json(indent=2) + "\n", encoding="utf-8")
            _move(work, home, target)
    except OSError as error:
        raise WeightsError(
            f"{target} cannot be written: {error.strerror or error}.", "Free space or choose another folder with -o."
        ) from error
    return Exported.open(ModelFolder.open(home), precision)


def _shared(folder: ModelFolder, target: Path, work: Path) -> list[Path]:
    """Copy the weights that graphs in `target` can take constants from into `work`, and return them.

    Beside the graphs: onnxruntime reads no file from outside a graph's own folder.
    """
    beside = [file for file in map(folder.path, folder.config.weights) if file.parent == target]
    if not beside:
        raise WeightsError(
            f"No weights lie in {target}, so its graphs cannot share them.", "Export without sharing, or move them."
        )
    return [Path(shutil.copy(file, work)) for file in beside]


def _export(
    source: GraphSource, folder: Path, precision: Precision, *, fused: bool, shared: Sequence[Path] = ()
) -> tuple[Graph, int]:
    if precision is Precision.INT8 and source.name not in _QUANTISED:
        precision = Precision.FLOAT32
    plain = GraphBuilder(source.name, precision, fused=False)
    builder = GraphBuilder(source.name, precision, fused=fused, shared=bool(shared))
    source.emit(plain)
    source.emit(builder)
    file = folder / f"{source.name}.onnx"
    files = write_graph(builder, file, shared)
    difference, scale = _compare(source, file)
    if not difference <= _LIMITS[precision] * scale:
        raise WeightsError(
            f"The graph {source.name} in {precision} is off by {difference:.2g} where PyTorch's values are about "
            f"{scale:.2g}, so it was not kept.",
            "Export in float32, or report this with your versions of onnx and onnxruntime.",
        )
    inputs, outputs = builder.shapes
    graph = Graph(
        file=file.name,
        sha256=_sha256([*files, *shared]) if shared else sha256(files[-1]),
        inputs=inputs,
        outputs=outputs,
        lengths=source.lengths,
        nodes=len(builder.nodes),
        nodes_before=len(plain.nodes),
        difference=difference,
        scale=scale,
    )
    return graph, sum(path.stat().st_size for path in files)


def _compare(source: GraphSource, file: Path) -> tuple[float, float]:
    """Return the largest difference from PyTorch, NaN where the graph gives none, and PyTorch's root mean square."""
    with torch.inference_mode():
        wanted = [tensor.numpy() for tensor in source.run(**source.inputs)]
    settings = ort.SessionOptions()
    settings.log_severity_level = _FATAL
    settings.intra_op_num_threads = torch.get_num_threads()
    quantise_exactly(settings)
    session = ort.InferenceSession(file, settings, providers=["CPUExecutionProvider"])
    got = session.run(None, {name: tensor.numpy() for name, tensor in source.inputs.items()})
    difference = max(float(np.abs(have - want).max()) for have, want in zip(got, wanted, strict=True))
    # A deviation that is zero throughout, of an autoencoder that draws no samples, is no scale.
    return difference, min(float(np.sqrt(np.square(want).mean())) for want in wanted if want.any())


def _sha256(files: Sequence[Path]) -> str:
    """Return one hash of several files: a graph may be the same with other weights, or other with the same."""
    return hashlib.sha256("".join(map(sha256, files)).encode()).hexdigest()


def _at(config: ModelConfig, resolution: int | None) -> ModelConfig:
    """Return the model at another resolution."""
    if resolution is None:
        return config
    step = math.lcm(8, config.autoencoder.downscale)
    if resolution < step or resolution % step:
        raise WeightsError(f"A resolution of {resolution} px is no multiple of {step} px.", "Give one that is.")
    return config.model_copy(update={"resolution": resolution})


def _existing(path: Path) -> Path:
    """Return the nearest folder that is there, on whose disk `path` will be."""
    return next(folder for folder in (path, *path.absolute().parents) if folder.is_dir())


def _move(work: Path, home: Path, target: Path) -> None:
    """Bring the files of a finished export to their place; the record goes last, as it makes them an export."""
    target.mkdir(parents=True, exist_ok=True)
    for old in (target / RECORD_FILE, *(path for name in GraphName for path in target.glob(f"{name}.onnx*"))):
        old.unlink(missing_ok=True)
    for file in sorted(work.iterdir(), key=lambda path: path.name == RECORD_FILE):
        file.replace((home if file.name == MODEL_FILE else target) / file.name)
