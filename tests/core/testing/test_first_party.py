"""Every backend of this distribution passes the contract of its stage; the large ones with tiny weights."""

# ruff: noqa: RUF012 - written as the author of a plugin writes it

from __future__ import annotations

import pytest

from lipsync_core.backends import StageKind
from lipsync_core.errors import WeightsError
from lipsync_core.models import store
from lipsync_core.registry import State, discover
from lipsync_core.testing import (
    AudioEncoderContract,
    CompositorContract,
    DenoiserContract,
    FaceAlignerContract,
    MaskerContract,
)
from lipsync_core.testing.contracts import Contract


@pytest.fixture(autouse=True)
def here(request: pytest.FixtureRequest) -> None:
    """Skip where an extra of the backend is not installed."""
    if not issubclass(request.cls or object, Contract):
        return
    contract = request.cls
    (entry,) = [e for e in discover().entries if (e.spec.kind, e.spec.name) == (contract.kind, contract.backend)]
    if entry.state is State.MISSING:
        pytest.skip(entry.detail)


class TestMouthShapeNumpy(AudioEncoderContract):
    backend = "mouth-shape-numpy"


class TestMouthShapeNumpyHidden(AudioEncoderContract):
    backend = "mouth-shape-numpy"
    options = {"hidden": True}


class TestWhisperTorch(AudioEncoderContract):
    backend = "whisper-torch"
    options = {"device": "cpu"}
    option_fixtures = {"model": "lipsync_tiny_model"}


class TestWhisperOnnx(AudioEncoderContract):
    backend = "whisper-onnx"
    option_fixtures = {"model": "exported_tiny"}


@pytest.mark.facemodel
class TestFaceMeshOpencv(FaceAlignerContract):
    backend = "facemesh-opencv"

    @pytest.fixture(autouse=True)
    def model(self) -> None:
        try:
            store.locate("face-landmarker", download=False)
        except WeightsError as error:
            pytest.skip(str(error))


class TestFixedMask(MaskerContract):
    backend = "fixed-mask"


class TestMouthMask(MaskerContract):
    backend = "mouth-mask"


class TestExemplarOpencv(DenoiserContract):
    backend = "exemplar-opencv"


class TestLatentSyncTorch(DenoiserContract):
    backend = "latentsync-torch"
    options = {"device": "cpu", "steps": 1, "vae": "mean"}
    option_fixtures = {"model": "lipsync_tiny_model"}


class TestLatentSyncOnnx(DenoiserContract):
    backend = "latentsync-onnx"
    options = {"steps": 1}
    option_fixtures = {"model": "exported_tiny"}


class TestFeatherOpencv(CompositorContract):
    backend = "feather-opencv"


class TestRestoreOpencv(CompositorContract):
    backend = "restore-opencv"


class TestRestoreTorch(CompositorContract):
    backend = "restore-torch"
    reference = "restore-opencv"
    tolerance = 2  # levels of 255


def test_no_backend_is_left_out() -> None:
    tested = {(c.kind, c.backend) for c in vars_of_contracts()}
    without_models = {(StageKind.ALIGNER, "insightface-onnx")}  # its models may not be passed on, nor be made small
    assert tested | without_models == {(e.spec.kind, e.spec.name) for e in discover().entries}


def vars_of_contracts() -> list[type[Contract]]:
    return [c for c in globals().values() if isinstance(c, type) and issubclass(c, Contract) and hasattr(c, "backend")]
