"""What a bench found, as `results.json` holds it: machine, versions, commit, options and every sample."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import math
import os
import platform
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from lipsync_core import __version__
from lipsync_core.backends import StageKind
from lipsync_core.bench.timed import MEDIA, SCENES
from lipsync_core.errors import InputError
from lipsync_core.registry import GROUP

FORMAT: Final = 1  # to be raised when the meaning of a stored field changes
FILE: Final = "results.json"
_PACKAGES: Final = ("numpy", "opencv-python-headless", "av", "torch", "diffusers", "onnxruntime", "onnxruntime-gpu")
_OWN: Final = (*StageKind, *MEDIA, SCENES)


@dataclass(frozen=True, slots=True)
class Run:
    """One pass over the work. Seconds on the clock, except `cpu_s`, which is all threads' together.

    first_s: until the first finished frame (of a stage: its first output). realtime_factor: length of what was made ÷
    `seconds`. accounts: exclusive {"wall", "cpu", "calls"} by account (`timed`), or of a stage alone its own.
    call_ms: of a stage alone, ms a frame of each of its calls. passes: seconds of each pass of a job.
    """

    seconds: float
    cpu_s: float
    first_s: float
    frames: int
    realtime_factor: float
    accounts: dict[str, dict[str, float]] = field(default_factory=dict)
    call_ms: list[float] = field(default_factory=list)
    passes: dict[str, float] = field(default_factory=dict)

    @property
    def overhead(self) -> float | None:
        """Share of the CPU time that is neither a stage's own work nor media's nor scene detection's; None if unknown.

        CPU time of threads that libraries keep is in no account, and is not the framework's: it keeps none.
        """
        if not self.accounts or self.cpu_s <= 0:
            return None
        return sum(spent["cpu"] for name, spent in self.accounts.items() if name not in _OWN) / self.cpu_s


@dataclass(frozen=True, slots=True)
class Sample:
    """One process: the work done twice in it, `cold` with everything it needs to begin with, `warm` once more.

    import_s: from the process's start until it can begin. load_s: making the backends. Neither is in a `Run`.
    peak_rss_bytes, peak_vram_bytes: of the process. base_rss_bytes: of a stage alone, what it held before the stage
    began. curve: (s, resident bytes) over time.
    """

    contender: str
    round: int
    import_s: float
    load_s: float
    cold: Run
    warm: Run
    peak_rss_bytes: int | None
    peak_vram_bytes: int | None
    base_rss_bytes: int | None = None
    curve: list[list[float]] = field(default_factory=list)

    @property
    def first_frame_s(self) -> float:
        """From the process's start to the first finished frame."""
        return self.import_s + self.load_s + self.cold.first_s

    @property
    def memory_bytes(self) -> int | None:
        """Peak resident memory; of a stage alone, what it took on top of its inputs."""
        if self.peak_rss_bytes is None or self.base_rss_bytes is None:
            return self.peak_rss_bytes
        return self.peak_rss_bytes - self.base_rss_bytes


@dataclass(frozen=True, slots=True)
class Entrant:
    """A contender as it ran: `settings` are all effective values; output: its file's name in the folder `outputs`."""

    name: str
    profile: str
    model: str | None
    settings: dict[str, Any]
    output: str
    changed_outside: int | None = None


@dataclass(frozen=True, slots=True)
class Work:
    """What all did. stage: None for a whole job. seconds: length of what was made; paired: the sound is the video's."""

    stage: str | None
    video: str
    audio: str
    truth: str | None
    width: int
    height: int
    fps: float
    frames: int
    synthetic: bool
    paired: bool

    @property
    def seconds(self) -> float:
        """Length of the result."""
        return self.frames / self.fps


@dataclass(frozen=True, slots=True)
class Results:
    """A whole bench. quality: contender → against what → figure; None where it could not be measured."""

    work: Work
    options: dict[str, Any]
    entrants: list[Entrant]
    left_out: dict[str, str]
    samples: list[Sample]
    quality: dict[str, dict[str, dict[str, float | None]]]
    notes: list[str] = field(default_factory=list)
    machine: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    commit: str | None = None
    made: str = ""
    format: int = FORMAT

    @property
    def reference(self) -> str:
        """The contender that others are compared with: the one named, or the first where that was left out."""
        names = [entrant.name for entrant in self.entrants]
        named = str(self.options["reference"])
        return named if named in names else names[0]

    def of(self, contender: str, figure: Callable[[Sample], float | None]) -> list[float]:
        """Return a figure of each of a contender's samples, in rounds' order, those without it left out."""
        values = [figure(sample) for sample in self.samples if sample.contender == contender]
        return [value for value in values if value is not None and math.isfinite(value)]

    def save(self, folder: Path) -> Path:
        """Write `results.json`; returns its path."""
        file = folder / FILE
        file.write_text(json.dumps(_plain(dataclasses.asdict(self)), indent=1), encoding="utf-8")
        return file


def load(path: Path) -> Results:
    """Read a `results.json`, or the one in a folder; raises `InputError` where there is none or of another format."""
    file = path / FILE if path.is_dir() else path
    try:
        table = json.loads(file.read_text(encoding="utf-8"))
        if table["format"] != FORMAT:
            raise InputError(f"{file} is of format {table['format']}, not {FORMAT}.", "Run that bench again.")
        table["work"] = Work(**table["work"])
        table["entrants"] = [Entrant(**entrant) for entrant in table["entrants"]]
        table["samples"] = [read_sample(sample) for sample in table["samples"]]
        return Results(**table)
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror}.", "Give the folder of a bench.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{file} holds no results of a bench.", "Give the folder of a bench.") from error


def read_sample(table: dict[str, Any]) -> Sample:
    """Return the sample a JSON table holds."""
    return Sample(**table | {"cold": Run(**table["cold"]), "warm": Run(**table["warm"])})


def stamped(results: Results) -> Results:
    """Return the results with this machine, the versions and the commit."""
    return dataclasses.replace(
        results,
        machine=machine(),
        versions=versions(),
        commit=commit(),
        made=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def machine() -> dict[str, Any]:
    """Return what this machine is: processor, cores, memory, system."""
    facts: dict[str, Any] = {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
    }
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        facts["memory_bytes"] = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if hasattr(os, "getloadavg"):
        facts["load_average"] = round(os.getloadavg()[0], 2)
    return facts


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        lines = info.read_text(encoding="utf-8").splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        if names:
            return names[0]
    return platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    """Return the versions of this package and of what does the work."""
    found = {"lipsync-core": __version__}
    for point in importlib.metadata.entry_points(group=GROUP):  # plugins of others
        if point.dist is not None:
            found.setdefault(point.dist.name, point.dist.version)
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def commit() -> str | None:
    """Return the commit this package runs from, "+" at its end where files differ; None outside a checkout."""
    here = Path(__file__).resolve().parent
    answers = []
    for command in (["rev-parse", "--short=12", "HEAD"], ["status", "--porcelain", "--untracked-files=no"]):
        try:
            done = subprocess.run(["git", "-C", str(here), *command], capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            return None
        answers.append(done.stdout.strip())
    return answers[0] + ("+" if answers[1] else "")


def _plain(value: Any) -> Any:
    """JSON knows neither NaN nor infinity."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if isinstance(value, str | int | float | bool | None) else str(value)
