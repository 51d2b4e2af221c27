"""`lipsync run`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lipsync_core.cli import EXIT_INTERRUPTED, app

if TYPE_CHECKING:
    from lipsync_core.api import DubResult


@app.command()
def run(
    video: Annotated[Path, typer.Argument(help="A video, or a still image, of someone's face.")],
    audio: Annotated[Path, typer.Argument(help="What to say: a sound file, or a video whose sound is taken.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The file to write: .mp4, .mov, .mkv or .webm.")],
    profile: Annotated[
        str | None, typer.Option(help="A profile's name (see `lipsync profile list`) or TOML file.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="For profiles with a model: auto, a name from `lipsync models list`, or a model folder."),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="One setting, as denoiser.options.own_voice=false."),
    ] = None,
    adapt: Annotated[
        bool, typer.Option("--adapt", help="Fit the model to this speaker first, once: about a minute, and PyTorch.")
    ] = False,
    length: Annotated[
        str | None, typer.Option(metavar="audio|video", help="End with the audio, or keep the whole video.")
    ] = None,
    extend: Annotated[
        str | None,
        typer.Option(metavar="pingpong|loop|hold|error", help="What to show where the audio is longer than the video."),
    ] = None,
    face: Annotated[
        str | None,
        typer.Option(metavar="largest|left|right|centre|N", help="Whose mouth; N counts from the left, from 0."),
    ] = None,
    silence: Annotated[
        str | None,
        typer.Option(metavar="generate|rest|keep", help="Where nobody speaks: generate, rest the mouth, keep frames."),
    ] = None,
    fps: Annotated[str | None, typer.Option(metavar="source|N", help="Frame rate of the output.")] = None,
    sync_offset: Annotated[
        float | None, typer.Option(metavar="MS", help="Begin the new sound this much later, in ms.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the starting noise.")] = None,
    crf: Annotated[int | None, typer.Option(help="Quality of the output video, 0 (best) to 51.")] = None,
    provenance: Annotated[
        bool | None, typer.Option(help="Say in the output's metadata that it is synthetic, and by what.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the output if it exists.")] = False,
    resume: Annotated[bool, typer.Option(help="Go on where the same job was interrupted.")] = True,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Say nothing but errors.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print the summary as one JSON object.")] = False,
) -> None:
    """Make the speaker in VIDEO say AUDIO."""
    from lipsync_core.adapt import adapted
    from lipsync_core.api import dub
    from lipsync_core.cli.console import progress_to, warnings_to_stderr
    from lipsync_core.cli.stopping import stops_promptly
    from lipsync_core.media.mux import check_output
    from lipsync_core.memory import keep_heap_small
    from lipsync_core.resume import tidy_all

    flags: dict[str, Any] = {
        "job.model": model,
        "job.length": length,
        "job.extend": extend,
        "aligner.options.face": face,
        "job.fps": fps,
        "job.silence": silence,
        "job.sync_offset_ms": sync_offset,
        "job.seed": seed,
        "job.crf": crf,
        "job.provenance": provenance,
    }
    warnings_to_stderr()
    keep_heap_small()
    kept = " Finished parts are kept; the same command goes on after them." if resume else ""
    try:
        with (
            stops_promptly(tidy_all, f"interrupted.{kept}"),
            progress_to(sys.stderr if json_ else sys.stdout, quiet=quiet) as progress,
        ):
            settled = {key: value for key, value in flags.items() if value is not None}
            overrides = list(set_ or ())
            if adapt:
                check_output(output, overwrite=overwrite)
                overrides += adapted(video, profile=profile, overrides=overrides, flags=settled, progress=progress)
            result = dub(
                video,
                audio,
                output,
                profile=profile,
                overrides=overrides,
                flags=settled,
                overwrite=overwrite,
                resume=resume,
                progress=progress,
            )
    except KeyboardInterrupt:
        raise typer.Exit(EXIT_INTERRUPTED) from None
    if json_:
        typer.echo(_as_json(result))
    elif not quiet:
        typer.echo(summary(result))


def summary(result: DubResult) -> str:
    """Return the closing lines of a run."""
    rested = f" ({result.rested} of them at rest)" if result.rested else ""
    resumed = f", {result.resumed_frames} of them from before" if result.resumed_frames else ""
    memory = f", peak memory {result.peak_rss_bytes / 1e6:.0f} MB" if result.peak_rss_bytes else ""
    analysis = " (analysis from the cache)" if result.analysis_cached else ""
    model = f", model {result.model}" if result.model else ""
    preview = f" ({result.preview})" if result.preview else ""
    return (
        f"{result.frames} frames, {result.width}x{result.height} at {result.fps:.4g} fps: "
        f"{result.dubbed} dubbed{rested}, {result.passed_through} passed through{resumed}{model}{preview}\n"
        f"{result.seconds:.1f} s for {result.duration_s:.1f} s of video, "
        f"{result.realtime_factor:.2f} x real time{analysis}{memory}\n"
        f"{result.output}"
    )


def _as_json(result: DubResult) -> str:
    import dataclasses
    import json

    return json.dumps(dataclasses.asdict(result), default=str)
