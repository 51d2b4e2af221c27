from __future__ import annotations

import pytest
import torch


def test_the_critic_and_the_maker_each_learn_from_their_own_loss() -> None:
    from mini_training.critic import Critic, critic_error, persuasion

    torch.manual_seed(0)
    critic, real, made = Critic(8), torch.randn(2, 3, 32, 32), torch.randn(2, 3, 32, 32, requires_grad=True)
    persuasion(critic, made).backward()  # type: ignore[no-untyped-call] # torch's stub
    assert made.grad is not None
    assert made.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in critic.parameters())
    made.grad = None
    critic_error(critic, real, made).backward()  # type: ignore[no-untyped-call]
    assert made.grad is None
    assert all(parameter.grad is not None for parameter in critic.parameters())


def test_the_critic_learns_to_tell_grain_from_none() -> None:
    from mini_training.critic import Critic, critic_error, persuasion

    torch.manual_seed(0)
    critic = Critic(8)
    optimiser = torch.optim.AdamW(critic.parameters(), 2e-3)
    smooth = torch.rand(4, 3, 1, 1).expand(4, 3, 32, 32)
    for _ in range(100):
        optimiser.zero_grad()
        critic_error(critic, smooth + 0.1 * torch.randn(4, 3, 32, 32), smooth).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    assert persuasion(critic, smooth + 0.1 * torch.randn(4, 3, 32, 32)) < persuasion(critic, smooth) - 0.5


def test_the_error_of_detail_asks_for_strength_and_not_for_the_same_grain() -> None:
    from mini_training.critic import detail_error

    random = torch.Generator().manual_seed(0)
    grain, other = (0.1 * torch.randn(2, 3, 64, 64, generator=random) for _ in range(2))
    assert detail_error(grain, grain) == 0
    assert detail_error(other, grain) < 0.4
    assert detail_error(grain / 2, grain).item() == pytest.approx(2 * torch.log(torch.tensor(2.0)).item(), abs=0.05)


def test_restored_pictures_have_more_of_the_finest_detail_only() -> None:
    from mini_training.critic import RESTORED, restored

    flat = torch.full((1, 3, 16, 16), 0.3)
    assert torch.allclose(restored(flat), flat)
    wave = 0.1 * torch.tensor([1.0, -1.0]).repeat(8).expand(1, 3, 16, 16)
    assert torch.allclose(restored(wave)[..., 1:-1], (1 + 4 * RESTORED) * wave[..., 1:-1])
