"""The optimiser: matrices by Muon, everything else by AdamW.

Muon (K. Jordan, 2024, kellerjordan.github.io/posts/muon): momentum whose singular values are all brought near 1 by five
steps of a Newton–Schulz iteration. Scaled to the size of AdamW's steps, 0.2 root mean square, as Liu et al. ("Muon is
scalable for LLM training", 2025) do, so that one learning rate serves both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

import torch
from torch import Tensor, nn

_MOMENTUM: Final = 0.95
_COEFFICIENTS: Final = (3.4445, -4.7750, 2.0315)  # of the iteration: steepest at 0
_ITERATIONS: Final = 5
_STEP_SIZE: Final = 0.2
ENDS: Final = ("conv_in", "conv_out", "to_latents", "to_patches")  # left to AdamW
_BETAS: Final = (0.9, 0.98)


class Muon(torch.optim.Optimizer):
    """Muon for weights of two or more dimensions; a convolution's counts as the matrix [outputs, the rest]."""

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float, weight_decay: float) -> None:
        super().__init__(parameters, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override] # no closure is used
        """Take one step."""
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if not state:
                    state["momentum"] = torch.zeros_like(weight)
                momentum: Tensor = state["momentum"]
                momentum.lerp_(weight.grad, 1 - _MOMENTUM)
                ahead = weight.grad.lerp(momentum, _MOMENTUM)
                matrix = ahead.reshape(len(ahead), -1)
                update = orthogonal(matrix).view_as(ahead) * (_STEP_SIZE * max(matrix.shape) ** 0.5)
                weight.mul_(1 - group["lr"] * group["weight_decay"]).sub_(update, alpha=group["lr"])


def orthogonal(matrix: Tensor) -> Tensor:
    """Return about U Vᵀ of a matrix U S Vᵀ, in its own type; computed in bfloat16."""
    a, b, c = _COEFFICIENTS
    x = matrix.bfloat16()
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    x = x / (x.norm() + 1e-7)
    for _ in range(_ITERATIONS):
        square = x @ x.T
        x = a * x + (b * square + c * (square @ square)) @ x
    result: Tensor = (x.T if tall else x).to(matrix.dtype)
    return result


def optimisers(net: nn.Module, rate: float, weight_decay: float, *, muon: bool) -> list[Any]:
    """Return the optimisers of a network: AdamW alone, or Muon for its matrices but the first and last layers."""
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in net.named_parameters():
        ends = name.split(".")[-2] in ENDS
        (matrices if muon and parameter.ndim >= 2 and not ends else others).append(parameter)
    result: list[Any] = [torch.optim.AdamW(others, rate, betas=_BETAS, weight_decay=weight_decay, fused=True)]
    if matrices:
        result.append(Muon(matrices, rate, weight_decay))
    return result
