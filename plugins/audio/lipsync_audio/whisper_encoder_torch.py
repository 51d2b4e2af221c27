"""OpenAI Whisper's audio encoder with all its states, in the checkpoint's own key names (shared/reference FACTS §4)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor, nn

from lipsync_audio.log_mel import BANDS
from lipsync_core.errors import WeightsError
from lipsync_core.models.folder import AudioPart

COLUMNS = 3000  # log-mel columns of a window: 30 s
ROWS = COLUMNS // 2  # feature rows of a window: the second convolution halves the rate
_PREFIX = "encoder."
_LONGEST_WAVE = 10_000.0  # of the sinusoidal positions, in rows over 2π (the transformer paper's constant)


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        n, rows, width = x.shape
        q, k, v = (
            layer(x).view(n, rows, self.heads, -1).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )
        # Whisper scales q and k by headwidth^-1/4 each; the product is this function's own headwidth^-1/2.
        mixed = F.scaled_dot_product_attention(q, k, v)
        result: Tensor = self.out(mixed.transpose(1, 2).reshape(n, rows, width))
        return result


class _Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attn = _Attention(width, heads)
        self.attn_ln = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.mlp_ln = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.attn_ln(x))
        result: Tensor = x + self.mlp(self.mlp_ln(x))
        return result


class WhisperEncoder(nn.Module):
    """The encoder; called with log-mel [1, 80, 3000] it returns [1500, layers + 1, width]."""

    positional_embedding: Tensor

    def __init__(self, part: AudioPart) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(BANDS, part.width, kernel_size=3, padding=1)
        self.conv2 = nn.Conv1d(part.width, part.width, kernel_size=3, stride=2, padding=1)
        self.register_buffer("positional_embedding", torch.empty(ROWS, part.width))
        self.blocks = nn.ModuleList(_Block(part.width, part.heads) for _ in range(part.layers))
        self.ln_post = nn.LayerNorm(part.width)  # in every checkpoint; its output is no feature of LatentSync's

    def forward(self, mel: Tensor) -> Tensor:
        """Return the states after the positions were added and after each block."""
        x = F.gelu(self.conv1(mel))
        x = F.gelu(self.conv2(x)).transpose(1, 2) + self.positional_embedding
        states = [x]
        for block in self.blocks:
            states.append(block(states[-1]))
        return torch.stack(states, dim=2)[0]


def build(part: AudioPart, tensors: Mapping[str, Tensor], source: object) -> WhisperEncoder:
    """Make an encoder from a checkpoint's tensors; those of the decoder may be there or not.

    Raises: `WeightsError` naming `source` and the first key that is missing, unknown or of another shape.
    """
    if part.width % part.heads:
        raise WeightsError(f"{source}: {part.heads} heads do not divide the width {part.width}.", "Correct the model.")
    with torch.device("meta"):
        encoder = WhisperEncoder(part)
    own = {key.removeprefix(_PREFIX): value for key, value in tensors.items() if key.startswith(_PREFIX)}
    for key, want in encoder.state_dict().items():
        if key not in own:
            raise WeightsError(f"{source} lacks {_PREFIX}{key}.", "Give a Whisper checkpoint of the model's size.")
        if own[key].shape != want.shape:
            raise WeightsError(
                f"{source}: {_PREFIX}{key} has shape {list(own[key].shape)}, the model says {list(want.shape)}.",
                "Give the checkpoint the model was made for.",
            )
    strange = sorted(own.keys() - encoder.state_dict().keys())
    if strange:
        raise WeightsError(
            f"{source} holds {_PREFIX}{strange[0]}, which the model does not have.",
            "Give the checkpoint the model was made for.",
        )
    encoder.load_state_dict({key: value.float() for key, value in own.items()}, assign=True)
    return encoder.eval().requires_grad_(False)


def part_of(dims: Mapping[str, Any], weights: str, source: object) -> AudioPart:
    """Return what a checkpoint's `dims` say; raises `WeightsError` where they are not a Whisper encoder's."""
    names = ("n_audio_layer", "n_audio_state", "n_audio_head", "n_mels", "n_audio_ctx")
    sizes = [dims.get(name) for name in names]
    if not all(isinstance(size, int) and size > 0 for size in sizes) or sizes[3:] != [BANDS, ROWS]:
        raise WeightsError(
            f"{source} is no Whisper checkpoint with {BANDS} mel bands and {ROWS} positions.",
            "Give a model folder or a checkpoint such as tiny.pt.",
        )
    numbers = dict(zip(("layers", "width", "heads"), sizes, strict=False))
    return AudioPart.model_validate({"kind": "whisper", "weights": weights, **numbers})


def dims_of(part: AudioPart) -> dict[str, int]:
    """Return `dims` of a checkpoint without a decoder."""
    return {
        "n_mels": BANDS,
        "n_audio_ctx": ROWS,
        "n_audio_state": part.width,
        "n_audio_head": part.heads,
        "n_audio_layer": part.layers,
        **dict.fromkeys(("n_vocab", "n_text_ctx", "n_text_state", "n_text_head", "n_text_layer"), 0),
    }


def random_state(part: AudioPart, seed: int) -> dict[str, Tensor]:
    """Return random tensors of an encoder: variance 1 / inputs, norms around 1, the real positional table."""
    generator = torch.Generator().manual_seed(seed)
    with torch.device("meta"):
        encoder = WhisperEncoder(part)
    state = {}
    for key, like in encoder.state_dict().items():
        noise = torch.randn(like.shape, generator=generator)
        if key == "positional_embedding":
            value = positions(part.width)
        elif like.ndim > 1:
            value = noise / math.sqrt(like[0].numel())
        else:
            is_gain = "ln" in key and key.endswith("weight")
            value = 0.1 * noise + (1.0 if is_gain else 0.0)
        state[_PREFIX + key] = value
    return state


def positions(width: int) -> Tensor:
    """Return Whisper's positional table float32 [1500, width]: sines of geometrically spaced waves, then cosines."""
    half = width // 2
    wave = torch.exp(torch.arange(half) * (-math.log(_LONGEST_WAVE) / max(1, half - 1)))
    angle = torch.arange(ROWS)[:, None] * wave
    return torch.cat([angle.sin(), angle.cos()], dim=1)
