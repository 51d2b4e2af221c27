"""Settings that follow the model: which one `auto` is, which audio encoder it hears with, and what its folder asks for.

A backend says in its spec what it has to do with model folders (`BackendSpec.model_part`, `model_form`), so that
nothing here knows a backend or a model by name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel

from lipsync_core.backends import BackendSpec, StageKind
from lipsync_core.errors import SettingsError
from lipsync_core.models.exported import exports
from lipsync_core.models.folder import ModelConfig
from lipsync_core.models.known import AUTO, best, describe
from lipsync_core.registry import Registry, State

AUTO_BACKEND: Final = "auto"  # as `audio.backend`: what the model hears with
EXPORTED: Final = "onnx"  # a `model_form`
PASTE: Final = "paste"  # a `model_part`


@dataclass(frozen=True, slots=True)
class Followed:
    """The model of a job: `text` as an option takes it, never `auto`, and its description."""

    text: str
    config: ModelConfig

    @property
    def origin(self) -> str:
        """What to call it as the origin of a setting."""
        return f"model {self.config.name}"

    def wanted(self, spec: BackendSpec, options: type[BaseModel]) -> dict[str, Any]:
        """Return what the folder asks of a backend: values of those of its options that the description has too."""
        part: BaseModel | None = None
        if spec.kind is StageKind.DENOISER and spec.model_form:
            part = self.config.sampling
        elif spec.kind is StageKind.AUDIO and spec.model_part == self.config.audio.kind:
            part = self.config.audio
        elif spec.kind is StageKind.COMPOSITOR and spec.model_part == PASTE:
            part = self.config.paste
        if part is None:
            return {}
        return {name: getattr(part, name) for name in type(part).model_fields if name in options.model_fields}


def follow(denoiser: BackendSpec | None, text: object) -> Followed | None:
    """Return the model that an option of the denoiser names; None where it runs no model folder, or none is named.

    Raises `WeightsError` where the model is neither known nor a folder, or where `auto` finds none.
    """
    if denoiser is None or not denoiser.model_form or not isinstance(text, str):
        return None
    name = text
    if text == AUTO:
        name = best(fits=_exported if denoiser.model_form == EXPORTED else None)
    return Followed(name, describe(name))


def audio_backend(registry: Registry, denoiser: BackendSpec | None, model: Followed | None) -> str:
    """Return the audio backend that reads the model's audio part: of the denoiser's runtime, or else one that is ready.

    Raises `SettingsError` where there is no model to follow, or nothing reads such a part.
    """
    if model is None or denoiser is None:
        raise SettingsError(
            f"audio.backend = {AUTO_BACKEND!r} follows the denoiser's model, but it has none.",
            "Name an audio backend, or a denoiser that runs a model.",
        )
    kind = model.config.audio.kind
    reading = [e for e in registry.entries if e.spec.kind is StageKind.AUDIO and e.spec.model_part == kind]
    if not reading:
        raise SettingsError(
            f"No audio backend gives what the model {model.config.name} hears: {kind}.",
            "Install a plugin that does, or choose another model.",
        )
    runtime = _runtime(denoiser.name)
    # Sorting is stable: by name, as the registry has them.
    best_first = sorted(reading, key=lambda e: (_runtime(e.spec.name) != runtime, e.state is not State.READY))
    return best_first[0].spec.name


def spec_of(registry: Registry, kind: StageKind, backends: Mapping[StageKind, str]) -> BackendSpec | None:
    """Return the spec of the backend chosen for a stage; None where none is, or it is unknown."""
    name = backends.get(kind)
    return next((e.spec for e in registry.entries if e.spec.kind is kind and e.spec.name == name), None)


def _runtime(name: str) -> str:
    """`latentsync-onnx` runs in `onnx` (DESIGN: `<model>-<runtime>`)."""
    return name.rpartition("-")[2]


def _exported(folder: Any) -> bool:
    formats: Iterable[object] = exports(folder)
    return any(True for _ in formats)
