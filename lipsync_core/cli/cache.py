"""`lipsync cache info` and `lipsync cache clear`."""

from __future__ import annotations

import typer

from lipsync_core.cli import app

cache_app = typer.Typer(
    help="See or clear the cached analyses and adapted models.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(cache_app, name="cache")


@cache_app.command()
def info() -> None:
    """Say where the cache is and how much it holds."""
    from lipsync_core import cache
    from lipsync_core.models import adapted

    count, size = cache.usage()
    typer.echo(f"{cache.analysis_dir()}: {count} analyses, {size / 1e6:.1f} MB")
    count, size = adapted.usage()
    typer.echo(f"{adapted.folder()}: {count} adapted models, {size / 1e6:.1f} MB")


@cache_app.command()
def clear() -> None:
    """Delete the cached analyses and the models adapted by `run --adapt`; downloaded models stay."""
    from lipsync_core import cache
    from lipsync_core.models import adapted

    typer.echo(f"{cache.clear()} analyses deleted from {cache.analysis_dir()}")
    typer.echo(f"{adapted.clear()} adapted models deleted from {adapted.folder()}")
