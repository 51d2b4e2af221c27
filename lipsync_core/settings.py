"""Settings in layers.

Low to high: defaults, packaged profile, plugin profile, `lipsync.toml`, environment, `--profile` and `--set`.

A layer is a nested table as in a profile file; every effective value remembers the layer it came from. A layer that
names another backend drops the options lower layers gave the one before.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from lipsync_core.backends import StageKind
from lipsync_core.errors import SettingsError, WeightsError
from lipsync_core.job_settings import JobSettings
from lipsync_core.model_settings import AUTO_BACKEND, Followed, audio_backend, follow, spec_of
from lipsync_core.models.folder import ModelConfig
from lipsync_core.models.known import AUTO
from lipsync_core.registry import Entry, Registry, nearest

DEFAULT_PROFILE = "draft"
PROJECT_FILE = "lipsync.toml"
ENVIRONMENT_PREFIX = "LIPSYNC_"
MODEL_OPTION = "model"  # a backend's option of this name is job.model where it is not set
RESOLUTION_OPTION = "resolution"  # an aligner's option of this name is the denoiser's crop_size where it is None
ZOOM_OPTION = "zoom"  # and one of this name the denoiser's crop_zoom, where it has one
_DEFAULTS = "default"
_STAGE_KEYS = ("backend", "options")
_LONGEST_SHOWN = 200  # characters of a value that a message repeats
_HEADER_KEYS = ("name", "summary", "extends")
_FLAGS = "command line"  # a layer
_Model = TypeVar("_Model", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class StageSettings:
    """The backend chosen for a stage and its validated options."""

    entry: Entry
    options: BaseModel


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything a job needs to know, with where each value came from (dotted key → layer).

    model: the description of the denoiser's, None where it runs no model folder.
    """

    profile: str
    stages: Mapping[StageKind, StageSettings]
    job: JobSettings
    origin: Mapping[str, str]
    model: ModelConfig | None = None

    def values(self) -> dict[str, Any]:
        """Return every effective value under its dotted key, defaults included, in profile order."""
        flat: dict[str, Any] = {}
        for kind, stage in self.stages.items():
            flat[f"{kind}.backend"] = stage.entry.spec.name
            flat |= {f"{kind}.options.{key}": value for key, value in stage.options.model_dump(mode="json").items()}
        return flat | {f"job.{key}": value for key, value in self.job.model_dump(mode="json").items()}


@dataclass(frozen=True, slots=True)
class Layer:
    """One source of settings: what to call it in messages, and its table."""

    name: str
    table: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Profile:
    """A profile file as read: `extends` names the profile it builds on."""

    name: str
    summary: str
    layer: Layer
    extends: str | None = None
    error: SettingsError | None = None  # what is wrong with a plugin's, said where it is selected


@dataclass(slots=True)
class _Merged:
    stages: dict[StageKind, dict[str, Any]] = field(default_factory=lambda: {kind: {} for kind in StageKind})
    backends: dict[StageKind, str] = field(default_factory=dict)
    # Options given before any layer named a backend: for whichever comes, where it has them.
    loose: dict[StageKind, set[str]] = field(default_factory=dict)
    job: dict[str, Any] = field(default_factory=dict)
    origin: dict[str, str] = field(default_factory=dict)


def available_profiles(registry: Registry) -> dict[str, Profile]:
    """Return the packaged and the plugins' profiles by name; raises `SettingsError` where two share a name."""
    found: dict[str, Profile] = {}
    packaged = [_read_profile(file, f"profile {Path(file.name).stem} (packaged)") for file in _packaged()]
    for profile in packaged + [_read_plugins(file, str(origin)) for file, origin in registry.profiles]:
        if profile.name in found:
            raise SettingsError(
                f"Two profiles are named {profile.name!r}: {found[profile.name].layer.name} and {profile.layer.name}.",
                "Uninstall one of the plugins or rename its profile.",
            )
        found[profile.name] = profile
    return found


