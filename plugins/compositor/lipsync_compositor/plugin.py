"""Entry point: the backends of `lipsync_compositor`. Imports nothing heavy."""

from __future__ import annotations

from lipsync_core import BackendSpec, hookimpl
from lipsync_core.backends import StageKind


@hookimpl
def lipsync_register_backends() -> list[BackendSpec]:
    """Return the specs of this package."""
    return [
        BackendSpec(
            kind=StageKind.COMPOSITOR,
            name="feather-opencv",
            summary="blends the mouth in with a soft edge; pixels outside the mask stay byte for byte",
            factory="lipsync_compositor.feather_opencv:FeatherOpencv",
            options="lipsync_compositor.feather_opencv:FeatherOptions",
            requires=("cv2",),
            install="pip install lipsync-core",
        ),
        BackendSpec(
            kind=StageKind.COMPOSITOR,
            name="restore-opencv",
            summary="LatentSync's paste-back, or only the mouth of it, frame by frame, without torch",
            factory="lipsync_compositor.restore_opencv:RestoreOpencv",
            options="lipsync_compositor.restore_opencv:RestoreOptions",
            requires=("cv2",),
            install="pip install lipsync-core",
            model_part="paste",
        ),
        BackendSpec(
            kind=StageKind.COMPOSITOR,
            name="restore-torch",
            summary="LatentSync's paste-back, or only the mouth of it, in batches on a GPU or the CPU",
            factory="lipsync_compositor.restore_torch:RestoreTorch",
            options="lipsync_compositor.restore_torch:RestoreOptions",
            requires=("torch",),
            install='pip install "lipsync-core[torch]"',
            model_part="paste",
        ),
    ]
