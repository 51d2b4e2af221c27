"""A little of each fuzz target at every run, what was found before, and ten minutes of each at night."""

from __future__ import annotations

import contextlib
import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lipsync_core.errors import LipsyncError
from lipsync_core.settings import resolve
from tests.core.fuzz import run
from tests.core.fuzz.targets import TARGETS, quiet, registry

_FEW = {"media": 40}
_MINUTES = 10.0


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIPSYNC_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("target", TARGETS)
def test_some_inputs_and_those_that_once_broke_it(target: str, tmp_path: Path) -> None:
    numbers = [*run.kept()[target], *range(_FEW.get(target, 100))]
    with quiet():
        for number in numbers:
            TARGETS[target](random.Random(number), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
def test_ten_minutes_of_inputs(target: str) -> None:
    assert run.watch(target, _MINUTES, random.randrange(1 << 40)) == []


_TOML_VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.sampled_from(["../x", "~no/x"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
_KEY = st.sampled_from(["job.crf", "job.model", "job.fps", "denoiser.options", "aligner.options.weights", "job", "x"])


@given(flags=st.dictionaries(_KEY | st.text(max_size=12), _TOML_VALUE, max_size=3))
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_flags_are_settings_or_one_sentence(tmp_path: Path, flags: dict[str, object]) -> None:
    with contextlib.suppress(LipsyncError):
        resolve(registry(), flags=flags, folder=tmp_path, environment={})


@given(text=st.text(max_size=60))
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_after_set_is_a_setting_or_one_sentence(tmp_path: Path, text: str) -> None:
    with contextlib.suppress(LipsyncError):
        resolve(registry(), overrides=[text], folder=tmp_path, environment={})
