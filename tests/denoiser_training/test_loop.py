from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn


def plan(steps: int, **changes: Any) -> Any:
    from mini_training.loop import Plan

    return Plan(**{"steps": steps, "rate": 1e-2, "decay": 4, "report": 2, "check": 4, "muon": True, **changes})


def train(folder: Path, steps: int, stop: int | None = None, **changes: Any) -> Any:
    """Train a toy net in `folder`; `stop` kills it at that step, after its checkpoint."""
    from mini_training.loop import Loop

    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2))
    loop = Loop(net, folder, plan(steps, **changes))

    def loss(replica: nn.Module, step: int, worker: int) -> dict[str, float]:
        if stop == step and worker == 0:
            raise KeyboardInterrupt
        random = torch.Generator().manual_seed(100 * step + worker)
        error = (replica(torch.randn(4, 3, generator=random)) - 1).square().mean()
        error.backward()
        return {"error": error.item()}

    loop.run(loss, lambda average: {"check": sum(p.sum().item() for p in average.parameters())})
    return loop


def state(folder: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = torch.load(folder / "checkpoint.pt", weights_only=True)
    return loaded


def logged(folder: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "cpu_s"} for line in lines]


def test_resuming_gives_what_not_stopping_gives(tmp_path: Path) -> None:
    train(tmp_path / "whole", 8)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "halves", 8, stop=5, save_s=-1.0)
    with (tmp_path / "halves" / "log.jsonl").open("a") as log:
        log.write(json.dumps({"step": 99}) + "\n")  # written after the checkpoint
    train(tmp_path / "halves", 8)
    whole, halves = state(tmp_path / "whole"), state(tmp_path / "halves")
    for part in ("net", "average"):
        assert all(torch.equal(whole[part][name], halves[part][name]) for name in whole[part])
    lines = [logged(tmp_path / run) for run in ("whole", "halves")]
    assert lines[0][-1] == lines[1][-1]
    assert [line["step"] for line in lines[1]] == sorted(line["step"] for line in lines[1])
    assert lines[0][-1]["step"] == 8


def test_two_workers_give_the_mean_of_their_gradients() -> None:
    from mini_training.workers import Workers

    net = nn.Linear(2, 1, bias=False)
    inputs = torch.tensor([[1.0, 2.0], [5.0, -4.0]])

    def loss(replica: nn.Module, worker: int) -> dict[str, float]:
        out = replica(inputs[worker]).sum()
        out.backward()
        return {"out": out.item()}

    numbers = Workers(net, 2).gradients(loss)
    assert net.weight.grad is not None
    assert torch.equal(net.weight.grad[0], inputs.mean(0))
    assert numbers["out"] == pytest.approx(net(inputs).mean().item())


def test_replicas_see_what_the_optimiser_does(tmp_path: Path) -> None:
    loop = train(tmp_path, 3)
    for replica in loop.workers.replicas[1:]:
        assert all(torch.equal(a, b) for a, b in zip(replica.parameters(), loop.net.parameters(), strict=True))


def test_training_waits_while_the_pause_file_exists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pause, waited = tmp_path / "pause", []
    pause.touch()

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == 3:
            pause.unlink()

    monkeypatch.setattr(time, "sleep", sleep)
    assert train(tmp_path / "run", 2, pause_file=pause).step == 2
    assert len(waited) == 3


def test_the_rate_rises_stays_and_falls() -> None:
    from mini_training.loop import rate_factor

    factors = [rate_factor(step, 1000, 300) for step in (0, 500, 700, 850, 999)]
    assert factors == pytest.approx([1 / 30, 1, 1, 0.5, 1 / 300])


def test_muon_brings_singular_values_near_one() -> None:
    from mini_training.muon import orthogonal

    for shape in ((6, 40), (40, 6)):
        matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        values = torch.linalg.svdvals(orthogonal(matrix).float())
        assert 0.6 < values.min() <= values.max() < 1.3


def test_the_first_and_last_layer_are_left_to_adamw() -> None:
    from mini_training.muon import optimisers

    net = nn.ModuleDict({"conv_in": nn.Conv2d(3, 4, 3), "middle": nn.Conv2d(4, 4, 3), "conv_out": nn.Conv2d(4, 3, 3)})
    adam, muon = optimisers(net, 1e-3, 0.0, muon=True)
    assert [p.shape for p in muon.param_groups[0]["params"]] == [net["middle"].weight.shape]
    assert len(adam.param_groups[0]["params"]) == 5


def test_the_mean_of_two_runs_lies_between_them(tmp_path: Path) -> None:
    from mini_training.loop import CHECKPOINT, averaged, mix

    for run, value in (("a", 1.0), ("b", 3.0)):
        (tmp_path / run).mkdir()
        torch.save({"average": {"weight": torch.full((2,), value)}}, tmp_path / run / CHECKPOINT)
    mix([(tmp_path / "a", 0.25), (tmp_path / "b", 0.75)], tmp_path / "mixed")
    assert averaged(tmp_path / "mixed")["weight"].tolist() == [2.5, 2.5]
