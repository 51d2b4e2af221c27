"""`lipsync backends` and `lipsync backends check`."""

from __future__ import annotations

import tomllib
from typing import Annotated, Any

import typer

from lipsync_core.backends import StageKind
from lipsync_core.cli import EXIT_INTERNAL, app

backends_app = typer.Typer(no_args_is_help=False, rich_markup_mode=None)
app.add_typer(backends_app, name="backends")


@backends_app.callback(invoke_without_command=True)
def backends(
    context: typer.Context,
    json_: Annotated[bool, typer.Option("--json", help="Print them as one JSON array.")] = False,
) -> None:
    """List every backend the installed plugins offer, and what is wrong with those that cannot be used."""
    if context.invoked_subcommand is not None:
        return
    from lipsync_core.registry import discover

    registry = discover()
    if json_:
        import dataclasses
        import json

        rows = [
            {**dataclasses.asdict(entry.spec), "state": entry.state, "from": str(entry.origin), "detail": entry.detail}
            for entry in registry.entries
        ]
        problems = [{"state": "broken", "from": str(p.origin), "detail": p.error} for p in registry.problems]
        typer.echo(json.dumps(rows + problems))
        return
    for entry in registry.entries:
        typer.echo(f"{entry.spec.kind:<11}{entry.spec.name:<22}{entry.state:<10}{entry.spec.summary}  [{entry.origin}]")
        if entry.detail:
            typer.echo(f"{'':<33}{entry.detail}")
    for problem in registry.problems:
        typer.echo(f"{'plugin':<11}{problem.origin.entry_point:<22}{'broken':<10}{problem.error}  [{problem.origin}]")


@backends_app.command()
def check(
    name: Annotated[str, typer.Argument(help="The backend, as `lipsync backends` lists it.")],
    stage: Annotated[StageKind | None, typer.Option(help="Its stage, where several have a backend so named.")] = None,
    option: Annotated[
        list[str] | None, typer.Option("--option", help="KEY=VALUE of its options; may be repeated.")
    ] = None,
    reference: Annotated[str | None, typer.Option(help="A backend of the stage that it is to agree with.")] = None,
    tolerance: Annotated[float, typer.Option(min=0, help="By how much the two may differ in any output value.")] = 0.0,
) -> None:
    """Check that a backend does what its stage asks for; exit code 1 where it does not."""
    from contextlib import suppress

    from lipsync_core.errors import BackendError, SettingsError
    from lipsync_core.registry import discover, nearest
    from lipsync_core.testing import CHECKS, Case, run_checks
    from lipsync_core.testing.case import Outcome

    registry = discover()
    kinds = sorted({entry.spec.kind for entry in registry.entries if entry.spec.name == name})
    if stage is None and len(kinds) > 1:
        raise SettingsError(f"{name} is a backend of {' and '.join(kinds)}.", "Say which with --stage.")
    if not kinds and not registry.problems:
        known = [entry.spec.name for entry in registry.entries]
        raise SettingsError(f"There is no backend named {name!r}.", nearest(name, known))
    kind = stage or (kinds[0] if kinds else StageKind.DENOISER)
    if kinds and kind not in kinds:
        raise SettingsError(f"There is no {kind} backend named {name!r}.", f"It is of stage {', '.join(kinds)}.")
    if reference is not None:
        registry.find(kind, reference)
    options = dict(map(_option, option or []))
    case = Case(registry, kind, name, options, reference, tolerance=tolerance)
    if kinds:
        with suppress(BackendError):  # a backend that cannot be used is what the checks are about
            case.checked_options()
    failed = 0
    for result in run_checks(CHECKS[kind], case):
        failed += result.outcome is Outcome.FAILED
        typer.echo(f"{result.check:<34}{result.outcome}{': ' if result.detail else ''}{result.detail}")
        if result.outcome is Outcome.FAILED and (result.check == CHECKS[kind][0].__name__):
            break  # what cannot be made cannot be asked more
    if failed:
        typer.echo(f"{failed} failed; the checks are explained in lipsync_core/testing/checks.py.")
        raise typer.Exit(EXIT_INTERNAL)


def _option(text: str) -> tuple[str, Any]:
    """Read KEY=VALUE, the value as TOML would; anything else is a string."""
    from lipsync_core.errors import SettingsError

    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise SettingsError(f"--option {text!r} is not KEY=VALUE.", "Write for example --option steps=2.")
    try:
        return key.strip(), tomllib.loads(f"value = {value}")["value"]
    except (ValueError, RecursionError):  # TOML's own errors, a number or a nesting without end
        return key.strip(), value
