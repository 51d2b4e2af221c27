"""Who takes part: profiles, or backends of one stage, as the registry finds them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lipsync_core.backends import StageKind
from lipsync_core.errors import LipsyncError, SettingsError
from lipsync_core.registry import Registry, State
from lipsync_core.settings import DEFAULT_PROFILE, available_profiles, resolve


@dataclass(frozen=True, slots=True)
class Contender:
    """What one process is to run.

    name: as it is shown. profiles: the first of these that can be used gives the settings. overrides: as `--set`.
    """

    name: str
    profiles: tuple[str, ...]
    overrides: tuple[str, ...] = ()


Field = tuple[list[Contender], dict[str, str]]
"""Those that take part, and by name why others do not."""


def of_profiles(registry: Registry, names: Sequence[str] | None, overrides: Sequence[str] = ()) -> Field:
    """Return one contender a profile; None: every profile there is.

    Names that do not exist raise `SettingsError`; a profile whose backends are missing is left out with the reason.
    """
    known = available_profiles(registry)
    chosen = list(known) if names is None else list(names)
    contenders, left_out = [], {}
    for name in _distinct(chosen):
        if name not in known and not name.endswith(".toml"):
            resolve(registry, profile=name)  # says which there are
        try:
            resolve(registry, profile=name, overrides=overrides)
        except LipsyncError as error:
            if isinstance(error, SettingsError):
                raise
            left_out[name] = str(error)
            continue
        contenders.append(Contender(name, (name,), tuple(overrides)))
    return contenders, left_out


def of_backends(
    registry: Registry,
    kind: StageKind,
    names: Sequence[str] | None,
    overrides: Sequence[str] = (),
    profile: str | None = None,
) -> Field:
    """Return one contender a backend of the stage; None: every one there is.

    profile: gives the other stages and their options; None: a profile that uses that backend, or the default one.
    Names that do not exist raise `SettingsError`; a backend that is missing, broken or in conflict is left out.
    """
    entries = {entry.spec.name: entry for entry in registry.entries if entry.spec.kind is kind}
    contenders, left_out = [], {}
    for name in _distinct(list(entries) if names is None else list(names)):
        if name not in entries:
            registry.find(kind, name)  # says which there are
        if entries[name].state is not State.READY:
            left_out[name] = f"{entries[name].state}. {entries[name].detail}"
            continue
        bases = (profile,) if profile else _profiles_with(registry, kind, name)
        contenders.append(Contender(name, bases, (f"{kind}.backend={name}", *overrides)))
    return contenders, left_out


def _profiles_with(registry: Registry, kind: StageKind, backend: str) -> tuple[str, ...]:
    """Return the profiles that use a backend, those that others extend first; the default one where none does."""
    known = available_profiles(registry)

    def depth(name: str) -> int:
        steps, profile = 0, known[name]
        while profile.extends in known:
            steps, profile = steps + 1, known[profile.extends]
        return steps

    fitting = []
    for name in sorted(known, key=lambda name: (name != DEFAULT_PROFILE, depth(name), name)):
        try:
            stages = resolve(registry, profile=name).stages
        except LipsyncError:
            continue
        if stages[kind].entry.spec.name == backend:
            fitting.append(name)
    return tuple(fitting) or (DEFAULT_PROFILE,)


def _distinct(names: list[str]) -> list[str]:
    doubles = sorted({name for name in names if names.count(name) > 1})
    if doubles:
        raise SettingsError(f"{' and '.join(doubles)} is named twice.", "Name each contender once.")
    return names
