"""The checks as pytest classes, one for each stage; each check of `checks.CHECKS` becomes a test method.

class TestMine(DenoiserContract):
    backend = "mine"
    options = {"strength": 0.5}
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

from lipsync_core.backends import StageKind
from lipsync_core.registry import discover
from lipsync_core.testing.case import Case, Check, Outcome, expected_failures, run_check
from lipsync_core.testing.checks import CHECKS

_PREFIX = "test_"


class Contract:
    """What the five contracts have in common.

    backend: its name. options: its options. option_fixtures: option name to the pytest fixture that gives its value.
    reference, reference_options, tolerance: a backend it is to agree with. expected_failures: check name to reason,
    besides those the backend's own class declares; one that does not fail is a failure.
    """

    kind: ClassVar[StageKind]
    backend: ClassVar[str]
    options: ClassVar[Mapping[str, Any]] = {}
    option_fixtures: ClassVar[Mapping[str, str]] = {}
    reference: ClassVar[str | None] = None
    reference_options: ClassVar[Mapping[str, Any]] = {}
    tolerance: ClassVar[float] = 0.0
    expected_failures: ClassVar[Mapping[str, str]] = {}

    def __init_subclass__(cls) -> None:
        if "kind" in cls.__dict__:
            for check in CHECKS[cls.kind]:
                setattr(cls, _PREFIX + check.__name__, _as_test(check))
            return
        names = {_PREFIX + check.__name__ for check in CHECKS[cls.kind]}
        (stage,) = (base for base in cls.__mro__ if "kind" in base.__dict__)
        changed = sorted(name for name in names if getattr(cls, name) is not getattr(stage, name))
        unknown = sorted(set(cls.expected_failures) - {name.removeprefix(_PREFIX) for name in names})
        if changed:
            raise TypeError(
                f"{cls.__name__} overrides {', '.join(changed)}, which the contract asks of every {cls.kind} backend. "
                "Remove it; a check that cannot pass goes into `expected_failures`, with the reason."
            )
        if unknown:
            raise TypeError(
                f"{cls.__name__} expects {', '.join(unknown)} to fail, which is no check. Correct `expected_failures`."
            )

    def case(self, request: pytest.FixtureRequest) -> Case:
        """Return what the checks are given."""
        fixtures = {option: request.getfixturevalue(name) for option, name in self.option_fixtures.items()}
        fixtures = {k: str(v) if isinstance(v, Path) else v for k, v in fixtures.items()}  # as a settings file has it
        return Case(
            discover(),
            self.kind,
            self.backend,
            {**self.options, **fixtures},
            self.reference,
            self.reference_options,
            self.tolerance,
        )


def _as_test(check: Check) -> Callable[[Contract, pytest.FixtureRequest], None]:
    def test(self: Contract, request: pytest.FixtureRequest) -> None:
        case = self.case(request)
        result = run_check(check, case, {**expected_failures(case), **self.expected_failures})
        if result.outcome is Outcome.FAILED:
            pytest.fail(f"{result.check}: {result.detail}", pytrace=False)
        if result.outcome is Outcome.EXPECTED:
            pytest.xfail(result.detail)
        if result.outcome is Outcome.NOT_ASKED:
            pytest.skip(result.detail)

    test.__doc__ = check.__doc__
    test.__name__ = _PREFIX + check.__name__
    return test


class AudioEncoderContract(Contract):
    """What an audio encoder must do."""

    kind = StageKind.AUDIO


class FaceAlignerContract(Contract):
    """What a face aligner must do."""

    kind = StageKind.ALIGNER


class MaskerContract(Contract):
    """What a masker must do."""

    kind = StageKind.MASKER


class DenoiserContract(Contract):
    """What a denoiser must do."""

    kind = StageKind.DENOISER


class CompositorContract(Contract):
    """What a compositor must do."""

    kind = StageKind.COMPOSITOR
