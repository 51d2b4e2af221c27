"""`lipsync backends`."""

from __future__ import annotations

from typing import Annotated

import typer

from lipsync_core.cli import app


@app.command()
def backends(
    json_: Annotated[bool, typer.Option("--json", help="Print them as one JSON array.")] = False,
) -> None:
    """List every backend the installed plugins offer, and what is wrong with those that cannot be used."""
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
