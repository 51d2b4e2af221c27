"""`lipsync models`: list, pull, path, verify, convert, tiny."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lipsync_core.cli import app

models_app = typer.Typer(help="Bring, check and convert model files.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(models_app, name="models")

Name = Annotated[str, typer.Argument(help="A name from `lipsync models list`.")]


@models_app.command("list")
def list_() -> None:
    """Show every known model: whether it is here, its size and its licence."""
    from lipsync_core.models import known, store

    rows = [
        (row.model.name, row.folder, row.size, row.model.licence, f"lipsync models pull {row.model.name}")
        for row in known.status()
    ]
    rows += [(row.weight.name, row.path, row.weight.size, row.weight.licence, row.cure) for row in store.status()]
    for name, path, size, licence, cure in rows:
        typer.echo(f"{name:<23}{'present' if path else 'missing':<9}{size / 1e6:>8.1f} MB  {licence}")
        typer.echo(f"{'':<23}{path or cure}")


@models_app.command()
def pull(name: Name) -> None:
    """Download a model, or what is missing or damaged of it, and print its place."""
    from lipsync_core.cli.console import warnings_to_stderr
    from lipsync_core.models import known, manifest, store

    warnings_to_stderr()
    typer.echo(store.locate(name) if name in manifest.load() else known.pull(name))


@models_app.command()
def path(name: Name) -> None:
    """Print where a model is; downloads nothing."""
    from lipsync_core.cli.console import warnings_to_stderr
    from lipsync_core.models import known, manifest, store

    warnings_to_stderr()
    typer.echo(store.locate(name, download=False) if name in manifest.load() else known.folder_of(name))


@models_app.command()
def verify(
    name: Annotated[str | None, typer.Argument(help="A name from the list; all that are here if left out.")] = None,
) -> None:
    """Hash the files of a model and compare; exits with 2 if one is damaged or missing."""
    from lipsync_core.errors import WeightsError
    from lipsync_core.models import known, manifest, store

    bad = []
    if name in manifest.load():
        names, singles = [], [name]
    elif name is not None:
        names, singles = [name], []
    else:
        names = [row.model.name for row in known.status() if row.folder]
        singles = [row.weight.name for row in store.status() if row.path]
    for model in names:
        for file, verdict in known.verify(model):
            typer.echo(f"{model}/{file}: {verdict}")
            if verdict in (known.Verdict.DAMAGED, known.Verdict.MISSING):
                bad.append((model, f"{model}/{file} is {verdict}."))
    for single in singles:
        place = store.locate(single, download=False)  # raises for what is missing, deletes what is damaged in the cache
        good = store.sha256(place) == manifest.find(single).sha256
        typer.echo(f"{single}: {'good' if good else 'another file than the known one'}")
    if bad:
        model, cause = bad[0]
        raise WeightsError(cause, f"Delete the file if it is there and run `lipsync models pull {model}`.")


@models_app.command()
def convert(folder: Annotated[str, typer.Argument(help="A model folder, or a name from the list.")]) -> None:
    """Write the pickles of a model folder as safetensors, once; they load faster and cannot run anything."""
    _require_torch()
    from lipsync_core.models import known
    from lipsync_core.models.convert_torch import convert as convert_folder

    done = convert_folder(known.open_model(folder).root)
    for old, new in done:
        typer.echo(f"{new} replaces {old.name}, which may be deleted")
    if not done:
        typer.echo("nothing to convert: every part is safetensors already")


@models_app.command()
def tiny(
    folder: Annotated[Path, typer.Argument(help="Folder to write the model into; made if there is none.")],
    seed: Annotated[int, typer.Option(help="The same seed gives the same model.")] = 0,
) -> None:
    """Write a complete random model of tiny dimensions, for trying the machinery and for tests."""
    _require_torch()
    from lipsync_core.models.tiny import write_tiny

    write_tiny(folder, seed)
    typer.echo(folder)


def _require_torch() -> None:
    from importlib.util import find_spec

    from lipsync_core.errors import WeightsError

    absent = [module for module in ("torch", "safetensors") if find_spec(module) is None]
    if absent:
        raise WeightsError(f"This needs {' and '.join(absent)}.", 'Run `pip install "lipsync-core[torch]"`.')
