"""Entry point: the backends of `lipsync_face`. Imports nothing heavy."""

from __future__ import annotations

from lipsync_core import BackendSpec, hookimpl


@hookimpl
def lipsync_register_backends() -> list[BackendSpec]:
    """Return the specs of this package."""
    return []
