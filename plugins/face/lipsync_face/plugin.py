"""Entry point: the backends of `lipsync_face`. Imports nothing heavy."""

from __future__ import annotations

from lipsync_core import BackendSpec, StageKind, hookimpl


@hookimpl
def lipsync_register_backends() -> list[BackendSpec]:
    """Return the specs of this package."""
    return [
        BackendSpec(
            kind=StageKind.ALIGNER,
            name="facemesh-opencv",
            summary="MediaPipe's face mesh followed through each shot, run by OpenCV on the CPU",
            factory="lipsync_face.facemesh_opencv:FaceMeshAligner",
            options="lipsync_face.facemesh_opencv:FaceMeshOptions",
            requires=("cv2",),
            install="pip install lipsync-core",
        ),
        BackendSpec(
            kind=StageKind.ALIGNER,
            name="insightface-onnx",
            summary="InsightFace's detector and 106 points, as LatentSync aligns; models for non-commercial use only",
            factory="lipsync_face.insightface_onnx:InsightFaceAligner",
            options="lipsync_face.insightface_onnx:InsightFaceOptions",
            requires=("insightface",),
            install='pip install "lipsync-core[insightface]"',
        ),
        BackendSpec(
            kind=StageKind.MASKER,
            name="mouth-mask",
            summary="the lower face of each frame, from its landmarks",
            factory="lipsync_face.mouth_mask:MouthMasker",
            options="lipsync_face.mouth_mask:MouthMaskOptions",
            requires=("cv2",),
            install="pip install lipsync-core",
        ),
        BackendSpec(
            kind=StageKind.MASKER,
            name="fixed-mask",
            summary="LatentSync's one mask for every crop; for the crop geometry latentsync",
            factory="lipsync_face.fixed_mask:FixedMasker",
            options="lipsync_face.fixed_mask:FixedMaskOptions",
            requires=("cv2",),
            install="pip install lipsync-core",
        ),
    ]
