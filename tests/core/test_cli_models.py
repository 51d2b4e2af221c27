"""`lipsync models`: what it prints, its exit codes, and that no command but `pull` goes online."""

from __future__ import annotations

import hashlib
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from lipsync_core.cli import main
from lipsync_core.models import known, manifest
from lipsync_core.models.manifest import HubFile, KnownModel


@pytest.fixture
def lipsync(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Any:
    monkeypatch.setenv("LIPSYNC_CACHE", str(tmp_path / "cache"))
    for variable in ("LIPSYNC_DEBUG", "LIPSYNC_MODELS"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.chdir(tmp_path)

    def no_network(*args: object) -> None:
        raise AssertionError("this command must not download")

    monkeypatch.setattr(known, "_fetch", no_network)

    def run(*words: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["lipsync", "models", *map(str, words)])
        with pytest.raises(SystemExit) as stop:
            main()
        out, err = capsys.readouterr()
        return int(stop.value.code or 0), out, err

    return run


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = {"file": "a.onnx", "repository": "someone/toy", "path": "a.onnx", "revision": "main"}
    file = HubFile.model_validate(facts | {"size": 5, "sha256": hashlib.sha256(b"hello").hexdigest()})
    model = KnownModel(name="toy", title="A toy", licence="CC0-1.0", files=(file,))
    monkeypatch.setattr(manifest, "models", lambda: {"toy": model})


def place(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "cache" / "models" / "toy" / "a.onnx"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_list_shows_every_model_with_size_and_licence(lipsync: Any) -> None:
    code, out, _ = lipsync("list")
    assert code == 0
    for name, licence in (
        ("latentsync-1.6", "OpenRAIL++"),
        ("latentsync-1.5", "OpenRAIL++"),
        ("insightface-buffalo-l", "non-commercial"),
        ("face-landmarker", "Apache-2.0"),
    ):
        (line,) = [line for line in out.splitlines() if line.startswith(name)]
        assert licence in line
        assert " MB " in line
    assert "missing    5482.4 MB" in out
    assert "lipsync models pull latentsync-1.6" in out


def test_list_and_path_say_where_a_model_is(lipsync: Any, toy: None, tmp_path: Path) -> None:
    code, out, err = lipsync("path", "toy")
    assert (code, out) == (2, "")
    assert "lipsync models pull toy" in err
    assert err.count("\n") == 1
    file = place(tmp_path, b"hello")
    assert lipsync("path", "toy")[:2] == (0, f"{file.parent}\n")
    assert f"present       0.0 MB  CC0-1.0\n{'':<23}{file.parent}" in lipsync("list")[1]


def test_verify_tells_good_from_damaged(lipsync: Any, toy: None, tmp_path: Path) -> None:
    place(tmp_path, b"hello")
    code, out, err = lipsync("verify", "toy")
    assert (code, out, err) == (0, "toy/a.onnx: good\n", "")
    place(tmp_path, b"jello")
    for words in (("verify", "toy"), ("verify",)):
        code, out, err = lipsync(*words)
        assert code == 2
        assert "toy/a.onnx: damaged\n" in out
        assert "lipsync models pull toy" in err


def test_verify_without_a_name_skips_what_is_not_here(lipsync: Any, toy: None) -> None:
    code, out, _ = lipsync("verify")
    assert code == 0
    assert "toy" not in out
    assert lipsync("verify", "toy")[0] == 2


def test_pull_fetches_what_is_missing_and_prints_the_place(
    lipsync: Any, toy: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetch(source: HubFile, target: Path, cure: str) -> None:
        place(tmp_path, b"hello")

    monkeypatch.setattr(known, "_fetch", fetch)
    code, out, _ = lipsync("pull", "toy")
    assert (code, out) == (0, f"{tmp_path / 'cache' / 'models' / 'toy'}\n")


NEEDS_TORCH = pytest.mark.skipif(
    not (find_spec("torch") and find_spec("safetensors")), reason="converting needs the extra torch"
)


@pytest.mark.parametrize(
    "words",
    [("pull", "toi"), ("path", "../toy"), ("verify", "/etc"), pytest.param(("convert", "toi"), marks=NEEDS_TORCH)],
)
def test_an_unknown_name_is_one_line(lipsync: Any, toy: None, words: tuple[str, ...]) -> None:
    code, out, err = lipsync(*words)
    assert (code, out) == (2, "")
    assert words[1] in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("words", [("convert", "x"), ("tiny", "x")])
def test_without_torch_the_cure_is_the_extra(
    lipsync: Any, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    code, _, err = lipsync(*words)
    assert code == 2
    assert 'pip install "lipsync-core[torch]"' in err


def test_tiny_then_convert_then_every_part_is_readable(lipsync: Any, tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="needs the extra torch")
    pytest.importorskip("diffusers", reason="needs the extra torch")
    from lipsync_core.models.folder import ModelFolder
    from lipsync_core.models.tensors_torch import read_tensors

    assert lipsync("tiny", "model", "--seed", "5")[:2] == (0, "model\n")
    before = ModelFolder.open(tmp_path / "model")
    pickled = {part: read_tensors(before.path(getattr(before.config, part).weights)) for part in ("audio", "unet")}
    code, out, _ = lipsync("convert", "model")
    assert code == 0
    assert "latentsync_unet.safetensors replaces latentsync_unet.pt" in out
    after = ModelFolder.open(tmp_path / "model")
    for part, old in pickled.items():
        new = read_tensors(after.path(getattr(after.config, part).weights))
        assert new.keys() == old.keys()
        assert all(bool((new[key] == old[key]).all()) for key in old)
    assert lipsync("convert", "model")[1].startswith("nothing to convert")
    assert lipsync("tiny", "model")[0] == 2
