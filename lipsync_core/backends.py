"""What a plugin says about each backend it offers. Strings only: listing backends imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

API_VERSION = 1


class StageKind(StrEnum):
    """The five stages. The value is the stage's name in profiles, `--set` and `lipsync backends`."""

    AUDIO = "audio"
    ALIGNER = "aligner"
    MASKER = "masker"
    DENOISER = "denoiser"
    COMPOSITOR = "compositor"


@dataclass(frozen=True, slots=True)
class BackendSpec:
    """One backend of one stage.

    kind: the stage it implements.
    name: `<model>-<runtime>` where there is a runtime, e.g. `whisper-onnx`.
    summary: one line for `lipsync backends`.
    factory: "module:Class"; called with the options object.
    options: "module:Model", a frozen pydantic model with `extra="forbid"`.
    requires: top-level modules that must be importable; probed with `find_spec`, never imported.
    install: the command that brings them.
    api: version of the stage contracts it was written for.
    model_part: of an audio encoder: the kind of audio part in a `model.json` whose features it gives, so that
        `audio.backend = "auto"` finds it. Of a compositor: "paste" where its options of these names follow that part.
        Empty for none.
    model_form: of a denoiser that runs model folders: "weights" or "onnx", the form it takes them in; empty for others.
    """

    kind: StageKind
    name: str
    summary: str
    factory: str
    options: str
    requires: tuple[str, ...] = ()
    install: str = ""
    api: int = API_VERSION
    model_part: str = ""
    model_form: str = ""
