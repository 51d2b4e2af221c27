"""Fixtures every test may use."""

from __future__ import annotations

import os
from pathlib import Path

import hypothesis
import pytest

# One thread each, before any library starts its own: on two busy cores they would wait for each other.
for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")

# Tests assert results, not times: a busy machine may take as long as it needs.
hypothesis.settings.register_profile("lipsync", deadline=None)
hypothesis.settings.load_profile("lipsync")

SHARED = Path(__file__).resolve().parent.parent.parent / "shared"


def _folder(name: str) -> Path:
    folder = SHARED / name
    if not folder.is_dir():
        pytest.skip(f"needs the folder ../shared/{name} beside the checkout")
    return folder


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real talking-head clips."""
    return _folder("data")


@pytest.fixture(scope="session")
def shared_reference() -> Path:
    """Golden vectors made by running LatentSync."""
    return _folder("reference")
