"""The autoencoder against the reference's outputs and key list."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch")
pytest.importorskip("diffusers", reason="needs diffusers")

from safetensors.torch import load_file, save_file  # noqa: E402

from lipsync_core.errors import WeightsError  # noqa: E402
from lipsync_core.models.folder import AutoencoderPart  # noqa: E402
from lipsync_denoiser.latentsync.autoencoder_torch import Autoencoder, blank_autoencoder, modern_name  # noqa: E402

from .tiny_latentsync import autoencoder_part  # noqa: E402

torch.set_num_threads(1)  # networks this small lose more at barriers than they gain
CPU = torch.device("cpu")
TOLERANCE = 5e-4  # MANIFEST.json
OLD = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


@pytest.fixture(scope="module")
def cases(shared_reference: Path) -> dict[str, Any]:
    return load_file(shared_reference / "tiny_vae_cases.safetensors")


def load(file: Path, batch: int = 16) -> Autoencoder:
    return Autoencoder.load(autoencoder_part(), file, torch.float32, CPU, batch)


@pytest.mark.parametrize("batch", [1, 16])
def test_latents_and_pictures_are_the_references(batch: int, cases: dict[str, Any], shared_reference: Path) -> None:
    autoencoder, scale = load(shared_reference / "tiny_vae.safetensors", batch), autoencoder_part().scaling_factor
    generator = torch.Generator().manual_seed(int(cases["sample_generator_seed"]))
    noise = torch.randn(cases["sample"].shape, generator=generator)
    picture = cases["image"].float()
    with torch.inference_mode():
        assert (autoencoder.encode(picture, None) - cases["mean"] * scale).abs().max() <= TOLERANCE * scale
        assert (autoencoder.encode(picture, noise) - cases["sample"] * scale).abs().max() <= TOLERANCE * scale
        assert (autoencoder.decode(cases["latent"].float() * scale) - cases["decoded"]).abs().max() <= TOLERANCE


def test_old_attention_names_are_understood(shared_reference: Path, tmp_path: Path) -> None:
    state = load_file(shared_reference / "tiny_vae.safetensors")
    old = {}
    for name, tensor in state.items():
        for new, before in OLD.items():
            name = name.replace(f".{new}.", f".{before}.")
        old[name] = tensor
    assert sum("proj_attn" in name for name in old) == 4
    save_file(old, tmp_path / "old.safetensors")
    one, two = (
        load(file).net.state_dict()
        for file in (shared_reference / "tiny_vae.safetensors", tmp_path / "old.safetensors")
    )
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert modern_name("encoder.key.conv.weight") == "encoder.key.conv.weight"


def test_names_and_shapes_are_sd_vae_ft_mses(shared_reference: Path) -> None:
    entries = json.loads((shared_reference / "vae_keys_sd_ft_mse.json").read_text(encoding="utf-8"))["entries"]
    net = blank_autoencoder(AutoencoderPart.model_validate({"weights": "vae.safetensors"}), torch.float16)
    assert {name: list(tensor.shape) for name, tensor in net.state_dict().items()} == {
        entry["key"]: entry["shape"] for entry in entries
    }
    assert net.dtype == torch.float16


def test_weights_that_do_not_fit_are_named(shared_reference: Path, tmp_path: Path) -> None:
    state = load_file(shared_reference / "tiny_vae.safetensors")
    file = tmp_path / "v.safetensors"
    save_file({name: tensor for name, tensor in state.items() if name != "quant_conv.bias"}, file)
    with pytest.raises(WeightsError, match=r"lacks quant_conv\.bias"):
        load(file)
    save_file(state | {"quant_conv.bias": torch.zeros(3)}, file)
    with pytest.raises(WeightsError, match=r"quant_conv\.bias of shape \[3\] where \[8\] belongs"):
        load(file)


def test_an_autoencoder_of_patches_imports_none_of_diffusers() -> None:
    """That import is a second of CPU time; a process of its own, as this one has had it."""
    script = (
        "import sys, torch\n"
        "from lipsync_core.models.folder import AutoencoderPart, PatchAutoencoderPart\n"
        "from lipsync_denoiser import latentsync_torch\n"
        "from lipsync_denoiser.latentsync.autoencoder_torch import blank_autoencoder\n"
        "loaded = lambda: 'diffusers.models.autoencoders.autoencoder_kl' in sys.modules\n"
        "patches = PatchAutoencoderPart.model_validate({'weights': 'w', 'kind': 'patch'})\n"
        "blank_autoencoder(patches, torch.float32)\n"
        "print(loaded())\n"
        "blank_autoencoder(AutoencoderPart.model_validate({'weights': 'w'}), torch.float32)\n"
        "print(loaded())\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]
