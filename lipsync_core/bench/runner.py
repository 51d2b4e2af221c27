"""The bench itself: contenders take turns, each run in a process of its own."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from lipsync_core.bench import page, quality, strips, table
from lipsync_core.bench.contenders import Contender
from lipsync_core.bench.results import Entrant, Results, Sample, Work, read_sample, stamped
from lipsync_core.bench.worker import Task
from lipsync_core.cache import content_hash
from lipsync_core.errors import BackendError, LipsyncError, OutputError
from lipsync_core.media.reader import VideoReader
from lipsync_core.registry import Registry
from lipsync_core.threads import THREADS

OUTPUTS: Final = "outputs"
SYNTHETIC_FRAMES: Final = 75
_SYNTHETIC_OFFSET: Final = 100  # frames between what the drawn face says and the sound it is given
_SYNTHETIC_RATE: Final = 16000

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure.

    stage: alone; None for whole jobs. truth: a video of someone really saying `audio`, or None. reference: the
    contender that others' outputs are compared with. cores: that each run may use, None for all.
    """

    contenders: list[Contender]
    left_out: dict[str, str]
    stage: str | None
    video: Path
    audio: Path
    truth: Path | None
    repeats: int
    reference: str
    synthetic: bool = False
    cores: int | None = None


def run(plan: Plan, folder: Path, registry: Registry, say: Say) -> Results:
    """Measure everything, write `results.json`, reports and outputs to `folder`, and return it.

    A contender that fails, or whose process ends early, is left out with its reason; raises `BackendError` where none
    is left.
    """
    outputs = folder / OUTPUTS
    try:
        outputs.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{str(folder)!r} cannot be written: {error.strerror}.", "Choose another --out.") from error
    left_out = dict(plan.left_out)

    def leave_out(contender: Contender, error: LipsyncError) -> None:
        say(f"{contender.name}: left out. {error}")
        left_out[contender.name] = str(error)

    entrants: list[Entrant] = []
    contenders: list[Contender] = []
    facts: dict[str, Any] = {}
    for contender in plan.contenders:
        say(f"{contender.name}: trying, for its output")
        if plan.stage and entrants:  # the same inputs for all where they fit
            contender = dataclasses.replace(contender, profiles=(entrants[0].profile, *contender.profiles))
        try:
            answer = _process(plan, contender, probe=outputs)
        except LipsyncError as error:
            leave_out(contender, error)
            continue
        facts = answer.pop("facts")
        entrants.append(Entrant(name=contender.name, **answer))
        contenders.append(dataclasses.replace(contender, profiles=(answer["profile"],)))
    samples: list[Sample] = []
    for number in range(plan.repeats):
        for contender in contenders:
            if contender.name in left_out:
                continue
            try:
                sample = _measure(plan, contender, number)
            except LipsyncError as error:
                leave_out(contender, error)
                continue
            samples.append(sample)
            warm = sample.warm
            say(
                f"round {number + 1} of {plan.repeats}, {contender.name}: {warm.seconds:.2f} s, "
                f"{warm.cpu_s:.2f} CPU s warm"
            )
    entrants = [entrant for entrant in entrants if entrant.name not in left_out]
    samples = [sample for sample in samples if sample.contender not in left_out]
    if not entrants:
        why = " ".join(f"{name}: {reason}" for name, reason in left_out.items())
        raise BackendError(f"No contender can be measured. {why}", "Install what is missing, or name other ones.")
    say("measuring quality")
    figures, notes = _quality(plan, entrants, outputs, registry)
    results = Results(
        work=_work(plan, facts),
        options={"repeats": plan.repeats, "reference": plan.reference, "cores": plan.cores},
        entrants=entrants,
        left_out=left_out,
        samples=samples,
        quality=figures,
        notes=notes,
    )
    results = stamped(results)
    results.save(folder)
    (folder / "report.md").write_text(table.markdown(results), encoding="utf-8")
    (folder / "report.html").write_text(page.html(results, _strips(plan, results, outputs, registry)), encoding="utf-8")
    return results


def _measure(plan: Plan, contender: Contender, number: int) -> Sample:
    return read_sample(_process(plan, contender) | {"contender": contender.name, "round": number})


