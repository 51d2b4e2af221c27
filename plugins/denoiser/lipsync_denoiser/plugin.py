"""Entry point: the backends of `lipsync_denoiser`. Imports nothing heavy."""

from __future__ import annotations

from lipsync_core import BackendSpec, hookimpl
from lipsync_core.backends import StageKind


@hookimpl
def lipsync_register_backends() -> list[BackendSpec]:
    """Return the specs of this package."""
    return [
        BackendSpec(
            kind=StageKind.DENOISER,
            name="exemplar-opencv",
            summary="speaks with mouths of the source video itself; no weights, near real time on a CPU",
            factory="lipsync_denoiser.exemplar_opencv:ExemplarOpencv",
            options="lipsync_denoiser.exemplar_opencv:ExemplarOptions",
            requires=("cv2",),
            install="pip install lipsync-core",
        ),
        BackendSpec(
            kind=StageKind.DENOISER,
            name="latentsync-torch",
            summary="LatentSync 1.5 and 1.6 with their published weights, on CUDA, MPS or a CPU",
            factory="lipsync_denoiser.latentsync_torch:LatentSyncTorch",
            options="lipsync_denoiser.latentsync_torch:LatentSyncOptions",
            requires=("torch", "diffusers", "safetensors"),
            install='pip install "lipsync-core[torch]"',
            model_form="weights",
        ),
        BackendSpec(
            kind=StageKind.DENOISER,
            name="latentsync-onnx",
            summary="LatentSync exported to ONNX: on a CPU, CUDA, TensorRT, CoreML, DirectML or OpenVINO without torch",
            factory="lipsync_denoiser.latentsync_onnx:LatentSyncOnnx",
            options="lipsync_denoiser.latentsync_onnx:LatentSyncOnnxOptions",
            requires=("onnxruntime",),
            install='pip install "lipsync-core[onnx]"',
            model_form="onnx",
        ),
    ]
