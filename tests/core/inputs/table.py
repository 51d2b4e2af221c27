"""docs/formats.md from the cases: `python -m tests.core.inputs.table` runs them all and writes it."""

from __future__ import annotations

import os
import sys
import tempfile
from itertools import groupby
from pathlib import Path
from typing import Final

from .case import Case, run
from .sound_cases import sound_cases
from .time_cases import time_cases
from .video_cases import video_cases

PAGE: Final = Path(__file__).resolve().parents[3] / "docs" / "formats.md"
RENEW: Final = "python -m tests.core.inputs.table"

_HEAD: Final = f"""# What goes in, and what comes out

Each row is a whole job that the tests run, on a file they make, with backends that leave the pictures as they are; the
right column is what came of it. Unless it says otherwise the output has the source's size, turn, pixel shape, colour
tags, frames in order and their times (to the millisecond), pictures equal but for encoding, and sound as long as they
are. Outputs have 8 bits, no alpha and one sound. The page is written by `{RENEW}`, and the tests hold it.
"""


def cases() -> list[Case]:
    """Return all rows in order."""
    return [*video_cases(), *time_cases(), *sound_cases()]


def documented() -> dict[str, str]:
    """Return the page's rows: the case's id and what came of it."""
    rows, group = {}, ""
    for line in PAGE.read_text(encoding="utf-8").splitlines() if PAGE.exists() else ():
        if line.startswith("## "):
            group = line[3:]
        elif line.startswith("| ") and not line.startswith("| in |"):
            name, result = (cell.strip().replace("\\|", "|") for cell in line.strip("| ").split(" | ", 1))
            rows[f"{group}: {name}"] = result
    return rows


def main() -> None:
    """Run every case and write the page; with names as arguments, only show what comes of these."""
    wanted = sys.argv[1:]
    results: dict[str, str] = {}
    broken = 0
    for case in cases():
        if wanted and not any(part in case.id for part in wanted):
            continue
        with tempfile.TemporaryDirectory() as folder:
            os.environ["LIPSYNC_CACHE"] = str(Path(folder) / "cache")
            try:
                results[case.id] = run(case, Path(folder))
            except Exception as error:
                broken += 1
                results[case.id] = f"BROKEN {type(error).__name__}: {str(error)[:300]}"
        sys.stdout.write(f"{case.id} | {results[case.id]}\n")
    sys.stdout.write(f"{len(results)} rows, {broken} broken\n")
    if broken or wanted:
        sys.exit(bool(broken))
    lines = [_HEAD]
    for group, rows in groupby(cases(), key=lambda case: case.group):
        lines += [f"## {group}", "", "| in | out |", "|---|---|"]
        for case in rows:
            cell = results[case.id].replace("|", "\\|")
            lines.append(f"| {case.name} | {cell} |")
        lines += [""]
    PAGE.write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
