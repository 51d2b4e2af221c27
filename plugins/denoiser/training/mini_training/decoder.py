"""Second training of the autoencoder's decoder: texture. The encoder, and so the latents, stay as they are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import torch
import torch.nn.functional as F  # noqa: N812 - the name everyone knows it by
from torch import Tensor, nn

from mini_training.autoencoder import ITEMS, hash_of, plain_pictures
from mini_training.batches import Sampler
from mini_training.critic import Contest, Critic, critic_error, detail_error, laplacian, persuasion, restored
from mini_training.footage import Clip
from mini_training.loop import Loop, Plan, averaged
from mini_training.patch_autoencoder import PatchAutoencoder
from mini_training.recipe import channels_last, make_autoencoder
from mini_training.workers import Numbers

LATENT_NOISE: Final = 0.25  # deviation, at most: latents that the U-Net gives are not the encoder's
FINE: Final = 0.3  # weight of the error at full size, where grain cannot be foretold; at half size it is 1
DETAIL: Final = 0.15  # weight of the error of detail's strength
PERSUASION: Final = 0.02  # weight of the critic's opinion
_CHECKED: Final = 48


def train_decoder(
    clips: Sequence[Clip], unseen: Sequence[Clip], folders: tuple[Path, Path], plan: Plan, seed: int
) -> None:
    """Train to the plan's end. folders: of the autoencoder's run and of this one."""
    torch.manual_seed(seed)
    codec = make_autoencoder()
    codec.load_state_dict(averaged(folders[0]))
    for part in (codec.encoder, codec.to_latents):
        part.requires_grad_(False)
    sampler = Sampler(clips, seed)
    held = plain_pictures(unseen, _CHECKED)

    def loss(contest: nn.Module, step: int, worker: int) -> Numbers:
        assert isinstance(contest, Contest)
        random = torch.Generator().manual_seed(hash_of(seed, step, worker))
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
            pictures = sampler.pictures(step, worker, ITEMS).contiguous(memory_format=torch.channels_last)
            latents = contest.maker.encode(pictures).float()  # type: ignore[operator] # nn.Module's stub
        spread = LATENT_NOISE * torch.rand((ITEMS, 1, 1, 1), generator=random)
        latents = latents + spread * torch.randn(latents.shape, generator=random)
        with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
            out: Tensor = contest.maker.decode(latents).float()  # type: ignore[operator]
            real = restored(pictures)
            opinion = persuasion(contest.critic, out)
            critic = critic_error(contest.critic, real, out)
        error = F.avg_pool2d(out - real, 2).abs().mean() + FINE * (out - real).abs().mean()
        detail = detail_error(out, real)
        torch.autograd.backward(error + DETAIL * detail + PERSUASION * opinion + critic)
        return {"l1": error.item(), "detail": detail.item(), "opinion": opinion.item(), "critic": critic.item()}

    def check(contest: nn.Module) -> Numbers:
        assert isinstance(contest, Contest)
        assert isinstance(contest.maker, PatchAutoencoder)
        with torch.inference_mode():
            out = contest.maker.decode(contest.maker.encode(held)).clamp(-1, 1)
        error = ((out - held) / 2).square().mean((1, 2, 3))
        strength = laplacian(out).square().mean() / laplacian(held).square().mean()
        return {"unseen_psnr": float((-10 * error.log10()).mean()), "unseen_detail": float(strength)}

    contest = Contest(codec, Critic())
    channels_last(contest)
    Loop(contest, folders[1], plan).run(loss, check)
