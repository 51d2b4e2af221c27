"""`lipsync adapt`."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lipsync_core.cli import EXIT_INTERRUPTED, app

if TYPE_CHECKING:
    from lipsync_core.adapt import AdaptResult


@app.command()
def adapt(
    video: Annotated[Path, typer.Argument(help="A video of the speaker, with their own voice.")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FOLDER", help="A new model folder.")],
    profile: Annotated[str, typer.Option(help="A profile's name or TOML file, whose model is adapted.")] = "torch",
    model: Annotated[
        str | None, typer.Option(help="auto, a name from `lipsync models list`, or a model folder.")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="One setting, as aligner.options.face=left.")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="More take longer and fit closer.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same model.")] = 0,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Say nothing but errors.")] = False,
) -> None:
    """Fit a model to the speaker of VIDEO; `lipsync run --model FOLDER` then dubs with it. Needs PyTorch."""
    from lipsync_core.adapt import STEPS
    from lipsync_core.adapt import adapt as fit
    from lipsync_core.cli.console import progress_to, warnings_to_stderr

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    warnings_to_stderr()
    try:
        with progress_to(sys.stdout, quiet=quiet) as progress:
            result = fit(
                video,
                output,
                profile=profile,
                overrides=set_ or (),
                flags={} if model is None else {"job.model": model},
                steps=STEPS if steps is None else steps,
                seed=seed,
                progress=progress,
                report=(lambda step, psnr: None) if quiet else told,
            )
    except KeyboardInterrupt:
        sys.stderr.write("lipsync: interrupted.\n")
        raise typer.Exit(EXIT_INTERRUPTED) from None
    if not quiet:
        typer.echo(summary(result))


def told(step: int, psnr: float) -> None:
    """Say how well the model does at a step."""
    typer.echo(f"step {step}: mouth PSNR {psnr:.2f} dB on frames held back")


def summary(result: AdaptResult) -> str:
    """Return the closing lines."""
    memory = f", peak memory {result.peak_rss_bytes / 1e6:.0f} MB" if result.peak_rss_bytes else ""
    return (
        f"{result.model}: mouth PSNR {result.psnr_before:.2f} → {result.psnr_after:.2f} dB on frames held back "
        f"(step {result.best_step}), {result.seconds:.0f} s{memory}\n"
        f"{result.folder}"
    )
