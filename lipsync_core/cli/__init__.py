"""The `lipsync` command. Each command imports what it runs inside itself, so that `--help` stays cheap."""

from __future__ import annotations

import io
import os
import sys
from typing import Annotated, Any, NoReturn

import typer

from lipsync_core.errors import LipsyncError
from lipsync_core.threads import THREADS

DEBUG_VARIABLE = "LIPSYNC_DEBUG"
EXIT_BAD_INPUT = 2
EXIT_INTERNAL = 1
EXIT_INTERRUPTED = 130

# Plain help: rich markup doubles the time of `--help`.
app = typer.Typer(
    name="lipsync",
    help="Make the speaker in a video say new audio.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
)


def main() -> None:
    """Run the command line. A `LipsyncError` or a wrong use becomes one line on stderr and exit code 2."""
    for variable, value in THREADS.items():
        os.environ.setdefault(variable, value)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a code page without our arrows must not end a job
    try:
        status = app(prog_name="lipsync", standalone_mode=False)
        sys.exit(status if isinstance(status, int) else 0)
    except LipsyncError as error:
        if os.environ.get(DEBUG_VARIABLE):
            raise
        _complain(" ".join(str(error).split()))
        sys.exit(EXIT_BAD_INPUT)
    except Exception as error:
        if os.environ.get(DEBUG_VARIABLE):
            raise
        if hasattr(error, "format_message"):  # wrong use, as click says it, of which typer has a copy of its own
            _refuse(error)
        _complain(f"internal error: {type(error).__name__}: {error}. {DEBUG_VARIABLE}=1 shows where; please report it.")
        sys.exit(EXIT_INTERNAL)


def _refuse(error: Any) -> NoReturn:
    """Say a wrong use on one line, of which click would make a box; the help where nothing was asked for."""
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
    else:
        context = getattr(error, "ctx", None)
        command = context.command_path if context else "lipsync"
        _complain(f"{' '.join(error.format_message().split()).rstrip('.')}. See `{command} --help`.")
    sys.exit(EXIT_BAD_INPUT)


def _complain(message: str) -> None:
    # A file's name may hold what a terminal obeys.
    plain = "".join(c if c.isprintable() else c.encode("unicode_escape", "replace").decode() for c in message)
    sys.stderr.write(f"lipsync: {plain}\n")


def _show_version(wanted: bool) -> None:
    if wanted:
        from lipsync_core import __version__

        typer.echo(f"lipsync {__version__}")
        raise typer.Exit


@app.callback()
def lipsync(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Make the speaker in a video say new audio."""


from lipsync_core.cli import adapt, backends, bench, cache, doctor, evaluate, export, models, plugin, profile, run  # noqa: E402,F401 - each adds its commands to `app`