def _process(plan: Plan, contender: Contender, probe: Path | None = None) -> dict[str, Any]:
    """Run one worker and return its answer; what it made as a probe goes to the folder `probe`."""
    with tempfile.TemporaryDirectory(prefix="lipsync-bench-") as temporary:
        given, answer = Path(temporary) / "task.json", Path(temporary) / "answer.json"
        task = Task(
            profiles=contender.profiles,
            overrides=contender.overrides,
            stage=plan.stage,
            video=str(plan.video),
            audio=str(plan.audio),
            folder=temporary,
            probe=probe is not None,
            cores=plan.cores,
            spawned=time.monotonic(),
        )
        given.write_text(json.dumps(dataclasses.asdict(task)), encoding="utf-8")
        command = [sys.executable, "-m", "lipsync_core.bench.worker", str(given), str(answer)]
        environment = {**THREADS, **os.environ}  # as the command line sets it
        done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment)
        if done.returncode or not answer.is_file():
            raise BackendError(
                f"The process that measures {contender.name} ended early: {_end(done.returncode, done.stderr)}.",
                "Try it with `lipsync run`, or `lipsync backends check`.",
            )
        table: dict[str, Any] = json.loads(answer.read_text(encoding="utf-8"))
        if "error" in table:
            raise BackendError(*table["error"])
        if probe is not None:
            made = Path(table["output"])
            kept = probe / f"{file_name(contender.name)}{made.suffix}"
            shutil.move(made, kept)
            table["output"] = kept.name
        return table


def _end(status: int, said: str) -> str:
    """Say how a process ended, from its exit status and what it wrote to stderr."""
    if status < 0:
        name = signal.Signals(-status).name
        return f"{name}, as where memory runs out" if name == "SIGKILL" else name
    return (said.strip().splitlines() or [f"exit status {status}"])[-1]


def file_name(contender: str) -> str:
    """Return a contender's name without what a file's name cannot hold."""
    return "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in contender)


def _quality(
    plan: Plan, entrants: list[Entrant], outputs: Path, registry: Registry
) -> tuple[dict[str, quality.Figures], list[str]]:
    files = {entrant.name: outputs / entrant.output for entrant in entrants}
    if plan.stage:
        other = [f"{one.name}'s from {one.profile}" for one in entrants if one.profile != entrants[0].profile]
        apart = f"inputs are not the same: they come from the profile {entrants[0].profile}, but {', '.join(other)}"
        return quality.of_stage(files, plan.reference), [apart] if other else []
    return quality.of_jobs(files, plan.reference, plan.video, plan.truth, registry)


def _strips(plan: Plan, results: Results, outputs: Path, registry: Registry) -> strips.Strips:
    files = {entrant.name: outputs / entrant.output for entrant in results.entrants}
    if plan.stage:
        return strips.of_stage(files)
    return strips.of_jobs(files, plan.video, plan.truth, lambda path: quality.look_at(path, registry)[0])


def _work(plan: Plan, facts: dict[str, Any]) -> Work:
    return Work(
        stage=plan.stage,
        video=plan.video.name,
        audio=plan.audio.name,
        truth=plan.truth.name if plan.truth else None,
        synthetic=plan.synthetic,
        paired=content_hash(plan.video) == content_hash(plan.audio),
        **facts,
    )


def true_mouth(audio: Path) -> Path | None:
    """Return the sound's own file where it is a video: it shows the mouth that said it."""
    try:
        return None if VideoReader(audio).is_still else audio  # a still is the cover of a song
    except LipsyncError:
        return None


def synthetic(folder: Path, frames: int) -> tuple[Path, Path, Path]:
    """Write a video of a drawn face, a sound it does not say there, and a video of it saying that sound."""
    from lipsync_core.testing import files, samples  # noqa: PLC0415 - made only where asked for

    first, stop = _SYNTHETIC_OFFSET, _SYNTHETIC_OFFSET + frames
    video = files.write_video(folder / "drawn_face.mp4", 0, frames)
    truth = files.write_video(folder / "drawn_truth.mp4", first, stop)
    seconds = first / float(samples.FPS), stop / float(samples.FPS)
    return video, files.write_speech(folder / "drawn_speech.wav", *seconds, _SYNTHETIC_RATE), truth
