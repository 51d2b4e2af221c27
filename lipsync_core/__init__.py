"""lipsync: make the speaker in a video say new audio.

This module is what a plugin imports, so it stays cheap: the standard library and pluggy only.
The Python entry to dubbing is :func:`lipsync_core.api.dub`.
"""

from lipsync_core.backends import BackendSpec, StageKind
from lipsync_core.hookspecs import hookimpl

__version__ = "0.1.0"

__all__ = ["BackendSpec", "StageKind", "__version__", "hookimpl"]
