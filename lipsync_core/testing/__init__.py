"""What a backend must do, as checks: for pytest a contract class for each stage, for the command line the same list.

pytest loads this package for its fixtures whatever it tests, so nothing is imported before it is asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lipsync_core.testing.case import Case, CheckFailed, Result, run_checks
    from lipsync_core.testing.checks import CHECKS
    from lipsync_core.testing.contracts import (
        AudioEncoderContract,
        CompositorContract,
        DenoiserContract,
        FaceAlignerContract,
        MaskerContract,
    )

__all__ = [
    "CHECKS",
    "AudioEncoderContract",
    "Case",
    "CheckFailed",
    "CompositorContract",
    "DenoiserContract",
    "FaceAlignerContract",
    "MaskerContract",
    "Result",
    "run_checks",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = "checks" if name == "CHECKS" else "contracts" if name.endswith("Contract") else "case"
    return getattr(importlib.import_module(f"{__name__}.{module}"), name)
