"""`lipsync export`."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lipsync_core.cli import EXIT_INTERRUPTED, app

if TYPE_CHECKING:
    from lipsync_core.models.exported import Graph


@app.command()
def export(
    model: Annotated[str, typer.Argument(help="A model folder, or a name from `lipsync models list`.")],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FOLDER", help="A new model folder, which then needs no other weights."),
    ] = None,
    precision: Annotated[
        str,
        typer.Option(metavar="float32|float16|int8", help="float16 is for GPUs, int8 for CPUs; both lose a little."),
    ] = "float32",
    resolution: Annotated[
        int | None, typer.Option(metavar="PX", help="Side of the crops; the model's own if left out.")
    ] = None,
    standard: Annotated[
        bool, typer.Option("--standard", help="Standard operators only, for TensorRT and others than onnxruntime.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an export that is there.")] = False,
) -> None:
    """Write a model's networks as ONNX graphs, which run without PyTorch."""
    from lipsync_core.models import known
    from lipsync_core.models.exported import Precision

    _require()
    if precision not in list(Precision):
        from lipsync_core.errors import SettingsError

        raise SettingsError(f"There is no precision {precision!r}.", f"Use one of: {', '.join(Precision)}.")
    from lipsync_core.cli.console import warnings_to_stderr
    from lipsync_core.models.export_torch import export_model

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the temporary folder, gigabytes, goes then too
    warnings_to_stderr()
    try:
        exported = export_model(
            known.open_model(model),
            Precision(precision),
            root=output,
            resolution=resolution,
            fused=not standard,
            overwrite=overwrite,
            report=lambda name, graph, size: typer.echo(line(name, graph, size)),
        )
    except KeyboardInterrupt:
        sys.stderr.write("lipsync: interrupted.\n")
        raise typer.Exit(EXIT_INTERRUPTED) from None
    typer.echo(exported.root)


def line(name: str, graph: Graph, size: int) -> str:
    """Return what is said of one graph; `size` in bytes."""
    return (
        f"{name:<12}{graph.nodes_before:>6} → {graph.nodes} nodes, {size / 1e6:.1f} MB, "
        f"off by at most {graph.difference:.1e} where values are about {graph.scale:.2g}"
    )


def _require() -> None:
    from importlib.util import find_spec

    from lipsync_core.errors import WeightsError
    from lipsync_core.models.exported import EXPORT_NEEDS

    absent = [module for module in EXPORT_NEEDS if find_spec(module) is None]
    if absent:
        raise WeightsError(f"Exporting needs {', '.join(absent)}.", 'Run `pip install "lipsync-core[export]"`.')
