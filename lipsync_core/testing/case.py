"""What a check is given, and how the checks of one backend are run."""

from __future__ import annotations

import dataclasses
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Any

from pydantic import BaseModel, ValidationError

from lipsync_core.backends import BackendSpec, StageKind
from lipsync_core.errors import LipsyncError, SettingsError
from lipsync_core.registry import Entry, Registry, State, describe, nearest
from lipsync_core.testing.drivers import DRIVERS, Driver


class CheckFailed(LipsyncError):  # noqa: N818 - it is no error of the kit
    """A backend does not do what its stage asks: what was seen, and what to do about it."""


class NotAsked(Exception):  # noqa: N818 - no error at all
    """A check that has nothing to say of this backend; the text says why."""


@dataclass(frozen=True)
class Case:
    """One backend under test.

    options: its options, by name. reference: another backend of the stage that it is to agree with within
    `tolerance`, the greatest difference of any output value. `reference_options` are that one's.
    """

    registry: Registry
    kind: StageKind
    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    reference: str | None = None
    reference_options: Mapping[str, Any] = field(default_factory=dict)
    tolerance: float = 0.0

    @cached_property
    def entry(self) -> Entry:
        """The registered backend; raises `CheckFailed` where it cannot be used."""
        entry = self._listed()
        if entry.state is not State.READY:
            raise CheckFailed(f"The backend cannot be used: it is {entry.state}.", entry.detail)
        return entry

    @property
    def spec(self) -> BackendSpec:
        """What the plugin says of it."""
        return self.entry.spec

    @cached_property
    def driver(self) -> Driver:
        """What calls a backend of this stage on sample inputs."""
        return DRIVERS[self.kind]()

    def checked_options(self) -> BaseModel:
        """Return the options object; raises `SettingsError` where the values given do not fit."""
        entry = self.registry.find(self.kind, self.name)
        return self._options(entry, self.options)

    def create(self) -> Any:
        """Return a new instance that has seen the sample clip, if it wants to."""
        backend = self.registry.create(self.entry, self._options(self.entry, self.options))
        self.driver.prepare(backend)
        return backend

    def create_reference(self) -> Any:
        """Return a new instance of the reference backend; raises `NotAsked` where none is named."""
        if self.reference is None:
            raise NotAsked("no reference backend is named")
        entry = self.registry.find(self.kind, self.reference)
        backend = self.registry.create(entry, self._options(entry, self.reference_options))
        self.driver.prepare(backend)
        return backend

    def _options(self, entry: Entry, values: Mapping[str, Any]) -> BaseModel:
        try:
            return self.registry.options_model(entry).model_validate(dict(values))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(map(str, first["loc"])) or "its options"
            raise SettingsError(
                f"The options given to {entry.spec.name} do not fit: {where}: {first['msg']}.",
                "Give other ones: `options` of the contract, or --option KEY=VALUE.",
            ) from error

    def _listed(self) -> Entry:
        found = [e for e in self.registry.entries if (e.spec.kind, e.spec.name) == (self.kind, self.name)]
        if found:
            return found[0]
        if self.registry.problems:
            problem = self.registry.problems[0]
            raise CheckFailed(
                f"There is no {self.kind} backend {self.name}, and a plugin could not be loaded: "
                f"{problem.origin}: {problem.error}.",
                _cure(problem.error),
            )
        known = [e.spec.name for e in self.registry.entries if e.spec.kind is self.kind]
        advice = (
            f"Install the package that offers it (pip install -e .), or correct the name. {nearest(self.name, known)}"
        )
        raise SettingsError(f"There is no {self.kind} backend named {self.name!r}.", advice)


_CURES = {
    "implements no lipsync hook": "Write lipsync_register_backends in the plugin's module and put @hookimpl on it.",
    "unknown hook": "The hooks are lipsync_register_backends and lipsync_register_profiles: correct the name.",
    "does not load": "Import that module in Python, and mend what it raises; what a backend needs beyond the standard "
    "library and lipsync_core is imported in the backend's module, not in plugin.py.",
    "lipsync_register_backends failed": "Call it in Python, and mend what it raises.",
}


def _cure(problem: str) -> str:
    return next((cure for words, cure in _CURES.items() if words in problem), "Correct the BackendSpec in plugin.py.")


Check = Callable[[Case], None]


class Outcome(StrEnum):
    """How a check went."""

    OK = "ok"
    FAILED = "FAILED"
    EXPECTED = "expected failure"
    NOT_ASKED = "not asked"


@dataclass(frozen=True, slots=True)
class Result:
    """One check's outcome; `detail` says what is wrong and what to do, or why it is so."""

    check: str
    outcome: Outcome
    detail: str = ""


def run_check(check: Check, case: Case, expected: Mapping[str, str]) -> Result:
    """Run one check; a failure that is expected but does not happen is a failure."""
    name = check.__name__
    reason = expected.get(name)
    try:
        check(case)
    except NotAsked as error:
        return Result(name, Outcome.NOT_ASKED, str(error))
    except LipsyncError as error:
        detail = str(error)
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        detail = (
            f"It raised {describe(error)} at {where.filename}:{where.lineno}. "
            f"Mend that; the check {name} asks: {(check.__doc__ or '').splitlines()[0]}"
        )
    else:
        if reason is None:
            return Result(name, Outcome.OK)
        return Result(
            name,
            Outcome.FAILED,
            f"It was expected to fail ({reason}) and did not. Remove {name} from `expected_failures`.",
        )
    return Result(name, Outcome.FAILED, detail) if reason is None else Result(name, Outcome.EXPECTED, reason)


def run_checks(checks: tuple[Check, ...], case: Case, expected: Mapping[str, str] | None = None) -> Iterator[Result]:
    """Yield the result of each check.

    expected: check name to reason. Left out, they are the backend's own: a class attribute `expected_failures`.
    """
    if expected is None:
        expected = expected_failures(case)
    for name in sorted(set(expected) - {check.__name__ for check in checks}):
        yield Result(
            name,
            Outcome.FAILED,
            f"`expected_failures` names a check that there is not. {nearest(name, [c.__name__ for c in checks])}",
        )
    for check in checks:
        yield run_check(check, case, expected)


def expected_failures(case: Case) -> Mapping[str, str]:
    """Return the checks that the backend's class says it does not pass, and why; none where it cannot be imported."""
    try:
        declared: Mapping[str, str] = getattr(case.registry.factory(case.entry), "expected_failures", {})
    except LipsyncError:
        return {}
    return declared


def arrays(value: object) -> Iterator[Any]:
    """Yield every array in stage inputs or outputs: arrays, dataclasses and tuples of them."""
    if dataclasses.is_dataclass(value):
        for part in dataclasses.fields(value):
            yield from arrays(getattr(value, part.name))
    elif isinstance(value, tuple):
        for item in value:
            yield from arrays(item)
    elif hasattr(value, "flags"):
        yield value
