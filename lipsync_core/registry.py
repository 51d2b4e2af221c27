"""Finding backends: the only code that imports plugins.

Plugins come through the entry-point group `lipsync`. Each is loaded, asked and checked on its own, so a broken one is
listed with its error while the others work (pluggy's own loader calls `EntryPoint.load` unguarded).
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from importlib.metadata import EntryPoint, entry_points
from importlib.resources.abc import Traversable
from typing import Any

import pluggy
from pydantic import BaseModel

from lipsync_core.backends import API_VERSION, BackendSpec, StageKind
from lipsync_core.errors import BackendError, LipsyncError, SettingsError
from lipsync_core.hookspecs import PROJECT, LipsyncHooks

log = logging.getLogger(__name__)

GROUP = "lipsync"
_TARGET = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
_NAME = re.compile(r"[a-z0-9][a-z0-9.-]*")


class State(StrEnum):
    """Whether a backend can be selected, as far as can be told without importing it."""

    READY = "ready"
    MISSING = "missing"
    BROKEN = "broken"
    CONFLICT = "conflict"


_IS = {State.MISSING: "missing what it needs", State.BROKEN: "broken", State.CONFLICT: "offered twice"}


@dataclass(frozen=True, slots=True)
class Origin:
    """The plugin something came from: its entry point and its distribution."""

    entry_point: str
    distribution: str
    version: str

    def __str__(self) -> str:
        return f"{self.distribution} {self.version}"


@dataclass(frozen=True, slots=True)
class Entry:
    """A registered backend. `detail` says what is wrong and what to do, empty where it is ready."""

    spec: BackendSpec
    origin: Origin
    state: State
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Problem:
    """A plugin, or one thing in it, that could not be used at all."""

    origin: Origin
    error: str


@dataclass(slots=True)
class Registry:
    """Everything the installed plugins offer."""

    entries: list[Entry] = field(default_factory=list)
    profiles: list[tuple[Traversable, Origin]] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def find(self, kind: StageKind, name: str) -> Entry:
        """Return the usable backend of that kind and name.

        Raises `SettingsError` for an unknown name and `BackendError` for one that is missing, broken or in conflict.
        """
        found = [entry for entry in self.entries if entry.spec.kind is kind and entry.spec.name == name]
        if not found:
            known = sorted({entry.spec.name for entry in self.entries if entry.spec.kind is kind})
            raise SettingsError(f"There is no {kind} backend named {name!r}.", self._advice(name, known))
        if found[0].state is not State.READY:
            raise BackendError(
                f"The {kind} backend {name} ({found[0].origin}) is {_IS[found[0].state]}.", found[0].detail
            )
        return found[0]

    def _advice(self, name: str, known: list[str]) -> str:
        advice = nearest(name, known)
        if self.problems:
            broken = ", ".join(str(problem.origin) for problem in self.problems)
            advice += f" Plugins that could not be loaded: {broken}; see `lipsync backends`."
        return advice

    def options_model(self, entry: Entry) -> type[BaseModel]:
        """Import and return the options model of a backend; raises `BackendError` where that fails."""
        model = _import(entry, entry.spec.options)
        if not (isinstance(model, type) and issubclass(model, BaseModel)):
            raise _fault(entry, f"its options, {entry.spec.options}, are not a pydantic model")
        return model

    def factory(self, entry: Entry) -> Any:
        """Import and return the factory of a backend; raises `BackendError` where that fails."""
        return _import(entry, entry.spec.factory)

    def create(self, entry: Entry, options: BaseModel) -> Any:
        """Import a backend and make an instance; raises `BackendError` naming it where that fails."""
        factory = self.factory(entry)
        try:
            return factory(options)
        except LipsyncError:
            raise
        except Exception as error:
            raise _fault(entry, f"it could not be created: {describe(error)}") from error


def nearest(name: str, known: Iterable[str]) -> str:
    """Return the advice for a misspelt name: the nearest known one, and all of them."""
    names = [str(name) for name in known]
    match = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    guess = f"Did you mean {match[0]!r}? " if match else ""
    return f"{guess}Known: {', '.join(names) if names else 'none'}."


def describe(error: BaseException) -> str:
    """Return the type and first line of an error."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _fault(entry: Entry, what: str) -> BackendError:
    return BackendError(
        f"The {entry.spec.kind} backend {entry.spec.name} ({entry.origin}) is broken: {what}.",
        "Reinstall or update that package, or select another backend; LIPSYNC_DEBUG=1 shows the traceback.",
    )


def _import(entry: Entry, target: str) -> Any:
    module, _, attribute = target.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except LipsyncError:
        raise
    except Exception as error:
        raise _fault(entry, f"{target} cannot be imported: {describe(error)}") from error


