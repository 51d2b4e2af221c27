"""The training loop: learning rate, averaged weights, checkpoints, log, pauses. Resuming gives what not stopping gives.

No random state is kept: whatever is drawn at a step depends on the seed, the step and the worker alone.
"""

from __future__ import annotations

import copy
import json
import logging
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from mini_training.muon import optimisers
from mini_training.workers import Numbers, Workers

log = logging.getLogger("train_mini")
CHECKPOINT: Final = "checkpoint.pt"
LOG: Final = "log.jsonl"
MAKER: Final = "maker."  # what is exported of a network trained beside a critic (`critic.Contest`)
_WARM_UP: Final = 30  # steps
_CLIP: Final = 1.0  # norm of the gradient
_POLL_S: Final = 2.0


@dataclass(frozen=True)
class Plan:
    """How to train. steps: where it ends; the rate falls to nothing over the last `decay` of them.

    average: decay of the averaged weights. report, check: steps between log lines and between measurements on the
    speakers held out. save_s: seconds between checkpoints. pause_file: training waits while it exists.
    """

    steps: int
    rate: float
    decay: int
    muon: bool = False
    weight_decay: float = 0.01
    average: float = 0.998
    workers: int = 2
    report: int = 20
    check: int = 500
    save_s: float = 240.0
    pause_file: Path | None = None


class Loop:
    """Trains one network in `folder`, from its checkpoint where there is one."""

    def __init__(self, net: nn.Module, folder: Path, plan: Plan) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.net, self.folder, self.plan = net, folder, plan
        self.average = copy.deepcopy(net).requires_grad_(False)
        self.workers = Workers(net, plan.workers)
        self.optimisers = optimisers(net, plan.rate, plan.weight_decay, muon=plan.muon)
        self.step = 0
        self.seconds = 0.0  # of processor time, all runs together
        if (folder / CHECKPOINT).exists():
            self._resume()

    def run(self, loss: Callable[[nn.Module, int, int], Numbers], check: Callable[[nn.Module], Numbers]) -> None:
        """Take steps to the plan's end, or until SIGTERM, and save.

        `loss(replica, step, worker)` calls backward; `check(average)` measures.
        """
        plan, saved, before = self.plan, time.monotonic(), time.process_time() - self.seconds
        totals: list[Numbers] = []
        stopped: list[int] = []
        signal.signal(signal.SIGTERM, lambda number, _: stopped.append(number))
        while self.step < plan.steps and not stopped:
            self._pause()
            step = self.step
            for group in [g for o in self.optimisers for g in o.param_groups]:
                group["lr"] = plan.rate * rate_factor(step, plan.steps, plan.decay)
            numbers = self.workers.gradients(lambda replica, worker, at=step: loss(replica, at, worker))  # type: ignore[misc]
            norm = nn.utils.clip_grad_norm_(self.net.parameters(), _CLIP)
            for optimiser in self.optimisers:
                optimiser.step()
                optimiser.zero_grad()
            self.step += 1
            self._update_average()
            totals.append({**numbers, "gradient": float(norm)})
            self.seconds = time.process_time() - before
            if self.step % plan.report == 0:
                means = {name: sum(t[name] for t in totals) / len(totals) for name in totals[0]}
                self._log({"step": self.step, "cpu_s": self.seconds, **means})
                totals.clear()
            if self.step % plan.check == 0 or self.step == plan.steps:
                self._log({"step": self.step, "cpu_s": self.seconds, **check(self.average)})
            if time.monotonic() - saved > plan.save_s or self.step == plan.steps or stopped:
                self.save()
                saved = time.monotonic()

    def save(self) -> None:
        """Write the checkpoint, whole or not at all."""
        state: dict[str, Any] = {
            "step": self.step,
            "seconds": self.seconds,
            "net": self.net.state_dict(),
            "average": self.average.state_dict(),
            "optimisers": [o.state_dict() for o in self.optimisers],
        }
        part = self.folder / f"{CHECKPOINT}.part"
        torch.save(state, part)
        part.replace(self.folder / CHECKPOINT)

    def _resume(self) -> None:
        state = torch.load(self.folder / CHECKPOINT, weights_only=True)
        self.step, self.seconds = state["step"], state["seconds"]
        with torch.no_grad():
            self.net.load_state_dict(state["net"])
            self.average.load_state_dict(state["average"])
        for optimiser, saved in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
        file = self.folder / LOG
        if file.exists():  # lines written after the checkpoint will be written again
            lines = [line for line in file.read_text().splitlines() if json.loads(line)["step"] <= self.step]
            file.write_text("".join(line + "\n" for line in lines))
        log.info("Resuming at step %d", self.step)

    def _update_average(self) -> None:
        # A young average follows fast, so that the random start does not linger in it.
        keep = min(self.plan.average, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            mine: list[Tensor] = list(self.average.parameters())
            torch._foreach_lerp_(mine, list(self.net.parameters()), 1 - keep)

    def _pause(self) -> None:
        file = self.plan.pause_file
        if file is not None and file.exists():
            log.info("Paused by %s", file)
            while file.exists():
                time.sleep(_POLL_S)

    def _log(self, line: dict[str, Any]) -> None:
        line = {name: value if isinstance(value, int) else round(value, 5) for name, value in line.items()}
        with (self.folder / LOG).open("a") as file:
            file.write(json.dumps(line) + "\n")
        log.info("%s", line)


def rate_factor(step: int, steps: int, decay: int) -> float:
    """Return the share of the learning rate: a rise, a plateau, and a linear fall over the last `decay` steps."""
    return min(1.0, (step + 1) / _WARM_UP, (steps - step) / max(decay, 1))


def averaged(folder: Path) -> dict[str, Tensor]:
    """Return the averaged weights of a run's latest checkpoint; of a contest with a critic, the maker's alone."""
    state: dict[str, Tensor] = torch.load(folder / CHECKPOINT, weights_only=True)["average"]
    made = {name.removeprefix(MAKER): tensor for name, tensor in state.items() if name.startswith(MAKER)}
    return made or state


def mix(parts: Sequence[tuple[Path, float]], folder: Path) -> None:
    """Write a checkpoint of the weighted mean of runs' averaged weights; parts: their folders and shares.

    Between a network and what further training made of it, the mean often does better than either on data unlike
    that of the training (Wortsman et al., 2022, Robust fine-tuning of zero-shot models).
    """
    states = [(averaged(run), share) for run, share in parts]
    mean = {name: sum(share * state[name].float() for state, share in states) for name in states[0][0]}
    folder.mkdir(parents=True, exist_ok=True)
    torch.save({"average": mean}, folder / CHECKPOINT)
