"""Run the project's benchmarks and write `benchmarks/RESULTS.md`: `python -m benchmarks.report [--full]`.

The small set takes under five minutes on two idle cores: every backend by itself (pytest-benchmark), `draft`, `tiny`
and `tiny-onnx` head to head (`lipsync bench`), every other profile's whole jobs, and how cost grows
(`benchmarks.scaling`). `--full` is what takes long, and writes `benchmarks/RESULTS-full.md`: ten minutes of video,
2160 px, the roofline, and LatentSync's networks at full size with random weights.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks import scaling
from benchmarks.pairs import DATA
from benchmarks.work import AUDIO, VIDEO
from lipsync_core.backends import StageKind
from lipsync_core.bench import results, table
from lipsync_core.threads import THREADS

HERE: Final = Path(__file__).resolve().parent
OUT: Final = HERE / "RESULTS.md"
FULL_OUT: Final = HERE / "RESULTS-full.md"
PROFILES: Final = ("draft", "tiny", "tiny-onnx")
FULL_SIZE: Final = (
    "unet-float32",
    "unet-bfloat16",
    "encode-float32",
    "decode-float32-sliced",
    "gemm-float32",
    "gemm-bfloat16",
)
"""The networks as a job runs them, beside what the machine can do; all of them take four times as long."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what was asked for; returns 0, or 1 where a benchmark failed."""
    parser = argparse.ArgumentParser(description="Run the benchmarks and write RESULTS.md.")
    parser.add_argument("--full", action="store_true", help="what takes long, instead of the small set")
    parser.add_argument("--repeats", type=int, default=3, help="rounds of lipsync bench")
    options = parser.parse_args(arguments)
    began = time.monotonic()
    parts, times = [], []
    mark = began
    for part in _full() if options.full else _small(options.repeats):
        sys.stderr.write(f"{part}\n\n")  # a long run that breaks off has shown what it had
        parts.append(part)
        times.append(f"{part.splitlines()[0].lstrip('# ')} {time.monotonic() - mark:.0f} s")
        mark = time.monotonic()
    command, out = ("make bench-full", FULL_OUT) if options.full else ("make bench", OUT)
    took = f"This part of `{command}` took {time.monotonic() - began:.0f} s: {'; '.join(times)}."
    out.write_text("\n\n".join([_heading(command), took, *parts]) + "\n", encoding="utf-8")
    sys.stdout.write(f"{out}\n")
    return 0


def _small(repeats: int) -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="lipsync-bench-") as temporary:
        folder = Path(temporary)
        yield _stages(folder)
        yield _head_to_head(folder, repeats)
    if (DATA / VIDEO).is_file():
        yield _scaling(full=False)


def _full() -> Iterator[str]:
    yield _module("Full size", "benchmarks.bench_latentsync_torch", *FULL_SIZE)
    yield _module("Roofline", "benchmarks.roofline")
    if (DATA / VIDEO).is_file():
        yield _scaling(full=True)


def _heading(command: str) -> str:
    machine = results.machine()
    memory = f", {machine['memory_bytes'] / 2**30:.0f} GB" if "memory_bytes" in machine else ""
    return (
        f"# Benchmarks\n\nWritten by `{command}`; not to be edited. What each part measures: "
        "[README.md](README.md).\n\n"
        f"Machine: {machine['processor']}, {machine['cores']} cores{memory}, {machine['system']}, Python "
        f"{machine['python']}, load average {machine.get('load_average', '-')} at the end. Commit "
        f"{results.commit() or '-'}. "
        + ", ".join(f"{name} {value}" for name, value in results.versions().items())
        + "."
    )


def _stages(folder: Path) -> str:
    """Run the pytest benchmarks and return their tables, one a stage.

    Whole jobs of `PROFILES` are left to `_head_to_head`, which says more of them and takes as long again.
    """
    stored = folder / "benchmarks.json"
    command = [*pytest_command(*StageKind, "end_to_end"), "-p", "no:cacheprovider", f"--benchmark-json={stored}"]
    subprocess.run(command, check=True, env={**THREADS, **os.environ})  # as the command line sets it
    rows: dict[str, list[str]] = {}
    for entry in json.loads(stored.read_text(encoding="utf-8"))["benchmarks"]:
        rows.setdefault(entry["group"], []).append(_row(entry))
    parts = []
    for group, lines in rows.items():
        head = (
            "| | ms a frame | CPU ms a frame | quartiles of the time, ms | model | frames | runs |\n"
            "|---|---|---|---|---|---|---|"
        )
        parts.append(f"### {group}\n\n{head}\n" + "\n".join(lines))
    return "## Each backend, and whole jobs of the profiles that are not head to head, warm\n\n" + "\n\n".join(parts)


def pytest_command(*names: str) -> list[str]:
    """Return the command that runs benchmarks, by their files' names without `bench_`."""
    files = [str(HERE / f"bench_{name}.py") for name in names]
    once = " and ".join(f"not test_whole_job[{name}]" for name in PROFILES)
    return [sys.executable, "-m", "pytest", "-q", "-k", once, *files]


def _row(entry: dict[str, Any]) -> str:
    info, stats = entry["extra_info"], entry["stats"]
    per_frame = 1000 / info["frames"]
    cpu = f"{statistics.median(info['cpu_ms_a_frame']):.3g}" if "cpu_ms_a_frame" in info else "-"
    quartiles = f"{stats['q1'] * per_frame:.3g}–{stats['q3'] * per_frame:.3g}"
    name, median = info.get("backend") or info["profile"], stats["median"] * per_frame
    cells = [name, f"{median:.3g}", cpu, quartiles, info["model"] or "-", info["frames"], stats["rounds"]]
    return f"| {' | '.join(map(str, cells))} |"


def _head_to_head(folder: Path, repeats: int) -> str:
    """Compare the profiles that need no download, by the command as a user runs it."""
    real = (DATA / VIDEO).is_file()
    work = ["--video", str(DATA / VIDEO), "--audio", str(DATA / AUDIO)] if real else ["--synthetic"]
    command = [
        sys.executable,
        "-m",
        "lipsync_core",
        "bench",
        "--profiles",
        ",".join(PROFILES),
        "--repeats",
        str(repeats),
    ]
    subprocess.run([*command, *work, "--out", str(folder / "bench")], check=True, stdout=subprocess.DEVNULL)
    return "## Head to head\n\n" + table.markdown(results.load(folder / "bench")).strip()


def _scaling(*, full: bool) -> str:
    parts = [
        "\n".join([*_piped(axis.rows()), "", *axis.fitted()])
        for axis in scaling.measured(list(scaling.AXES), full=full)
    ]
    return "## How cost grows\n\n`draft` where no profile is named, nothing cached.\n\n" + "\n\n".join(parts)


def _piped(rows: list[list[str]]) -> Iterator[str]:
    head, *body = rows
    for row in (head, ["---"] * len(head), *body):
        yield "| " + " | ".join(row) + " |"


def _module(title: str, module: str, *arguments: str) -> str:
    done = subprocess.run([sys.executable, "-m", module, *arguments], check=True, stdout=subprocess.PIPE, text=True)
    return f"## {title}\n\n```\n{done.stdout.strip()}\n```"


if __name__ == "__main__":
    sys.exit(main())
