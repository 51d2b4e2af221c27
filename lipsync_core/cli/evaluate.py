"""`lipsync eval`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from lipsync_core.cli import app


@app.command("eval")
def eval_(
    output: Annotated[Path, typer.Argument(help="A dubbed video, of this tool or any other.")],
    reference: Annotated[
        Path | None, typer.Option(help="Another dub of the same video and sound: how far apart are they?")
    ] = None,
    source: Annotated[Path | None, typer.Option(help="The video it was made from: what became of the picture?")] = None,
    truth: Annotated[
        Path | None, typer.Option(help="A video of someone really saying it: does the mouth do the same?")
    ] = None,
    extend: Annotated[
        str, typer.Option(metavar="pingpong|loop|hold", help="How OUTPUT goes on where SOURCE ends.")
    ] = "pingpong",
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Measure a dubbed video; give at least one of --reference, --source, --truth."""
    from lipsync_core.cli.console import progress_to, warnings_to_stderr
    from lipsync_core.errors import SettingsError
    from lipsync_core.quality import evaluate
    from lipsync_core.registry import discover, nearest

    if reference is None and source is None and truth is None:
        raise SettingsError("There is nothing to compare with.", "Give --reference, --source or --truth.")
    if extend not in ("pingpong", "loop", "hold"):
        raise SettingsError(f"--extend {extend!r} is not known.", nearest(extend, ("pingpong", "loop", "hold")))
    warnings_to_stderr()
    registry = discover()
    figures: dict[str, dict[str, float]] = {}
    with progress_to(sys.stderr, quiet=json_) as progress:

        def look_at(path: Path) -> evaluate.Video:
            return evaluate.look_at(path, registry, progress)

        shown = look_at(output)
        if reference is not None:
            figures["reference"] = evaluate.against_reference(shown, look_at(reference))
        if source is not None:
            figures["source"] = evaluate.against_source(shown, look_at(source), extend=extend)
        if truth is not None:
            figures["truth"] = evaluate.against_truth(shown, look_at(truth))
    typer.echo(_as_json(figures) if json_ else _as_text(figures))


_UNITS = {
    "max": "of 255",
    "mean": "of 255",
    "psnr": "dB",
    "elsewhere": "of 255",
    "flicker": "x the source's",
    "sharpness": "x the source's",
    "seam": "x the source's",
    "opening_lag": "frames",
    "opening_amplitude": "x the truth's",
    "landmark_distance": "% of the eyes' distance",
}


def _as_text(figures: dict[str, dict[str, float]]) -> str:
    import math

    lines = []
    for against, values in figures.items():
        lines.append(f"against the {against}")
        for name, value in values.items():
            unit = _UNITS.get(name.removeprefix("mouth_"), "")
            shown = "-" if math.isnan(value) else f"{value:.4g}"
            lines.append(f"  {name:<20}{shown:>8}  {unit}".rstrip())
    if any(math.isnan(value) for values in figures.values() for name, value in values.items() if name.endswith("ssim")):
        lines.append('ssim needs scikit-image: pip install "lipsync-core[eval]"')
    return "\n".join(lines)


def _as_json(figures: dict[str, dict[str, float]]) -> str:
    import json
    import math

    # JSON knows neither NaN nor infinity.
    plain = {
        against: {name: value if math.isfinite(value) else None for name, value in values.items()}
        for against, values in figures.items()
    }
    return json.dumps(plain)
