"""`lipsync plugin new`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lipsync_core.backends import StageKind
from lipsync_core.cli import app

plugin_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Start a plugin of your own.")
app.add_typer(plugin_app, name="plugin")


@plugin_app.callback()
def plugin() -> None:
    """Start a plugin of your own."""


@plugin_app.command()
def new(
    name: Annotated[str, typer.Argument(help="Of the backend: lower case letters, digits and dashes.")],
    stage: Annotated[StageKind, typer.Option(help="The stage it is a backend of.")],
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Folder to write; left out, ./NAME.")] = None,
) -> None:
    """Write a complete distribution with one backend, which passes its own tests as it is."""
    from lipsync_core.testing.scaffold import write_plugin

    folder = write_plugin(name, stage, output or Path(name))
    typer.echo(f"{folder} is written. Next:")
    typer.echo(f"  cd {folder}")
    typer.echo('  pip install -e ".[dev]"')
    typer.echo("  pytest")
    typer.echo(f"  lipsync backends check {name}")
