"""Weight files that fit, and those that do not."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch")
pytest.importorskip("diffusers", reason="needs diffusers")

from safetensors.torch import save_file  # noqa: E402

from lipsync_core.errors import WeightsError  # noqa: E402
from lipsync_denoiser.latentsync.checkpoint_torch import load_unet  # noqa: E402
from lipsync_denoiser.latentsync.unet_torch import build_unet  # noqa: E402

from .tiny_latentsync import unet_part  # noqa: E402

torch.set_num_threads(1)  # networks this small lose more at barriers than they gain
CPU = torch.device("cpu")
PROJECTION = "up_blocks.3.motion_modules.0.temporal_transformer.proj_out.weight"


@pytest.fixture(scope="module")
def weights() -> dict[str, Any]:
    return dict(build_unet(unet_part(), torch.float32, CPU, seed=2).state_dict())


def load(file: Path, state: dict[str, Any], *, strict: bool, dtype: Any = torch.float32, **changes: Any) -> Any:
    torch.save({"global_step": 7, "state_dict": state}, file)
    return load_unet(unet_part(**changes), file, dtype, CPU, strict=strict).state_dict()


def test_pickle_and_safetensors_give_the_same_weights(weights: dict[str, Any], tmp_path: Path) -> None:
    torch.save(weights, tmp_path / "flat.pt")
    torch.save({"state_dict": weights}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, tmp_path / "u.safetensors")
    torch.save({"global_step": 7, "state_dict": weights}, tmp_path / "u.pt")
    for name in ("flat.pt", "old.pt", "u.safetensors", "u.pt"):
        unet = load_unet(unet_part(), tmp_path / name, torch.float32, CPU, strict=True)
        assert all(torch.equal(tensor, weights[key]) for key, tensor in unet.state_dict().items()), name
        assert not any(parameter.requires_grad for parameter in unet.parameters())
        assert not unet.training


def test_weights_and_tables_take_the_dtype(weights: dict[str, Any], tmp_path: Path) -> None:
    got = load(tmp_path / "u.pt", weights, strict=True, dtype=torch.bfloat16)
    assert {tensor.dtype for tensor in got.values()} == {torch.bfloat16}
    assert torch.equal(got["conv_in.weight"], weights["conv_in.weight"].bfloat16())


def test_missing_and_left_over_weights_are_named(weights: dict[str, Any], tmp_path: Path) -> None:
    state = {name: tensor for name, tensor in weights.items() if "motion_modules" not in name}
    with pytest.raises(WeightsError, match=r"lacks down_blocks\.0\.motion_modules.* and \d+ more\. .*strict=false"):
        load(tmp_path / "u.pt", state, strict=True)
    with pytest.raises(WeightsError, match=r"has down_blocks\.0\.motion_modules.* the model does not"):
        load(tmp_path / "u.pt", weights, strict=True, motion=None)


def test_not_strict_starts_missing_motion_modules_as_identities(
    weights: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    state = {name: tensor for name, tensor in weights.items() if "motion_modules" not in name}
    got = load(tmp_path / "u.pt", state | {"strange": torch.zeros(1)}, strict=False)
    assert not got[PROJECTION].any()
    assert "strange" in caplog.text
    still = load(tmp_path / "u.pt", weights, strict=False, motion=None)
    sample, audio = torch.randn(1, 13, 2, 8, 8), torch.randn(2, 6, 64)
    with torch.inference_mode():
        moving = load_unet(unet_part(), _saved(tmp_path / "m.pt", state), torch.float32, CPU, strict=False)
        plain = load_unet(unet_part(motion=None), _saved(tmp_path / "p.pt", still), torch.float32, CPU, strict=True)
        one, two = (unet(sample, torch.tensor([9]), audio) for unet in (moving, plain))
    assert torch.allclose(one, two, atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "dropped"),
    [
        ({"in_channels": 9}, {"conv_in.weight"}),
        ({"out_channels": 3}, {"conv_out.weight", "conv_out.bias"}),
        ({"cross_attention_dim": 32}, {"attn2.to_k.weight", "attn2.to_v.weight"}),
    ],
)
def test_other_channel_counts_are_dropped_only_where_not_strict(
    weights: dict[str, Any], tmp_path: Path, changes: dict[str, int], dropped: set[str]
) -> None:
    with pytest.raises(WeightsError, match="asks for"):
        load(tmp_path / "u.pt", weights, strict=True, **changes)
    got = load(tmp_path / "u.pt", weights, strict=False, **changes)
    new = {name for name, tensor in got.items() if not torch.equal(tensor, weights[name])}
    assert new
    assert all(any(name.endswith(end) for end in dropped) for name in new)
    if "cross_attention_dim" not in changes:
        assert new == dropped
        assert not any(got[name].any() for name in new if name.endswith("weight"))


def test_any_other_shape_is_an_error_even_where_not_strict(weights: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="mid_block.resnets.0.conv1.weight of shape"):
        load(tmp_path / "u.pt", weights | {"mid_block.resnets.0.conv1.weight": torch.zeros(2, 2, 3, 3)}, strict=False)


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("/nowhere/at-all"),)


def test_a_pickle_that_would_run_something_is_refused(tmp_path: Path) -> None:
    (tmp_path / "u.pt").write_bytes(pickle.dumps({"state_dict": Evil()}))
    with pytest.raises(WeightsError, match="u.pt"):
        load_unet(unet_part(), tmp_path / "u.pt", torch.float32, CPU, strict=False)


def _saved(file: Path, state: dict[str, Any]) -> Path:
    torch.save(state, file)
    return file
