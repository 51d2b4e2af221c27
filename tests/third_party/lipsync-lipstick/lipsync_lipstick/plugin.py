"""Entry point: what this package offers. It is imported whenever backends are listed, so it imports nothing heavy."""

from importlib.resources import files
from importlib.resources.abc import Traversable

from lipsync_core import BackendSpec, StageKind, hookimpl


@hookimpl
def lipsync_register_backends() -> list[BackendSpec]:
    """Return the backends of this package."""
    return [
        BackendSpec(
            kind=StageKind.AUDIO,
            name="mfcc-kaldi",
            summary="mel-frequency cepstral coefficients around each frame",
            factory="lipsync_lipstick.mfcc_kaldi:MfccKaldi",
            options="lipsync_lipstick.mfcc_kaldi:Options",
            requires=("kaldi_native_fbank",),
            install='pip install "lipsync-lipstick[mfcc]"',
            api=1,
        ),
        BackendSpec(
            kind=StageKind.DENOISER,
            name="lipstick",
            summary="paints the lips, as strongly as the sound is loud",
            factory="lipsync_lipstick.lipstick:Lipstick",
            options="lipsync_lipstick.lipstick:Options",
            api=1,
        ),
    ]


@hookimpl
def lipsync_register_profiles() -> list[Traversable]:
    """Return the profile that uses both."""
    return [files("lipsync_lipstick") / "profiles" / "lipstick.toml"]
