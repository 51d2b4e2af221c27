"""Gradients from several threads, each with its own replica of the networks and its own part of the batch.

Every operator runs on one thread (see train_mini.py), so two cores need two parts. The sum is taken in the workers'
order: the result is the same each time.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from torch import nn

Numbers = dict[str, float]


class Workers:
    """Replicas that share the weights of `net` and have gradients of their own."""

    def __init__(self, net: nn.Module, count: int) -> None:
        self.net = net
        self.replicas = [net] + [copy.deepcopy(net) for _ in range(count - 1)]
        for replica in self.replicas[1:]:
            for mine, shared in zip(replica.parameters(), net.parameters(), strict=True):
                mine.data = shared.data
        self._pool = ThreadPoolExecutor(count)

    def gradients(self, loss: Callable[[nn.Module, int], Numbers]) -> Numbers:
        """Run `loss(replica, worker)`, which calls `backward`, in each thread; average gradients and numbers."""
        count = len(self.replicas)
        numbers = list(self._pool.map(loss, self.replicas, range(count)))
        for parameters in zip(*(replica.parameters() for replica in self.replicas), strict=True):
            first = parameters[0]
            for other in parameters[1:]:
                if first.grad is not None and other.grad is not None:
                    first.grad += other.grad
                other.grad = None
            if first.grad is not None:
                first.grad /= count
        return average(numbers)


def average(numbers: Sequence[Numbers]) -> Numbers:
    """Return the mean of each number."""
    return {name: sum(n[name] for n in numbers) / len(numbers) for name in numbers[0]}
