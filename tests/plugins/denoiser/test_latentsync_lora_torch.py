"""Low-rank adapters: where they are, that they start as nothing, and what is left when they are merged."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch")

from lipsync_denoiser.latentsync.lora_torch import add_adapters, merge_adapters, weakened  # noqa: E402
from lipsync_denoiser.latentsync.unet_torch import UNet3D, build_unet  # noqa: E402

from .tiny_latentsync import unet_part  # noqa: E402

RANK = 2


@pytest.fixture
def unet() -> UNet3D:
    torch.set_num_threads(1)
    return build_unet(unet_part(), torch.float32, "cpu", 0).requires_grad_(False)


def output(unet: UNet3D) -> torch.Tensor:
    random = torch.Generator().manual_seed(1)
    sample, audio = torch.randn(1, 13, 2, 8, 8, generator=random), torch.randn(2, 5, 64, generator=random)
    with torch.no_grad():
        return unet(sample, torch.tensor([500]), audio)


def weights(unet: UNet3D) -> dict[str, torch.Tensor]:
    layers = (torch.nn.Linear, torch.nn.Conv2d)
    return {name: layer.weight.detach().clone() for name, layer in unet.named_modules() if isinstance(layer, layers)}


def test_adapters_change_nothing_before_they_are_fitted(unet: UNet3D) -> None:
    before = output(unet)
    parameters = add_adapters(unet, RANK, 0)
    assert torch.equal(output(unet), before)
    learnt = {id(p) for p in unet.parameters() if p.requires_grad}
    assert learnt == {id(p) for p in parameters}


def test_merged_they_compute_the_same_and_have_low_rank(unet: UNet3D) -> None:
    before = {name: tensor.clone() for name, tensor in unet.state_dict().items()}
    parameters = add_adapters(unet, RANK, 0)
    with torch.no_grad():
        for parameter in parameters[1::2]:
            parameter.normal_(std=0.1, generator=torch.Generator().manual_seed(2))
    adapted = output(unet)
    merge_adapters(unet)
    assert torch.equal(output(unet), adapted)
    after = unet.state_dict()
    assert after.keys() == before.keys()
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    for name in changed:
        assert torch.linalg.matrix_rank((after[name] - before[name]).flatten(1).double(), rtol=1e-4) <= RANK
    some = ("attn1.to_q", "attn2.to_k", "ff.net.2", "proj_in", "resnets.0.conv1", "conv_in", "downsamplers.0.conv")
    for layer in some:
        assert any(f"{layer}.weight" in name and "motion" not in name for name in changed), layer
    assert not [name for name in changed if "motion" in name or "time_emb" in name or name.endswith("bias")]


def test_weakened_they_change_each_weight_by_that_share(unet: UNet3D) -> None:
    before = weights(unet)
    parameters = add_adapters(unet, RANK, 0)
    random = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in parameters:
            parameter.normal_(std=0.1, generator=random)
        whole = weights(unet)
        for parameter, tensor in zip(parameters, weakened(list(parameters), 0.25), strict=True):
            parameter.copy_(tensor)
    quarter = weights(unet)
    changed = [name for name in whole if not torch.equal(whole[name], before[name])]
    assert len(changed) == len(parameters) // 2
    for name in changed:
        wanted = before[name] + 0.25 * (whole[name] - before[name])
        torch.testing.assert_close(quarter[name], wanted, rtol=1e-4, atol=1e-6)


def test_a_seed_gives_the_same_adapters(unet: UNet3D) -> None:
    other = build_unet(unet_part(), torch.float32, "cpu", 0).requires_grad_(False)
    for one, two in zip(add_adapters(unet, RANK, 3), add_adapters(other, RANK, 3), strict=True):
        assert torch.equal(one, two)
