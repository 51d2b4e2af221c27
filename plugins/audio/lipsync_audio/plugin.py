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
            model_part="mouth-shape",
        ),
        BackendSpec(
            kind=StageKind.AUDIO,
            name="whisper-torch",
            summary="OpenAI Whisper's encoder, all layers, as LatentSync takes it; CUDA, MPS or CPU",
            factory="lipsync_audio.whisper_torch:WhisperTorch",
            options="lipsync_audio.whisper_torch:WhisperOptions",
            requires=("torch", "safetensors"),
            install='pip install "lipsync-core[torch]"',
            model_part="whisper",
        ),
        BackendSpec(
            kind=StageKind.AUDIO,
            name="whisper-onnx",
            summary="OpenAI Whisper's encoder, all layers, exported to ONNX: on a CPU or GPU without torch",
            factory="lipsync_audio.whisper_onnx:WhisperOnnx",
            options="lipsync_audio.whisper_onnx:WhisperOnnxOptions",
            requires=("onnxruntime",),
            install='pip install "lipsync-core[onnx]"',
            model_part="whisper",
        ),
    ]