def resolve(
    registry: Registry,
    *,
    profile: str | Path | None = None,
    overrides: Iterable[str] = (),
    flags: Mapping[str, Any] | None = None,
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> Settings:
    """Merge all layers, check every value and return the settings.

    profile: a name or a path to a TOML file; overrides: `stage.options.key=value` strings; flags: dotted keys with
    values, as command-line flags set them; folder: where `lipsync.toml` is looked for (default: the current one).
    Raises `SettingsError` naming file, table, field, value and what is allowed, or `BackendError` for a backend that
    cannot be selected.
    """
    environment = os.environ if environment is None else environment
    project = _project_layer(Path.cwd() if folder is None else folder)
    chosen_low = environment.get(f"{ENVIRONMENT_PREFIX}PROFILE") or project.table.get("profile") or DEFAULT_PROFILE
    chosen = profile or chosen_low
    stack = _profile_stack(registry, chosen)
    between = [project, _environment_layer(environment)]
    # An explicit --profile outranks the project file and the environment; one they name themselves does not.
    layers = [*between, *stack] if profile else [*stack, *between]
    layers += [Layer(_FLAGS, _nest(flags or {})), Layer("--set", _nest(dict(map(_parse_set, overrides))))]
    merged = _Merged()
    for layer in layers:
        _apply(merged, layer)
    return _validate(registry, stack[-1].name, str(chosen), merged)


def _packaged() -> list[Traversable]:
    folder = files("lipsync_core") / "profiles"
    return sorted((f for f in folder.iterdir() if f.name.endswith(".toml")), key=lambda f: f.name)


def _read_plugins(file: Traversable, origin: str) -> Profile:
    """Read a plugin's profile; a broken one must not harm the jobs that do not select it."""
    stem = Path(str(getattr(file, "name", file))).stem
    label = f"profile {stem} ({origin})"
    try:
        return _read_profile(file, label)
    except SettingsError as error:
        return Profile(stem, "broken", Layer(label, {}), error=error)
    except Exception as error:
        wrong = SettingsError(f"{label} cannot be read: {error}.", "Update or uninstall the plugin.")
        return Profile(stem, "broken", Layer(label, {}), error=wrong)


def _read_profile(file: Traversable, label: str) -> Profile:
    table = _read_toml(file, label)
    extends = table.get("extends")
    name = table.get("name", Path(file.name).stem)
    body = {key: value for key, value in table.items() if key not in _HEADER_KEYS}
    return Profile(str(name), str(table.get("summary", "")), Layer(label, body), str(extends) if extends else None)


def _read_toml(file: Traversable, label: str) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # no TOML, no UTF-8, a number or a nesting without end
        raise SettingsError(f"{label} is not valid TOML: {error}.", "Correct it there.") from error
    except OSError as error:
        raise SettingsError(f"{label} cannot be read: {error.strerror}.", "Check the path.") from error


def _project_layer(folder: Path) -> Layer:
    file = folder / PROJECT_FILE
    return Layer(PROJECT_FILE, _read_toml(file, PROJECT_FILE) if file.is_file() else {})


def _environment_layer(environment: Mapping[str, str]) -> Layer:
    """`LIPSYNC_DENOISER__OPTIONS__STEPS=20` is `denoiser.options.steps = 20`."""
    values = {
        name.removeprefix(ENVIRONMENT_PREFIX).lower().replace("__", "."): _parse_value(text)
        for name, text in sorted(environment.items())
        if name.startswith(ENVIRONMENT_PREFIX) and "__" in name
    }
    return Layer("environment", _nest(values))


def _profile_stack(registry: Registry, chosen: str | Path) -> list[Layer]:
    """Return the layers of a profile and of those it extends, the base first."""
    known = available_profiles(registry)
    if str(chosen).endswith(".toml"):
        file = Path(chosen)
        profile = _read_profile(file, f"profile {file}")
    else:
        profile = _named(known, str(chosen))
    layers, seen = [profile.layer], {profile.layer.name}
    while profile.extends:
        profile = _named(known, profile.extends)
        if profile.layer.name in seen:  # by the file: one's own `onnx.toml` may extend the packaged `onnx`
            raise SettingsError(f"{profile.layer.name} extends itself.", "Remove one `extends` from the circle.")
        seen.add(profile.layer.name)
        layers.insert(0, profile.layer)
    return layers


def _named(known: Mapping[str, Profile], name: str) -> Profile:
    if name not in known:
        raise SettingsError(f"There is no profile named {name!r}.", nearest(name, known))
    profile = known[name]
    if profile.error is not None:
        raise profile.error
    return profile


def _parse_value(text: str) -> Any:
    """Read a value as TOML would; anything else is a string, so paths and names need no quotes."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):  # TOML's own errors, a number or a nesting without end
        return text


def _parse_set(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise SettingsError(
            f"--set {text!r} is not KEY=VALUE.", "Write for example --set denoiser.options.own_voice=false."
        )
    return key.strip(), _parse_value(value)


def _nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for key, value in flat.items():
        *tables, last = key.split(".")
        place = nested
        for table in tables:
            inner = place.setdefault(table, {})
            if not isinstance(inner, dict):
                raise SettingsError(f"{key} sets a value inside {table}, which is a value itself.", "Set one of them.")
            place = inner
        place[last] = value
    return nested


def _apply(merged: _Merged, layer: Layer) -> None:
    for section, table in layer.table.items():
        if section == "profile" and layer.name == PROJECT_FILE:
            continue
        if section != "job" and section not in list(StageKind):
            raise SettingsError(f"{layer.name}: there is no table {section!r}.", nearest(section, [*StageKind, "job"]))
        if not isinstance(table, dict):
            raise SettingsError(
                f"{layer.name}: {section} = {table!r} must be a table.", f"Write [{section}] above its keys."
            )
        if section == "job":
            merged.job |= table
            merged.origin |= {f"job.{key}": layer.name for key in table}
        else:
            _apply_stage(merged, StageKind(section), table, layer)


def _apply_stage(merged: _Merged, kind: StageKind, table: Mapping[str, Any], layer: Layer) -> None:
    for key in table:
        if key not in _STAGE_KEYS:
            raise SettingsError(f"{layer.name}: [{kind}] has no key {key!r}.", nearest(key, _STAGE_KEYS))
    backend = table.get("backend")
    if backend is not None:
        if not isinstance(backend, str):
            raise SettingsError(f"{layer.name}: {kind}.backend = {backend!r} must be a name.", "Put it in quotes.")
        if kind not in merged.backends:
            merged.loose[kind] = set(merged.stages[kind])
        elif merged.backends[kind] != backend:
            merged.stages[kind] = {}
            merged.loose[kind] = set()
            merged.origin = {k: v for k, v in merged.origin.items() if not k.startswith(f"{kind}.options.")}
        merged.backends[kind] = backend
        merged.origin[f"{kind}.backend"] = layer.name
    options = table.get("options", {})
    if not isinstance(options, dict):
        raise SettingsError(f"{layer.name}: {kind}.options = {options!r} must be a table.", f"Write [{kind}.options].")
    merged.stages[kind] |= options
    merged.origin |= {f"{kind}.options.{key}": layer.name for key in options}


def _validate(registry: Registry, source: str, profile: str, merged: _Merged) -> Settings:
    job = _checked(JobSettings, merged.job, "job", merged.origin)
    denoiser = spec_of(registry, StageKind.DENOISER, merged.backends)
    hears_auto = merged.backends.get(StageKind.AUDIO) == AUTO_BACKEND
    try:
        model = follow(denoiser, _model_named(registry, merged, job.model))
    except WeightsError:
        if hears_auto:
            raise
        model = None  # the denoiser says the same as a job makes it
    if hears_auto:
        merged.backends[StageKind.AUDIO] = audio_backend(registry, denoiser, model)
    stages: dict[StageKind, StageSettings] = {}
    for kind in StageKind:
        if kind not in merged.backends:
            raise SettingsError(f"{source} names no {kind} backend.", f"Add `backend` under [{kind}].")
        entry = _found(registry, kind, merged)
        options = registry.options_model(entry)
        for name in merged.loose.get(kind, set()) - set(options.model_fields):
            merged.stages[kind].pop(name, None)
        _follow(merged, kind, entry, options, job.model, model)
        if kind is StageKind.DENOISER and MODEL_OPTION not in options.model_fields:
            _refuse_model(entry, merged)
        stages[kind] = StageSettings(entry, _checked(options, merged.stages[kind], f"{kind}.options", merged.origin))
    settings = Settings(profile, stages, job, merged.origin, model.config if model else None)
    origin = {key: merged.origin.get(key, _DEFAULTS) for key in settings.values()}
    return replace(settings, origin=origin)


def _model_named(registry: Registry, merged: _Merged, named: str | None) -> object:
    """Return the model that the denoiser is to run: its own, the job's, or its default where neither is set."""
    own = merged.stages[StageKind.DENOISER].get(MODEL_OPTION, named)
    if own is not None or StageKind.DENOISER not in merged.backends:
        return own
    field = registry.options_model(_found(registry, StageKind.DENOISER, merged)).model_fields.get(MODEL_OPTION)
    return None if field is None else field.default


def _refuse_model(entry: Entry, merged: _Merged) -> None:
    """Raise `SettingsError` where a flag names a model for a denoiser that runs none.

    In a file it may be meant for the jobs of other profiles, and by --set for others of a bench.
    """
    if merged.origin.get(f"job.{MODEL_OPTION}") == _FLAGS:
        raise SettingsError(
            f"The denoiser {entry.spec.name} runs no model, so {merged.job[MODEL_OPTION]!r} cannot be used.",
            "Choose a profile that runs one, for example --profile onnx, or leave --model out.",
        )


def _follow(
    merged: _Merged, kind: StageKind, entry: Entry, options: type[BaseModel], named: str | None, model: Followed | None
) -> None:
    """Give a backend the job's model, and what that asks of it, where nothing else is set."""
    values, origin = merged.stages[kind], f"{kind}.options."
    if named is not None and MODEL_OPTION in options.model_fields and MODEL_OPTION not in values:
        values[MODEL_OPTION] = named
        merged.origin[origin + MODEL_OPTION] = "job.model"
    if model is None:
        return
    # What `auto` is has been settled, or the denoiser and the encoder might take different ones.
    field = options.model_fields.get(MODEL_OPTION)
    if field is not None and values.get(MODEL_OPTION, field.default) == AUTO:
        values[MODEL_OPTION] = model.text
    for name, value in model.wanted(entry.spec, options).items():
        if name not in values:
            values[name] = value
            merged.origin[origin + name] = model.origin


def _found(registry: Registry, kind: StageKind, merged: _Merged) -> Entry:
    try:
        return registry.find(kind, merged.backends[kind])
    except SettingsError as error:
        raise SettingsError(f"{merged.origin[f'{kind}.backend']}: {error.cause}", error.cure) from error


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"


def _checked(model: type[_Model], values: Mapping[str, Any], table: str, origin: Mapping[str, str]) -> _Model:
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = str(first["loc"][0]) if first["loc"] else ""
        where = origin.get(f"{table}.{key}", _DEFAULTS)
        if first["type"] == "extra_forbidden":
            raise SettingsError(
                f"{where}: [{table}] has no option {key!r}.", nearest(key, model.model_fields)
            ) from error
        if first["type"] == "literal_error":
            problem = nearest(str(values.get(key)), re.findall(r"'([^']*)'", first["ctx"]["expected"]))
        else:
            problem = first["msg"].removeprefix("Value error, ")
        problem = problem[:1].lower() + problem[1:].rstrip(".")
        described = model.model_fields[key].description if key in model.model_fields else None
        raise SettingsError(
            f"{where}: {table}.{key} = {_shown(values.get(key))} does not fit: {problem}.",
            f"{key}: {described}." if described else "Correct that value.",
        ) from error
