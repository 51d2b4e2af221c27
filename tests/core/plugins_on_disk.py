"""Plugins made for a test: a real distribution folder with metadata, found through a real `EntryPoint`."""

from __future__ import annotations

import sys
from importlib.metadata import Distribution, EntryPoint
from pathlib import Path
from textwrap import dedent


def install(folder: Path, distribution: str, module: str, source: str) -> EntryPoint:
    """Write `module` and a dist-info into `folder` (which must be on `sys.path`) and return its entry point."""
    (folder / f"{module}.py").write_text(dedent(source))
    info = folder / f"{distribution.replace('-', '_')}-1.5.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.5\n")
    (info / "entry_points.txt").write_text(f"[lipsync]\n{module} = {module}\n")
    sys.modules.pop(module, None)
    (point,) = Distribution.at(info).entry_points
    return point


GOOD = """
    from pydantic import BaseModel, ConfigDict, Field
    from lipsync_core import BackendSpec, StageKind, hookimpl

    class Options(BaseModel):
        model_config = ConfigDict(extra="forbid", frozen=True)
        gain_db: float = Field(0.0, ge=-20, le=20, description="Gain in dB")
        mode: str = Field("soft", description="How")

    class Backend:
        def __init__(self, options):
            self.options = options

    @hookimpl
    def lipsync_register_backends():
        return [BackendSpec(StageKind.MASKER, "{name}", "A test masker", "{module}:Backend", "{module}:Options")]
"""


def good(folder: Path, distribution: str, module: str, name: str) -> EntryPoint:
    """Install a working masker."""
    return install(folder, distribution, module, GOOD.format(name=name, module=module))
