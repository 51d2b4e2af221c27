"""A model folder: one model whole, described by its validated `model.json`, beside it the weights.

LatentSync 1.5 and 1.6, a tiny random model and the small embedded one are such folders for the same backends: no code
branches on a model's name.
"""

from __future__ import annotations

import json
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lipsync_core.errors import WeightsError
from lipsync_core.models.manifest import RelativePath

MODEL_FILE = "model.json"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class AudioPart(_Part):
    """The audio encoder: OpenAI Whisper's encoder, all its states (FACTS §4)."""

    kind: Literal["whisper"] = Field(description="architecture")
    weights: RelativePath = Field(description="checkpoint, relative to the folder: .pt or .safetensors")
    rows_before: int = Field(4, ge=0, description="feature rows before a frame's own that it sees")
    rows_after: int = Field(5, ge=0, description="feature rows after it")
    layers: int = Field(4, ge=1, description="transformer blocks; a row has layers + 1 states")
    width: int = Field(384, ge=1, description="width of a state")
    heads: int = Field(6, ge=1, description="attention heads")

    @property
    def feature_shape(self) -> tuple[int, int]:
        """(tokens, dim) of one video frame."""
        return (self.rows_before + 1 + self.rows_after) * (self.layers + 1), self.width


class MouthShapePart(_Part):
    """The audio encoder `mouth-shape-numpy`, which brings its own weights; each frame hears its neighbours too."""

    kind: Literal["mouth-shape"] = Field(description="architecture")
    reach: int = Field(2, ge=0, description="shapes before and after a frame's own, 1/25 s apart, each a token")
    spread: float | None = Field(
        None, gt=0, description="deviation of a clip's openings to which its shapes are enlarged, at most 2.5-fold"
    )
    numbers: int = Field(8, ge=1, description="numbers of a shape")

    @property
    def width(self) -> int:
        """Width of a token."""
        return (2 * self.reach + 1) * self.numbers

    @property
    def feature_shape(self) -> tuple[int, int]:
        """(tokens, dim) of one video frame."""
        return 2 * self.reach + 1, self.width


class AutoencoderPart(_Part):
    """The latent autoencoder: diffusers' AutoencoderKL."""

    kind: Literal["kl"] = Field("kl", description="architecture")
    weights: RelativePath = Field(description=".safetensors or .bin, relative to the folder")
    block_out_channels: tuple[int, ...] = Field((128, 256, 512, 512), description="channels of each level")
    layers_per_block: int = Field(2, ge=1, description="resnets in a level")
    latent_channels: int = Field(4, ge=1, description="channels of the latents")
    norm_num_groups: int = Field(32, ge=1, description="groups of each GroupNorm")
    scaling_factor: float = Field(0.18215, gt=0, description="latents are multiplied by this after encoding")
    shift_factor: float = Field(0.0, description="subtracted from latents before scaling")

    @property
    def downscale(self) -> int:
        """Pixels of one latent's side."""
        return int(2 ** (len(self.block_out_channels) - 1))


class PatchAutoencoderPart(_Part):
    """The latent autoencoder of `mini`: patches, and convolutions at the latents' size; it draws no samples."""

    kind: Literal["patch"] = Field(description="architecture")
    weights: RelativePath = Field(description=".safetensors, relative to the folder")
    patch: int = Field(8, ge=1, description="side of a patch, px: one latent")
    latent_channels: int = Field(16, ge=1, description="channels of the latents")
    width: int = Field(96, ge=1, description="channels of the convolutions")
    encoder_blocks: int = Field(1, ge=0, description="residual blocks")
    decoder_blocks: int = Field(2, ge=0, description="residual blocks")
    scaling_factor: float = Field(1.0, gt=0, description="latents are multiplied by this after encoding")
    shift_factor: float = Field(0.0, description="subtracted from latents before scaling")

    @property
    def downscale(self) -> int:
        """Pixels of one latent's side."""
        return self.patch


class MotionPart(_Part):
    """The temporal modules of the U-Net (FACTS §2)."""

    heads: int = Field(8, ge=1, description="attention heads")
    max_frames: int = Field(24, ge=1, description="positions stored; a longer chunk cannot be run")
    resolutions: tuple[int, ...] = Field((1, 2, 4, 8), description="downsampling factors of the levels that have one")
    decoder_only: bool = Field(False, description="only the up blocks have them")
    mid_block: bool = Field(False, description="the mid block has one too")


class UNetPart(_Part):
    """The 3-D U-Net (FACTS §2)."""

    weights: RelativePath = Field(description=".pt or .safetensors, relative to the folder")
    in_channels: int = Field(13, ge=1, description="noisy, mask, masked-image and reference latents")
    out_channels: int = Field(4, ge=1, description="predicted latents")
    block_out_channels: tuple[int, ...] = Field(
        (320, 640, 1280, 1280), min_length=2, description="channels of each level"
    )
    layers_per_block: int = Field(2, ge=1, description="resnets in a down level")
    attention_heads: int = Field(8, ge=1, description="heads of the spatial transformers")
    cross_attention_dim: int = Field(384, ge=1, description="width of the audio tokens")
    norm_num_groups: int = Field(32, ge=1, description="groups of each GroupNorm outside the motion modules")
    norm_eps: float = Field(1e-5, gt=0, description="epsilon of the resnets' GroupNorms")
    audio_layer: bool = Field(True, description="the spatial transformers attend to the audio")
    motion: MotionPart | None = Field(None, description="temporal modules; None for a stage-1 model")


