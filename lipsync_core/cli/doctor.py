"""`lipsync doctor`."""

from __future__ import annotations

import typer

from lipsync_core.cli import app


@app.command()
def doctor() -> None:
    """Check what this machine has: codecs, devices, model files, plugins, disk."""
    from lipsync_core.diagnosis import diagnose

    for finding in diagnose():
        typer.echo(f"{'ok' if finding.good else '!!':<4}{finding.topic:<12}{finding.text}")
