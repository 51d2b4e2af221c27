"""Exported models: the ONNX graphs of a model folder, in `onnx/<precision>/` inside it, with `export.json` beside them.

A folder with `model.json` and such graphs needs no other weights and no torch.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lipsync_core.errors import WeightsError
from lipsync_core.models import known
from lipsync_core.models.folder import ModelFolder
from lipsync_core.models.manifest import RelativePath
from lipsync_core.models.store import sha256

RECORD_FILE = "export.json"
EXPORT_NEEDS = ("torch", "safetensors", "onnx", "onnxruntime")  # top-level modules

_logger = logging.getLogger(__name__)


class Precision(StrEnum):
    """How numbers are kept in the graphs; inputs and outputs are float32 in all of them."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"
    INT8 = "int8"  # weights of the U-Net's products and convolutions, quantised; what they meet, as it runs


class GraphName(StrEnum):
    """The graphs of a model. Axes written n, b or f are dynamic.

    whisper: `mel` [1, 80, 3000] → `states` [1500, layers + 1, width].
    vae_encoder: `pixels` [n, 3, S, S], −1…1 → `mean`, `std` [n, C, S/8, S/8], unscaled latents.
    vae_decoder: `latents` [n, C, S/8, S/8], as the U-Net gives them → `pixels` [n, 3, S, S], −1…1, not clamped.
    unet: `latents` [b, C, f, S/8, S/8], `fixed` [b, 2·C + 1, f, S/8, S/8] (mask, masked-image and reference latents),
        `timestep` [1], `audio` [bf, tokens, width], b·f of them, frames varying fastest →
        `prediction` [b, C, f, S/8, S/8].

    S: the crop's side; 8 stands for the autoencoder's downscale, C for its latent channels. All are float32.
    """

    WHISPER = "whisper"
    VAE_ENCODER = "vae_encoder"
    VAE_DECODER = "vae_decoder"
    UNET = "unet"


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Graph(_Record):
    """One graph as it was written."""

    file: RelativePath = Field(description="the .onnx file, beside export.json")
    sha256: str = Field(
        description="hash of that file; of its external data where there is any; of both where that is shared"
    )
    inputs: dict[str, tuple[int | str, ...]] = Field({}, description="shapes, float32; a name is an open axis")
    outputs: dict[str, tuple[int | str, ...]] = Field({}, description="shapes, float32; a name is an open axis")
    lengths: dict[str, tuple[int, int]] = Field(
        {}, description="the least and the most that the backends ask for of an open axis"
    )
    nodes: int = Field(description="operators after fusing")
    nodes_before: int = Field(description="operators before")
    difference: float = Field(description="largest difference from torch's float32 result on random inputs")
    scale: float = Field(description="root mean square of that result, to see the difference against")

    def extent(self, *, most: bool) -> dict[str, tuple[int, ...]]:
        """Return the smallest, or largest, shape of each input that has an open axis; lengths must be known."""
        return {
            name: tuple(dim if isinstance(dim, int) else self.lengths[dim][most] for dim in shape)
            for name, shape in self.inputs.items()
            if any(isinstance(dim, str) for dim in shape)
        }


class ExportRecord(_Record):
    """All of `export.json`: what was exported, from what, with what."""

    format: int = Field(1, description="version of this layout")
    model: str = Field(description="name of the model")
    precision: Precision
    resolution: int = Field(description="side of the crops the graphs take, px")
    opset: int = Field(description="version of the ONNX operators")
    fused: bool = Field(True, description="with onnxruntime's own operators; otherwise standard ones only")
    versions: dict[str, str] = Field(description="packages that wrote it")
    sources: dict[str, str] = Field(description="SHA-256 of each weight file it was made from")
    graphs: dict[GraphName, Graph]


class Exported:
    """The opened graphs of one precision."""

    def __init__(self, folder: ModelFolder, root: Path, record: ExportRecord) -> None:
        self.folder = folder
        self.root = root
        self.record = record

    @classmethod
    def open(cls, folder: ModelFolder, precision: Precision) -> Exported:
        """Read and check `export.json`; raises `WeightsError` where it is missing or wrong."""
        root = export_folder(folder.root, precision)
        file = root / RECORD_FILE
        try:
            record = ExportRecord.model_validate(json.loads(file.read_text(encoding="utf-8")))
        except (OSError, ValueError, RecursionError) as error:  # pydantic's error and JSON's are ValueErrors
            reason = error.errors(include_url=False)[0]["msg"] if isinstance(error, ValidationError) else error
            raise WeightsError(f"{file} cannot be used: {reason}.", f"Delete {root} and export again.") from error
        written = file.stat().st_mtime_ns
        for name, wanted in record.sources.items():
            weights = folder.root / name
            # Hashed only where a file came after the graphs: that takes seconds for gigabytes.
            if weights.is_file() and weights.stat().st_mtime_ns > written and sha256(weights) != wanted:
                raise WeightsError(
                    f"{root} was exported from another {name} than the one that is there.",
                    f"Delete {root} and export again.",
                )
        return cls(folder, root, record)

    def path(self, name: GraphName) -> Path:
        """Return the file of a graph; raises `WeightsError` where it is missing."""
        graph = self.record.graphs.get(name)
        if graph is None or not (self.root / graph.file).is_file():
            raise WeightsError(f"{self.root} lacks the graph {name}.", f"Delete {self.root} and export again.")
        return self.root / graph.file


def export_folder(model: Path, precision: Precision) -> Path:
    """Return where the graphs of a model folder are, or would be."""
    return model / "onnx" / precision


def open_exported(model: str, precisions: Iterable[Precision]) -> Exported:
    """Open the graphs of the model an option names, in the first of `precisions` that is there.

    model: `auto` for the best that is exported, a known name, or the path of a model folder. Where nothing is
    exported but torch and the weights are here, exports once, in the first of `precisions`, and says so.
    Raises: `WeightsError` saying in one line what to do.
    """
    wanted = list(precisions)
    for folder in known.described_folders(model):
        for precision in wanted:
            if (export_folder(folder, precision) / RECORD_FILE).is_file():
                return Exported.open(ModelFolder.open(folder), precision)
    return _export_once(model, wanted)


def exports(model: Path) -> Iterator[Precision]:
    """Yield the precisions a model folder is exported in."""
    for precision in Precision:
        if (export_folder(model, precision) / RECORD_FILE).is_file():
            yield precision


def _export_once(model: str, precisions: list[Precision]) -> Exported:
    absent = [module for module in EXPORT_NEEDS if find_spec(module) is None]
    if absent:
        raise WeightsError(
            f"The model {model} is not exported to ONNX ({' or '.join(precisions)}), and exporting needs "
            f"{', '.join(absent)}.",
            f"Run `lipsync export {model} -o FOLDER` where `lipsync-core[export]` is installed, and give FOLDER "
            "with --model.",
        )
    from lipsync_core.models.export_torch import export_model  # noqa: PLC0415 - only now is torch wanted

    folder, precision = known.open_model(model), precisions[0]
    _logger.warning("the model %s is exported to ONNX (%s), once", folder.config.name, precision)
    return export_model(folder, precision)
