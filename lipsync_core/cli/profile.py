"""`lipsync profile list` and `lipsync profile show`."""

from __future__ import annotations

from typing import Annotated

import typer

from lipsync_core.cli import app

profile_app = typer.Typer(help="See the profiles and what they set.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(profile_app, name="profile")


@profile_app.command("list")
def list_profiles() -> None:
    """List the profiles."""
    from lipsync_core.registry import discover
    from lipsync_core.settings import available_profiles

    for profile in available_profiles(discover()).values():
        typer.echo(f"{profile.name:<18}{profile.summary}  [{profile.layer.name}]")


@profile_app.command()
def show(
    name: Annotated[
        str | None, typer.Argument(help="A profile's name or TOML file; the default one if left out.")
    ] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="As for `lipsync run`.")] = None,
) -> None:
    """Print each effective value and the layer it came from."""
    from lipsync_core.registry import discover
    from lipsync_core.settings import resolve

    settings = resolve(discover(), profile=name, overrides=set_ or ())
    values = settings.values()
    width = max(map(len, values)) + 2
    for key, value in values.items():
        typer.echo(f"{key:<{width}}{value!s:<24}{settings.origin[key]}")
