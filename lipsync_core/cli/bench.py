"""`lipsync bench` and `lipsync bench compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lipsync_core.backends import StageKind
from lipsync_core.cli import EXIT_INTERNAL, EXIT_INTERRUPTED, app

bench_app = typer.Typer(no_args_is_help=False, rich_markup_mode=None)
app.add_typer(bench_app, name="bench")


@bench_app.callback(invoke_without_command=True)
def bench(
    context: typer.Context,
    stage: Annotated[StageKind | None, typer.Option(help="Measure this stage by itself; else whole jobs.")] = None,
    backends: Annotated[
        str | None, typer.Option(metavar="A,B", help="Of the stage; all where left out. The first is the reference.")
    ] = None,
    profiles: Annotated[
        str | None, typer.Option(metavar="P,Q", help="Whole jobs with these profiles; all where left out.")
    ] = None,
    video: Annotated[Path | None, typer.Option(help="The video to dub.")] = None,
    audio: Annotated[
        Path | None, typer.Option(help="Another's words. A video: its mouth is the truth to compare with.")
    ] = None,
    synthetic: Annotated[bool, typer.Option("--synthetic", help="Dub a drawn face of three seconds instead.")] = False,
    repeats: Annotated[int, typer.Option(min=1, help="Rounds; five or more tell noise from difference.")] = 5,
    out: Annotated[Path, typer.Option(help="Folder for results.json, the reports and the outputs.")] = Path("bench"),
    reference: Annotated[str | None, typer.Option(help="The contender that the others are compared with.")] = None,
    profile: Annotated[
        str | None, typer.Option(help="With --stage: the profile whose other stages make the inputs.")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="One setting, for every contender.")
    ] = None,
    cores: Annotated[int | None, typer.Option(min=1, help="Let each run use this many cores only.")] = None,
) -> None:
    """Run backends or profiles head to head on the same work: speed and memory beside quality."""
    if context.invoked_subcommand is not None:
        return
    import sys
    import tempfile

    from lipsync_core.bench import contenders as field
    from lipsync_core.bench import runner, table
    from lipsync_core.cli.stopping import stops_promptly
    from lipsync_core.errors import SettingsError
    from lipsync_core.registry import discover, nearest

    if backends is not None and stage is None:
        raise SettingsError("--backends are of a stage.", "Say which with --stage.")
    if profiles is not None and stage is not None:
        raise SettingsError("--profiles are for whole jobs.", "Leave out --stage, or name --backends.")
    if synthetic == (video is not None) or (video is None) != (audio is None):
        raise SettingsError("There must be one thing to dub.", "Give --video and --audio, or --synthetic.")
    registry = discover()
    overrides = list(set_ or ())
    if stage is None:
        chosen, left_out = field.of_profiles(registry, _names(profiles), overrides)
    else:
        chosen, left_out = field.of_backends(registry, stage, _names(backends), overrides, profile)
    names = [contender.name for contender in chosen]
    if reference is not None and reference not in names:
        raise SettingsError(f"The reference {reference!r} is no contender.", nearest(reference, names))

    def say(line: str) -> None:
        sys.stderr.write(line + "\n")
        sys.stderr.flush()

    with tempfile.TemporaryDirectory(prefix="lipsync-bench-") as temporary:
        truth = None
        if video is None or audio is None:
            video, audio, truth = runner.synthetic(Path(temporary), runner.SYNTHETIC_FRAMES)
        else:
            truth = runner.true_mouth(audio)
        plan = runner.Plan(
            contenders=chosen,
            left_out=left_out,
            stage=stage,
            video=video,
            audio=audio,
            truth=truth,
            repeats=repeats,
            reference=reference or (names[0] if names else ""),
            synthetic=synthetic,
            cores=cores,
        )
        try:
            with stops_promptly(lambda: None, "interrupted."):  # which ends the worker, too
                results = runner.run(plan, out, registry, say)
        except KeyboardInterrupt:
            raise typer.Exit(EXIT_INTERRUPTED) from None
    typer.echo(table.text(results))
    typer.echo(f"\n{out / 'report.html'}")


@bench_app.command()
def compare(
    old: Annotated[Path, typer.Argument(help="The folder, or results.json, of an earlier bench.")],
    new: Annotated[Path, typer.Argument(help="The same of a later one.")],
    fail: Annotated[bool, typer.Option("--fail", help="Exit with 1 where anything costs more.")] = False,
) -> None:
    """Say what costs more in NEW than in OLD, beyond the noise."""
    from lipsync_core.bench import compare as comparing
    from lipsync_core.bench.results import load

    before, after = load(old), load(new)
    changes = comparing.compare(before, after)
    for change in changes:
        typer.echo(str(change))
    for line in comparing.quality_changes(before, after):
        typer.echo(line)
    for line in comparing.cautions(before, after):
        typer.echo(f"caution: {line}")
    slower = [change for change in changes if change.slower]
    typer.echo(f"{len(slower)} of {len(changes)} costs rose beyond the noise.")
    if slower and fail:
        raise typer.Exit(EXIT_INTERNAL)


def _names(given: str | None) -> list[str] | None:
    return None if given is None else [name.strip() for name in given.split(",") if name.strip()]
