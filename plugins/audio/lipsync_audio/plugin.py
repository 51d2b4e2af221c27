"""Entry point: the backends of `lipsync_audio`. Imports nothing heavy."""

from __future__ import annotations

from lipsync_core import BackendSpec, hookimpl
from lipsync_core.backends import StageKind


@hookimpl
def lipsync_register_backends() -> list[BackendSpec]:
    """Return the specs of this package."""
    return [
        BackendSpec(
            kind=StageKind.AUDIO,
            name="mouth-shape-numpy",
            summary="Sound to eight mouth-shape numbers a frame, by a very small packaged net; nothing to download",
            factory="lipsync_audio.mouth_shape_numpy:MouthShapeNumpy",
            options="lipsync_audio.mouth_shape_numpy:MouthShapeOptions",
        )
    ]