class SchedulerPart(_Part):
    """How noise was added in training (FACTS §3)."""

    train_timesteps: int = Field(1000, ge=1, description="steps of the training schedule")
    beta_start: float = Field(0.00085, gt=0, description="first beta")
    beta_end: float = Field(0.012, gt=0, description="last beta")
    beta_schedule: Literal["scaled_linear", "linear"] = Field("scaled_linear", description="curve between them")
    prediction: Literal["epsilon", "v_prediction"] = Field("epsilon", description="what the U-Net predicts")
    steps_offset: int = Field(1, ge=0, description="added to every timestep")
    spacing: Literal["leading", "trailing"] = Field("leading", description="how inference timesteps are laid out")
    set_alpha_to_one: bool = Field(False, description="the last step ends at alpha 1 instead of the first alpha")
    zero_terminal_snr: bool = Field(False, description="betas rescaled so that the last step is pure noise")


class SamplingPart(_Part):
    """How it is sampled unless told otherwise: defaults of the denoiser's options of these names."""

    steps: int = Field(20, ge=1, le=1000, description="denoising steps")
    guidance_scale: float = Field(1.5, ge=0, description="weight of the sound against its absence; 1 is off")


class PastePart(_Part):
    """What its faces are given as they are pasted back: defaults of a compositor's options of these names."""

    region: Literal["mask", "mouth"] = Field(
        "mask",
        description="all that was generated, or of it what is around the mouth, cheeks and jaw being the source's",
    )
    feather_eye_distances: float = Field(
        0.05, ge=0, le=1, description="width of the soft edge, in distances between the outer eye corners"
    )
    sharpen: float = Field(0.0, ge=0, le=2, description="strength of an unsharp mask")
    grain: float = Field(0.0, ge=0, le=1, description="share of the source's grain that is added where they lack it")
    light: float = Field(0.0, ge=0, le=1, description="share of the difference in light at the edge that is taken away")
    colour: float = Field(0.0, ge=0, le=1, description="share of the difference in colours that is taken away")


class ModelConfig(_Part):
    """All of `model.json`."""

    format: Literal[1] = Field(1, description="version of this layout")
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]*$", description="how profiles and messages call it")
    title: str = Field(description="what it is, for people")
    licence: str = Field(description="SPDX identifier or a sentence")
    resolution: int = Field(256, ge=8, multiple_of=8, description="side of the crops, px")
    geometry: Literal["latentsync"] = Field("latentsync", description="crop geometry the aligner must use")
    zoom: float = Field(1.0, gt=0, description="of the crop, about ZOOM_CENTRE of the aligner's geometry")
    mask: Literal["fixed-mask"] = Field("fixed-mask", description="masker it was trained with")
    frames: int = Field(16, ge=1, description="frames of a chunk")
    reference: Literal["frame", "scene"] = Field(
        "frame",
        description="what shows the person's looks: each frame itself, as in LatentSync, though its own mouth may come "
        "through; or one frame of the scene for all, its mouth open as usual",
    )
    audio: AudioPart | MouthShapePart = Field(discriminator="kind")
    autoencoder: AutoencoderPart | PatchAutoencoderPart
    unet: UNetPart
    scheduler: SchedulerPart
    sampling: SamplingPart = Field(
        default_factory=lambda: SamplingPart.model_validate({}), description="how it is sampled unless told otherwise"
    )
    paste: PastePart = Field(
        default_factory=lambda: PastePart.model_validate({}), description="what its faces are given when pasted back"
    )
    preview: bool = Field(False, description="a stand-in of low resolution: a run's summary says so")

    @property
    def whisper(self) -> AudioPart:
        """The audio encoder where it is Whisper's; raises `WeightsError` where it is not."""
        if isinstance(self.audio, AudioPart):
            return self.audio
        raise WeightsError(
            f"The model {self.name} hears mouth shapes, not Whisper's states.",
            f"Select the audio backend mouth-shape-numpy with reach={self.audio.reach}.",
        )

    @property
    def weights(self) -> tuple[str, ...]:
        """The weight files, relative to the folder."""
        own = (self.audio.weights,) if isinstance(self.audio, AudioPart) else ()
        return (*own, self.autoencoder.weights, self.unet.weights)


class ModelFolder:
    """An opened model folder: `config`, and `path(weights)` for its files."""

    def __init__(self, root: Path, config: ModelConfig) -> None:
        self.root = root
        self.config = config

    @classmethod
    def open(cls, root: Path) -> ModelFolder:
        """Read and check `model.json`; raises `WeightsError` naming the field that is wrong."""
        return cls(root, read_config(root / MODEL_FILE))

    def path(self, weights: str) -> Path:
        """Return a weight file of this folder; raises `WeightsError` where it is missing."""
        file = self.root / weights
        if not file.is_file():
            cure = "Complete it or pull it again."
            if (self.root / "onnx").is_dir():
                cure = "It holds ONNX graphs, which --profile onnx runs; PyTorch needs the weights they were made from."
            raise WeightsError(f"The model folder {self.root} lacks {weights}.", cure)
        return file


def file_mark(file: Path) -> tuple[int, int]:
    """Return what tells a file from a later one: hashing gigabytes at each use would take longer."""
    facts = file.stat()
    return facts.st_size, facts.st_mtime_ns


def read_config(file: Traversable) -> ModelConfig:
    """Read and check a `model.json`; raises `WeightsError` naming the field that is wrong."""
    try:
        return ModelConfig.model_validate(json.loads(file.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        folder = str(file).removesuffix(MODEL_FILE).rstrip("/\\")
        raise WeightsError(f"{folder} holds no {MODEL_FILE}.", "Give the folder of a model.") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        raise WeightsError(f"{file}: {field}: {first['msg']}.", "Correct that field.") from error
    except (OSError, ValueError, RecursionError) as error:  # no JSON, no UTF-8, a number or a nesting without end
        raise WeightsError(f"{file} cannot be read: {error}.", "Restore the model's own file.") from error
