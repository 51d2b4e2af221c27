"""The whole way at toy size: prepared clips, autoencoder, U-Net, model folder."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch


@pytest.mark.usefixtures("toy")
def test_from_clips_to_a_model_folder(prepared: Path, tmp_path: Path) -> None:
    from mini_training import export, footage, generate
    from mini_training.autoencoder import train_autoencoder
    from mini_training.loop import Plan
    from mini_training.recipe import make_autoencoder, unet_part
    from mini_training.unet import train_unet
    from safetensors.torch import load_file

    from lipsync_denoiser.latentsync.checkpoint_torch import load_unet

    runs = tmp_path / "autoencoder", tmp_path / "unet"
    plan = Plan(steps=2, rate=1e-3, decay=1, report=1, check=2, muon=True)
    clips, unseen = footage.load(prepared, held_out=False), footage.load(prepared, held_out=True)
    train_autoencoder(clips, unseen, runs[0], plan, seed=0)
    train_unet(clips, unseen, runs, plan, seed=0, batch=(2, 2))
    lines = [json.loads(line) for line in (runs[1] / "log.jsonl").read_text().splitlines()]
    assert all(np.isfinite(list(line.values())).all() for line in lines)
    assert {"unseen_velocity_999", "unseen_mouth_psnr"} <= lines[-1].keys()

    size = export.export(*runs, tmp_path / "mini")
    config = json.loads((tmp_path / "mini" / "model.json").read_text())
    assert size < 20e6
    codec = make_autoencoder()
    codec.load_state_dict(load_file(tmp_path / "mini" / config["autoencoder"]["weights"]))
    file = tmp_path / "mini" / config["unet"]["weights"]
    loaded = load_unet(unet_part(), file, torch.float32, torch.device("cpu"), strict=True)

    generator = generate.Generator(*runs)
    for name, tensor in loaded.state_dict().items():
        assert torch.allclose(tensor, generator.unet.state_dict()[name], atol=1e-3, rtol=1e-3)
    crops = np.random.default_rng(0).integers(0, 256, (3, 128, 128, 3), np.uint8)
    out = generator.generate(crops, np.zeros((3, 5, 40), np.float32))
    kept = generator.keep[0, 0].numpy() == 1
    assert (out[:, kept] == crops[:, kept]).all()
    assert (out != crops).any()


@pytest.mark.usefixtures("toy")
def test_the_decoder_learns_and_the_latents_stay(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mini_training import decoder, footage
    from mini_training.autoencoder import train_autoencoder
    from mini_training.loop import Plan, averaged
    from mini_training.recipe import make_autoencoder

    monkeypatch.setattr(decoder, "ITEMS", 2)
    monkeypatch.setattr(decoder, "_CHECKED", 2)
    clips, unseen = footage.load(prepared, held_out=False), footage.load(prepared, held_out=True)
    plan = Plan(steps=2, rate=1e-3, decay=1, report=1, check=2)
    first, last = tmp_path / "autoencoder", tmp_path / "decoder"
    train_autoencoder(clips, unseen, first, plan, seed=0)
    decoder.train_decoder(clips, unseen, (first, last), plan, seed=0)
    before, after = averaged(first), averaged(last)
    assert before.keys() == after.keys()
    changed = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"decoder", "to_patches"}
    make_autoencoder().load_state_dict(after)


def test_a_pointwise_convolution_is_that_convolution() -> None:
    from mini_training.unet import Pointwise

    layer, x = torch.nn.Conv2d(6, 4, 1), torch.randn(2, 6, 5, 5)
    wanted = layer(x)
    layer.__class__ = Pointwise
    assert torch.allclose(layer(x), wanted, atol=1e-6)


def test_the_autoencoder_starts_as_the_best_linear_code() -> None:
    from mini_training.patch_autoencoder import PatchAutoencoder, start

    random = torch.Generator().manual_seed(0)
    net = PatchAutoencoder(4, 8, 8, 1, 1)
    # Patches that have only six dimensions are given back whole by eight latents, which have variance 1.
    patterns, strength = torch.randn(6, 48, generator=random), torch.randn(200, 6, 4, 4, generator=random)
    patches = torch.einsum("pc,npyx->ncyx", patterns, strength * torch.arange(1.0, 7)[:, None, None]) + 0.3
    pictures = torch.nn.functional.pixel_shuffle(patches, 4)
    start(net, pictures)
    with torch.no_grad():
        latents = net.encode(pictures)
        assert torch.allclose(net.decode(latents), pictures, atol=2e-2)
    assert latents.var((0, 2, 3)).numpy() == pytest.approx(np.ones(8), abs=0.05)
    assert latents.mean((0, 2, 3)).abs().max() < 1e-3


def test_what_is_noised_can_be_undone() -> None:
    from mini_training.recipe import make_autoencoder
    from mini_training.unet import Encoded, Task

    task = Task(make_autoencoder())
    target = torch.randn(2, 16, 3, 16, 16)
    encoded = Encoded(target, target, target, target)
    noise = torch.randn_like(target)
    noisy, velocity, a, s = task.noised(encoded, torch.tensor([999, 400]), noise)
    assert torch.allclose(noisy[0], noise[0], atol=1e-4)  # the last timestep is noise alone
    assert torch.allclose(a * noisy - s * velocity, target, atol=1e-4)


def test_the_timesteps_of_inference_are_drawn_most() -> None:
    from mini_training.recipe import TIMESTEPS, scheduler
    from mini_training.unet import draw_times

    made = scheduler()
    made.set_timesteps(4)
    assert tuple(made.timesteps.tolist()) == TIMESTEPS
    times = draw_times(4000, torch.Generator().manual_seed(0))
    assert (times == 999).float().mean().item() == pytest.approx(0.4, abs=0.03)
    assert 0 <= times.min() <= times.max() < 1000
