"""What belongs to a job and not to a backend: the `[job]` table of a profile."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, ValidationInfo, field_validator

from lipsync_core.signing_c2pa import Signing

_LARGEST_TERM = 1001  # of a rate's ratio: 23.976 is 24000/1001, and containers hold 32 bits


def _parse_fps(value: object) -> object:
    if value == "source":
        return value
    try:
        fps = Fraction(str(value)).limit_denominator(_LARGEST_TERM)
    except (ValueError, ZeroDivisionError):
        raise ValueError("must be 'source', a number such as 25, or a ratio such as 30000/1001") from None
    if not 1 <= fps <= 240:
        raise ValueError("must lie between 1 and 240")
    return fps


class JobSettings(BaseModel):
    """The `[job]` table."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    model: str | None = Field(
        None,
        description="Model of every backend that takes one and is given none of its own: auto (the best that is "
        "here), a name from `lipsync models list`, or the path of a model folder",
    )
    length: Literal["audio", "video"] = Field(
        "audio", description="End with the audio, or keep the whole video and leave its rest untouched"
    )
    extend: Literal["pingpong", "loop", "hold", "error"] = Field(
        "pingpong", description="What to show where the audio is longer than the video"
    )
    fps: Annotated[Literal["source"] | Fraction, BeforeValidator(_parse_fps), PlainSerializer(str)] = Field(
        "source", description="Output frame rate in Hz: the source's, a number, or a ratio"
    )
    sync_offset_ms: float = Field(
        0.0,
        ge=-5000,
        le=5000,
        description="Shift of the new sound against the mouth in ms, which stays; above 0 the sound comes later",
    )
    seed: int = Field(1247, ge=0, lt=2**63, description="Seed of the starting noise")
    crf: int = Field(
        18, ge=0, le=51, description="Constant rate factor of the video encoder; lower is better and larger"
    )
    silence: Literal["generate", "rest", "keep"] = Field(
        "generate",
        description="Where the new sound holds no speech for half a second: generate from it as everywhere, let the "
        "mouth rest, or keep the source's frames untouched",
    )
    provenance: bool = Field(True, description="Say in the output's metadata that it is synthetic, and by what")
    c2pa_certificate: Path | None = Field(
        None, description="PEM certificate chain to sign the output's C2PA credentials with; needs c2pa_key"
    )
    c2pa_key: Path | None = Field(
        None, validate_default=True, description="PEM private key of c2pa_certificate, without a password"
    )
    timing: Literal["source", "reference"] = Field(
        "source",
        description="Keep the source's times and the sound's quality, or lay frames and sound out as LatentSync does: "
        "25 frames a second, back and forth, two frames longer than the sound, 16 kHz mono",
    )

    @field_validator("c2pa_key")
    @classmethod
    def _key_and_certificate(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        if (value is None) is not (info.data.get("c2pa_certificate") is None):
            raise ValueError("c2pa_key and c2pa_certificate go together")
        return value

    @field_validator("timing")
    @classmethod
    def _reference_decides(cls, value: str, info: ValidationInfo) -> str:
        usual = {"length": "audio", "extend": "pingpong", "fps": "source"}
        other = [key for key, default in usual.items() if info.data.get(key, default) != default]
        if value == "reference" and other:
            raise ValueError(f"reference decides {', '.join(other)} itself, so leave that out")
        return value


def signing(job: JobSettings) -> Signing | None:
    """Return what to sign the output with, if anything."""
    if job.c2pa_certificate is None or job.c2pa_key is None:
        return None
    return Signing(job.c2pa_certificate, job.c2pa_key)
