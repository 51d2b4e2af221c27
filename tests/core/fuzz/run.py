"""Fuzz one target for some minutes: `python -m tests.core.fuzz.run media 10`; findings go to `seeds.json`.

The work is done in a process of its own, so that what crashes native code is a finding too; an input is the number it
is made from.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Final

from .targets import ROOT, TARGETS, quiet

SEEDS: Final = Path(__file__).with_name("seeds.json")
_STUCK_S: Final = 120.0
_MEMORY_BYTES: Final = 6 << 30


def kept() -> dict[str, list[int]]:
    """Return the numbers of former findings by target."""
    seeds: dict[str, list[int]] = json.loads(SEEDS.read_text(encoding="utf-8"))
    return seeds


def work(target: str, first: int) -> None:
    """Try one number after the other, telling each before it is tried; ends at the first finding."""
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    with tempfile.TemporaryDirectory() as folder, quiet():
        os.environ["LIPSYNC_CACHE"] = folder
        for number in range(first, sys.maxsize):
            sys.stdout.write(f"{number}\n")
            sys.stdout.flush()
            TARGETS[target](random.Random(number), Path(folder))


def watch(target: str, minutes: float, first: int) -> list[int]:
    """Run workers one after the other until the time is over; returns the numbers that were findings."""
    end, number, tried, findings = time.monotonic() + 60 * minutes, first, 0, []
    while time.monotonic() < end:
        with tempfile.TemporaryFile("w+") as said, tempfile.TemporaryFile("w+") as errors:
            worker = subprocess.Popen(
                [sys.executable, "-m", __spec__.name, "--work", target, str(number)],
                cwd=ROOT,
                stdout=said,
                stderr=errors,
            )
            seen, since = number, time.monotonic()
            while worker.poll() is None and time.monotonic() < end:
                time.sleep(1)
                latest = _last(said)
                if latest != seen:
                    seen, since = latest, time.monotonic()
                elif time.monotonic() - since > _STUCK_S:
                    break
            in_time = worker.poll() is None and time.monotonic() >= end
            worker.kill()
            worker.wait()
            latest = _last(said)
            tried += latest - number + 1
            if not in_time:
                errors.seek(0)
                tail = errors.read()[-1500:]
                sys.stdout.write(f"FINDING {target} {latest}: exit {worker.returncode}\n{tail}\n")
                findings.append(latest)
            number = latest + 1
    sys.stdout.write(f"{target}: {tried} inputs, {len(findings)} findings {findings}\n")
    return findings


def _last(said: object) -> int:
    size = os.fstat(said.fileno()).st_size  # type: ignore[attr-defined]
    tail = os.pread(said.fileno(), 64, max(0, size - 64)).decode().rpartition("\n")[0]  # type: ignore[attr-defined]
    return int(tail.rpartition("\n")[2] or -1)


def main() -> None:
    """`TARGET MINUTES [FIRST]`."""
    if sys.argv[1] == "--work":
        try:
            work(sys.argv[2], int(sys.argv[3]))
        except Exception:
            traceback.print_exc()
            sys.exit(1)
    target, minutes = sys.argv[1], float(sys.argv[2])
    findings = watch(target, minutes, int(sys.argv[3]) if len(sys.argv) > 3 else 0)
    if findings:
        seeds = kept()
        seeds[target] = sorted({*seeds.get(target, []), *findings})
        SEEDS.write_text(json.dumps(seeds, indent=1) + "\n", encoding="utf-8")
    sys.exit(bool(findings))


if __name__ == "__main__":
    main()
