"""`lipsync export`: what it prints, its exit codes, and that its export runs."""

from __future__ import annotations

import re
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from lipsync_core.cli import main


@pytest.fixture
def lipsync(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Any:
    monkeypatch.setenv("LIPSYNC_CACHE", str(tmp_path / "cache"))
    for variable in ("LIPSYNC_DEBUG", "LIPSYNC_MODELS"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["lipsync", *words])
        with pytest.raises(SystemExit) as stop:
            main()
        out, err = capsys.readouterr()
        return int(stop.value.code or 0), out, err

    return run


@pytest.fixture
def needs() -> None:
    for module in ("torch", "diffusers", "safetensors", "onnx", "onnxruntime"):
        pytest.importorskip(module, reason=f"exporting needs {module} (extra export)")
    import torch

    torch.set_num_threads(1)


LINE = re.compile(r"(\w+) +(\d+) → (\d+) nodes, (\d+\.\d) MB, off by at most (\S+) where values are about (\S+)")


def test_export_says_what_each_graph_became_and_where(lipsync: Any, needs: None) -> None:
    assert lipsync("models", "tiny", "model")[0] == 0
    code, out, err = lipsync("export", "model", "-o", "new", "--resolution", "128")
    assert (code, err) == (0, "")
    *lines, place = out.splitlines()
    assert place == str(Path("new", "onnx", "float32"))
    found = [match.groups() for line in lines if (match := LINE.fullmatch(line))]
    assert [name for name, *_ in found] == ["whisper", "vae_encoder", "vae_decoder", "unet"]
    for _, before, after, size, difference, scale in found:
        assert int(after) < int(before)
        assert float(size) > 0.2
        assert float(difference) < 1e-4 < float(scale)
    assert Path("new", "model.json").is_file()
    assert not Path("model", "onnx").exists()

    code, out, err = lipsync("export", "model", "-o", "new", "--resolution", "128")
    assert (code, out) == (2, "")
    assert "--overwrite" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("nowhere",), "neither a known model nor a folder"),
        ((".",), "holds no model.json"),
        ((".", "--precision", "bfloat16"), "Use one of: float32, float16, int8."),
    ],
)
def test_a_wrong_word_is_one_line(lipsync: Any, needs: None, words: tuple[str, ...], said: str) -> None:
    code, out, err = lipsync("export", *words)
    assert (code, out) == (2, "")
    assert said in err
    assert err.count("\n") == 1


def test_an_interrupted_export_leaves_nothing(lipsync: Any, needs: None, monkeypatch: pytest.MonkeyPatch) -> None:
    from lipsync_core.models import export_torch

    def interrupted(*words: object) -> None:
        raise KeyboardInterrupt

    assert lipsync("models", "tiny", "model")[0] == 0
    monkeypatch.setattr(export_torch, "_compare", interrupted)
    handler = signal.getsignal(signal.SIGTERM)
    try:
        assert lipsync("export", "model", "-o", "new") == (130, "", "lipsync: interrupted.\n")
        assert signal.getsignal(signal.SIGTERM) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGTERM, handler)
    assert [path.name for path in Path().iterdir() if path.name != "cache"] == ["model"]


def test_without_torch_the_cure_is_the_extra(lipsync: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    code, _, err = lipsync("export", "model")
    assert code == 2
    assert "Exporting needs torch" in err
    assert 'pip install "lipsync-core[export]"' in err