def discover(points: Iterable[EntryPoint] | None = None) -> Registry:
    """Load every plugin of the `lipsync` group (or those given) and return what they offer."""
    registry = Registry()
    specs: list[tuple[BackendSpec, Origin]] = []
    for point in sorted(
        entry_points(group=GROUP) if points is None else points, key=lambda p: (_origin(p).distribution, p.name)
    ):
        origin = _origin(point)
        try:
            hooks = _hooks(point)
        except Exception as error:
            _note(registry, origin, f"entry point {point.name!r} does not load: {describe(error)}", error)
            continue
        try:
            offered = [spec for specs_of_hook in hooks.lipsync_register_backends() for spec in specs_of_hook]
        except Exception as error:
            _note(registry, origin, f"lipsync_register_backends failed: {describe(error)}", error)
            offered = []
        for spec in offered:
            fault = _spec_fault(spec)
            if fault:
                _note(registry, origin, fault)
            else:
                specs.append((spec, origin))
        try:
            registry.profiles += [(file, origin) for files in hooks.lipsync_register_profiles() for file in files]
        except Exception as error:
            _note(registry, origin, f"lipsync_register_profiles failed: {describe(error)}", error)
    registry.entries = [_entry(spec, origin, specs) for spec, origin in specs]
    registry.entries.sort(key=lambda entry: (list(StageKind).index(entry.spec.kind), entry.spec.name))
    return registry


def _origin(point: EntryPoint) -> Origin:
    dist = point.dist
    return Origin(point.name, dist.name if dist else "unknown distribution", dist.version if dist else "?")


def _note(registry: Registry, origin: Origin, error: str, cause: Exception | None = None) -> None:
    log.debug("plugin %s: %s", origin, error, exc_info=cause)
    registry.problems.append(Problem(origin, error))


def _hooks(point: EntryPoint) -> Any:
    """Load one plugin into a manager of its own, so that its hooks are called apart from all others'."""
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(LipsyncHooks)
    module = point.load()
    manager.register(module, name=point.name)
    manager.check_pending()
    if not manager.get_hookcallers(module):
        raise TypeError(f"{point.value} implements no lipsync hook; mark its functions with lipsync_core.hookimpl")
    return manager.hook


def _spec_fault(spec: object) -> str:
    """Return what is wrong with a spec itself, or an empty string."""
    if not isinstance(spec, BackendSpec):
        return f"lipsync_register_backends returned {type(spec).__name__}, not BackendSpec"
    if wrong := _wrong_type(spec):
        return f"backend {spec.name!r}: {wrong}"
    if not _NAME.fullmatch(spec.name):
        return f"backend name {spec.name!r} must be lower case letters, digits, dots and dashes"
    for name, target in (("factory", spec.factory), ("options", spec.options)):
        if not _TARGET.fullmatch(target):
            return f"backend {spec.name!r}: {name} must be 'module:Class', got {target!r}"
    return ""


def _wrong_type(spec: Any) -> str:
    """Return which field holds something else than it says, or an empty string."""
    if not isinstance(spec.kind, StageKind):
        return f"kind must be a member of StageKind, got {spec.kind!r}"
    for text in ("name", "summary", "factory", "options", "install", "model_part", "model_form"):
        if not isinstance(getattr(spec, text), str):
            return f"{text} must be a string, got {getattr(spec, text)!r}"
    if not isinstance(spec.requires, tuple) or not all(isinstance(module, str) for module in spec.requires):
        return f"requires must be a tuple of module names, got {spec.requires!r}"
    if not isinstance(spec.api, int) or spec.api < 1:
        return f"api must be a whole number from 1, got {spec.api!r}"
    return ""


def _entry(spec: BackendSpec, origin: Origin, everything: list[tuple[BackendSpec, Origin]]) -> Entry:
    rivals = [str(o) for other, o in everything if (other.kind, other.name) == (spec.kind, spec.name)]
    if len(rivals) > 1:
        return Entry(spec, origin, State.CONFLICT, f"Offered by {' and '.join(rivals)}: uninstall all but one.")
    if spec.api > API_VERSION:
        why = f"Written for stage API {spec.api}, this lipsync-core has {API_VERSION}: update lipsync-core."
        return Entry(spec, origin, State.BROKEN, why)
    absent = [module for module in spec.requires if not _present(module)]
    if absent:
        return Entry(
            spec,
            origin,
            State.MISSING,
            f"Needs {', '.join(absent)}: {spec.install or 'pip install ' + ' '.join(absent)}",
        )
    return Entry(spec, origin, State.READY)


def _present(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):  # a half-removed package: its parent is gone, or __spec__ is None
        return False
