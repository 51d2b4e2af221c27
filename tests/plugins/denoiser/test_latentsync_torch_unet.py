"""The U-Net against LatentSync's own key lists and outputs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch")
pytest.importorskip("diffusers", reason="needs diffusers")

from safetensors.torch import load_file  # noqa: E402

from lipsync_core.models.folder import UNetPart  # noqa: E402
from lipsync_denoiser.latentsync import attention_torch  # noqa: E402
from lipsync_denoiser.latentsync.attention_torch import FeedForward, PositionTable  # noqa: E402
from lipsync_denoiser.latentsync.blocks_torch import pooled_norm  # noqa: E402
from lipsync_denoiser.latentsync.checkpoint_torch import load_unet  # noqa: E402
from lipsync_denoiser.latentsync.unet_torch import UNet3D, blank_unet, build_unet, channels_last, zero_start  # noqa: E402

from .tiny_latentsync import unet_part  # noqa: E402

torch.set_num_threads(1)  # networks this small lose more at barriers than they gain
CPU = torch.device("cpu")
TOLERANCE = 5e-4  # MANIFEST.json; the same sums in another order differ by 2e-5


@pytest.fixture(scope="module")
def cases(shared_reference: Path) -> dict[str, Any]:
    return load_file(shared_reference / "tiny_unet_cases.safetensors")


@pytest.fixture(scope="module", params=["channels last", "channels first"])
def unet(request: pytest.FixtureRequest, shared_reference: Path) -> UNet3D:
    part = unet_part()
    unet = load_unet(part, shared_reference / part.weights, torch.float32, CPU, strict=True)
    if request.param == "channels last":
        channels_last(unet)
    return unet


def forward(unet: UNet3D, cases: dict[str, Any], case: str) -> Any:
    dtype = unet.conv_in.weight.dtype
    sample, audio = (cases[f"{case}.{name}"].to(dtype) for name in ("sample", "encoder_hidden_states"))
    with torch.inference_mode():
        return unet(sample, cases[f"{case}.timestep"], audio)


def test_the_table_of_positions_is_the_checkpoints(shared_reference: Path) -> None:
    """Checkpoints bring theirs, so that no output shows what a model without one would compute with."""
    stored = {k: v for k, v in load_file(shared_reference / unet_part().weights).items() if k.endswith(".pe")}
    assert stored
    for table in stored.values():
        _, frames, width = table.shape
        torch.testing.assert_close(PositionTable(width, frames).pe, table, rtol=0, atol=1e-5)


def full_size(layout: str) -> UNetPart:
    motion: dict[str, Any] = {"stage2": {"motion": {}}, "stage1": {}, "efficient": {"motion": {"decoder_only": True}}}
    return UNetPart.model_validate({"weights": "latentsync_unet.pt"} | motion[layout])


@pytest.mark.parametrize("layout", ["stage2", "stage1", "efficient"])
def test_names_and_shapes_are_the_checkpoints(layout: str, shared_reference: Path) -> None:
    file = shared_reference / f"unet_keys_{'stage1' if layout == 'stage1' else 'stage2'}.json"
    entries = json.loads(file.read_text(encoding="utf-8"))["entries"]
    want = {entry["key"]: (entry["shape"], entry["kind"]) for entry in entries}
    if layout == "efficient":
        diff = json.loads((shared_reference / "unet_keys_stage2_efficient_diff.json").read_text(encoding="utf-8"))
        for key in diff["absent_keys"]:
            del want[key]
        assert len(want) == diff["num_keys"]
    unet = blank_unet(full_size(layout), torch.float32)
    parameters = {name for name, _ in unet.named_parameters()}
    got = {
        name: (list(tensor.shape), "parameter" if name in parameters else "buffer")
        for name, tensor in unet.state_dict().items()
    }
    assert got == want


@pytest.mark.parametrize("case", list("ABCDE"))
def test_output_is_the_references(unet: UNet3D, cases: dict[str, Any], case: str) -> None:
    got, want = forward(unet, cases, case), cases[f"{case}.output"]
    assert got.shape == want.shape
    assert (got - want).abs().max() <= TOLERANCE


def test_epsilons() -> None:
    """FACTS §2 has them; the goldens are too coarse to tell 1e-5 from 1e-6."""
    unet = blank_unet(unet_part(norm_eps=2e-5), torch.float32)
    for name, module in unet.named_modules():
        if isinstance(module, torch.nn.LayerNorm):
            assert module.eps == 1e-5, name
        elif isinstance(module, torch.nn.GroupNorm):
            before_transformer = ".attentions." in name or ".temporal_transformer." in name
            assert module.eps == (1e-6 if before_transformer else 2e-5), name


def test_every_part_is_the_references(unet: UNet3D, shared_reference: Path) -> None:
    golden = load_file(shared_reference / "tiny_unet_intermediates.safetensors")
    seen: dict[str, Any] = {}
    watched = {name: module for name, module in unet.named_modules() if name in golden}
    hooks = [
        module.register_forward_hook(lambda _, __, out, name=name: seen.__setitem__(name, out.clone()))
        for name, module in watched.items()
    ]
    with torch.inference_mode():
        out = unet(golden["sample"].float(), golden["timestep"], golden["encoder_hidden_states"].float())
    for hook in hooks:
        hook.remove()
    assert len(seen) >= 18
    for name, got in seen.items():
        want = golden[name].float()
        if want.ndim == 5 and got.ndim == 4:
            got = got.unflatten(0, (-1, want.shape[2])).transpose(1, 2)
        assert (got.reshape(want.shape) - want).norm() <= 2e-3 * want.norm(), name
    assert (out - golden["output"]).abs().max() <= TOLERANCE


def test_bfloat16_is_near(shared_reference: Path, cases: dict[str, Any]) -> None:
    part = unet_part()
    unet = load_unet(part, shared_reference / part.weights, torch.bfloat16, CPU, strict=True)
    channels_last(unet)
    want = cases["A.output"]
    assert (forward(unet, cases, "A").float() - want).norm() <= 0.1 * want.norm()


def test_sliced_attention_gives_the_same(unet: UNet3D, cases: dict[str, Any]) -> None:
    want = forward(unet, cases, "A")
    unet.slice_attention(3)
    got = forward(unet, cases, "A")
    unet.slice_attention(None)
    assert torch.allclose(got, want, atol=1e-5)


def test_too_long_a_chunk_is_refused() -> None:
    unet = build_unet(unet_part(motion={"max_frames": 4}), torch.float32, CPU, seed=0)
    audio = torch.zeros(5, 3, 64)
    with torch.inference_mode(), pytest.raises(ValueError, match="5 frames, but positions for 4"):
        unet(torch.zeros(1, 13, 5, 8, 8), torch.tensor([1]), audio)


@pytest.mark.parametrize(
    "changes",
    [{"motion": None}, {"motion": {"mid_block": True}}, {"motion": {"resolutions": (2, 8)}}, {"audio_layer": False}],
)
def test_other_layouts_run(changes: dict[str, Any]) -> None:
    unet = build_unet(unet_part(**changes), torch.float32, CPU, seed=1)
    names = set(unet.state_dict())
    motion = unet.part.motion
    assert any("mid_block.motion" in name for name in names) == bool(motion and motion.mid_block)
    levels = {int(name.split(".")[1]) for name in names if name.startswith("down_blocks") and "motion" in name}
    assert levels == {level for level in range(4) if motion and 2**level in motion.resolutions}
    with torch.inference_mode():
        out = unet(torch.randn(1, 13, 2, 8, 8), torch.tensor([5]), torch.randn(2, 6, 64))
    assert out.shape == (1, 4, 2, 8, 8)
    assert out.isfinite().all()
    assert out.std() > 0


def test_random_weights_follow_the_seed() -> None:
    part = unet_part()
    one, same, other = (build_unet(part, torch.float32, CPU, seed=seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["conv_out.weight"], other["conv_out.weight"])
    rounded = build_unet(part, torch.bfloat16, CPU, seed=3).state_dict()
    assert all(torch.equal(one[name].bfloat16(), rounded[name]) for name in one)


def test_a_perceptron_in_blocks_computes_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    perceptron, x = FeedForward(8), torch.randn(2, 3, 5, 8)
    with torch.inference_mode():
        want = perceptron(x)
        monkeypatch.setattr(attention_torch, "_BLOCK_VALUES", 7 * 64)
        assert torch.allclose(perceptron(x), want, atol=1e-6)


def test_a_seed_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(5)
    want = torch.randn(3)
    torch.manual_seed(5)
    build_unet(unet_part(), torch.float32, CPU, seed=1)
    assert torch.equal(torch.randn(3), want)


def test_the_start_of_training_predicts_nothing() -> None:
    unet = build_unet(unet_part(), torch.float32, CPU, seed=1)
    zero_start(unet)
    with torch.inference_mode():
        out = unet(torch.randn(1, 13, 2, 8, 8), torch.tensor([5]), torch.randn(2, 6, 64))
    assert not out.any()


def test_pooled_norm_takes_its_statistics_over_the_chunk() -> None:
    norm = torch.nn.GroupNorm(2, 4)
    x = torch.randn(6, 4, 3, 5) * torch.tensor([1.0, 5, 9, 1, 1, 1])[:, None, None, None]
    got = pooled_norm(norm, x, 3)
    for chunk in (slice(0, 3), slice(3, 6)):
        grouped = x[chunk].transpose(0, 1).reshape(2, -1)
        want = (grouped - grouped.mean(1, keepdim=True)) / (grouped.var(1, unbiased=False, keepdim=True) + 1e-5).sqrt()
        assert torch.allclose(got[chunk], want.reshape(4, 3, 3, 5).transpose(0, 1), atol=1e-5)
