"""What `lipsync doctor` says of ONNX Runtime."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from lipsync_core import diagnosis
from lipsync_core.diagnosis import Finding


def findings() -> list[Finding]:
    return [
        finding for finding in diagnosis._runtimes() if "onnxruntime" in finding.text or finding.topic == "providers"
    ]


def install(root: Path, monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Put distributions that bring the module `onnxruntime` on the path, as pip leaves them."""
    for name in names:
        info = root / f"{name.replace('-', '_')}-1.2.3.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2.3\n")
        (info / "top_level.txt").write_text("onnxruntime\n")
    monkeypatch.setattr(sys, "path", [str(root)])


def test_two_wheels_at_once_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "torch" else name)
    install(tmp_path, monkeypatch, "onnxruntime", "onnxruntime-gpu")
    versions, both = findings()[:2]
    assert versions.text == "onnxruntime (onnxruntime 1.2.3), (onnxruntime-gpu 1.2.3)"
    assert not both.good
    assert "run `pip uninstall -y onnxruntime onnxruntime-gpu`, then install one" in both.text


def test_one_wheel_is_as_it_should_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "torch" else name)
    install(tmp_path, monkeypatch, "onnxruntime-gpu")
    assert findings()[0] == Finding(True, "runtime", "onnxruntime (onnxruntime-gpu 1.2.3)")
    assert not [finding for finding in findings() if "each other" in finding.text]


def test_a_wheel_that_does_not_import(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    monkeypatch.setitem(sys.modules, "lipsync_core.models.providers_onnx", None)
    monkeypatch.delattr("lipsync_core.models.providers_onnx", raising=False)
    last = findings()[-1]
    assert not last.good
    assert last.text.startswith("onnxruntime cannot be imported: ")


def test_providers_are_listed_and_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime", reason="needs onnxruntime (extra onnx)")
    from lipsync_core.models import providers_onnx

    monkeypatch.setattr(providers_onnx, "available", lambda: ["tensorrt", "cuda", "cpu"])
    monkeypatch.setattr(providers_onnx, "tried", lambda: iter([("cuda", "libcublas is missing"), ("openvino", "")]))
    assert findings()[-3:] == [
        Finding(True, "providers", "onnxruntime is built for tensorrt, cuda, cpu"),
        Finding(False, "providers", "cuda cannot be started: libcublas is missing"),
        Finding(True, "providers", "openvino starts"),
    ]


def test_help_imports_no_onnxruntime() -> None:
    code = (
        "import sys; sys.argv = ['lipsync', 'doctor', '--help']\n"
        "from lipsync_core.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "assert 'onnxruntime' not in sys.modules and 'cv2' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_only_a_weight_that_is_needed_is_missed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIPSYNC_CACHE", str(tmp_path))
    monkeypatch.setattr("lipsync_core.models.manifest.WheelSource.find", lambda source: None)
    said = {finding.text.split(",")[0]: finding for finding in diagnosis._weights()}
    assert not said["MediaPipe Face Landmarker"].good
    assert said["Silero VAD 6.2.3"].good
    assert "missing" in said["Silero VAD 6.2.3"].text
    assert "pip install --no-deps silero-vad" in said["Silero VAD 6.2.3"].text


def test_models_are_here_or_how_to_get_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIPSYNC_CACHE", str(tmp_path))
    monkeypatch.delenv("LIPSYNC_MODELS", raising=False)
    said = {finding.text.split(",")[0]: finding for finding in diagnosis._models()}
    assert "lipsync models pull latentsync-1.6" in said["LatentSync 1.6"].text
    assert all(finding.good for finding in said.values())
