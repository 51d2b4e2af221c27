"""Fixtures every test may use."""

from __future__ import annotations

from pathlib import Path

import pytest

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
