"""Model files that mean harm: nothing runs, nothing outside is read, no size that a header claims is believed."""

from __future__ import annotations

import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lipsync_core.errors import LipsyncError, WeightsError
from lipsync_core.memory import peak_rss
from lipsync_core.models import store

MEMBER = "face_detector.tflite"


def task(path: Path, content: bytes, method: int, name: str = MEMBER) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr(name, content)
    return path


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LIPSYNC_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_zip_bomb_is_not_blown_up(tmp_path: Path, cache: Path) -> None:
    bomb = task(tmp_path / "x.task", bytes(300 << 20), zipfile.ZIP_DEFLATED)
    assert bomb.stat().st_size < 400_000
    before = peak_rss()
    with pytest.raises(WeightsError, match="larger than 64 MB"):
        store.unpack(bomb, MEMBER)
    after = peak_rss()
    assert before is None or after is None or after - before < 200 << 20
    assert not cache.exists()


@pytest.mark.parametrize("name", [f"../../{MEMBER}", f"/{MEMBER}", f"a/{MEMBER}"])
def test_members_of_a_zip_make_no_paths(tmp_path: Path, cache: Path, name: str) -> None:
    with pytest.raises(WeightsError, match="holds no"):
        store.unpack(task(tmp_path / "x.task", b"x", zipfile.ZIP_STORED, name), MEMBER)
    assert not cache.exists()


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_damaged_zip_of_every_method(tmp_path: Path, method: int) -> None:
    """What is unpacked has the checksum of what was packed; damage to what says other things may be ignored."""
    content = os.urandom(5000)
    path = task(tmp_path / "x.task", content, method)
    whole, refused = path.read_bytes(), 0
    for first in (30, 60, 1000, len(whole) - 60, len(whole) - 20):
        path.write_bytes(whole[:first] + bytes(b ^ 0xFF for b in whole[first : first + 12]) + whole[first + 12 :])
        try:
            assert store.unpack(path, MEMBER).read_bytes() == content
        except WeightsError:
            refused += 1
    assert refused >= 3


def safetensors(header: object, body: bytes = bytes(16), length: int | None = None) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + body


def tensor(shape: list[int], offsets: list[int]) -> dict[str, object]:
    return {"dtype": "F32", "shape": shape, "data_offsets": offsets}


LYING = {
    "length of the header": safetensors({}, length=1 << 60),
    "negative length": b"\xff" * 8 + b"{}",
    "end of the data": safetensors({"a": tensor([4], [0, 1 << 40])}),
    "shape": safetensors({"a": tensor([1 << 40], [0, 16])}),
    "shape that overflows": safetensors({"a": tensor([1 << 32, 1 << 32], [0, 0])}, b""),
    "two in one place": safetensors({"a": tensor([4], [0, 16]), "b": tensor([4], [0, 16])}),
    "begin after end": safetensors({"a": tensor([4], [16, 0])}),
    "a nesting without end": struct.pack("<Q", 100_000) + b"[" * 100_000,
    "such a nesting in what is kept": safetensors({"__metadata__": {"x": "[" * 100_000}, "a": tensor([4], [0, 16])}),
}


@pytest.mark.parametrize("content", LYING.values(), ids=LYING.keys())
def test_a_safetensors_header_that_lies(tmp_path: Path, content: bytes) -> None:
    pytest.importorskip("torch", reason="needs torch (extra torch)")
    pytest.importorskip("safetensors", reason="needs safetensors (extra torch)")
    from lipsync_core.models.tensors_torch import read_checkpoint

    (tmp_path / "x.safetensors").write_bytes(content)
    with pytest.raises(WeightsError, match="cannot be read as a model file"):
        read_checkpoint(tmp_path / "x.safetensors")


class Runs:
    def __init__(self, call: Callable[..., object], *given: object) -> None:
        self._does = call, given

    def __reduce__(self) -> Any:
        return self._does


def test_pickles_that_would_run_something(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="needs torch (extra torch)")
    pytest.importorskip("safetensors", reason="needs safetensors (extra torch)")
    from lipsync_core.models.tensors_torch import read_checkpoint

    mark = tmp_path / "it ran"
    for does in (Runs(Path.touch, mark), Runs(os.system, f"touch '{mark}'"), Runs(eval, f"open({str(mark)!r}, 'w')")):
        for name in ("x.pt", "x.safetensors", "x.bin"):
            (tmp_path / name).write_bytes(pickle.dumps({"state_dict": {"a": does}}, protocol=2))
            with pytest.raises(WeightsError):
                read_checkpoint(tmp_path / name)
        torch.save({"state_dict": {"a": torch.zeros(1)}, "b": does}, tmp_path / "zipped.pt")
        with pytest.raises(WeightsError):
            read_checkpoint(tmp_path / "zipped.pt")
    assert not mark.exists()


def test_a_pickle_that_lies_about_the_size_of_a_tensor(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="needs torch (extra torch)")
    pytest.importorskip("safetensors", reason="needs safetensors (extra torch)")
    from lipsync_core.models.tensors_torch import read_checkpoint

    torch.save({"a": torch.zeros(4)}, tmp_path / "true.pt")
    four, many = b"K\x04\x85", b"M\xff\x7f\x85"  # a tuple of one number
    with zipfile.ZipFile(tmp_path / "true.pt") as true, zipfile.ZipFile(tmp_path / "lie.pt", "w") as lie:
        for member in true.namelist():
            content = true.read(member)
            assert four in content or not member.endswith("data.pkl")
            lie.writestr(member, content.replace(four, many) if member.endswith("data.pkl") else content)
    with pytest.raises(WeightsError):
        read_checkpoint(tmp_path / "lie.pt")


def onnx_graph(file: Path, location: str, *, offset: int = 0, length: int = 16, size: int = 4) -> None:
    """Write y = w, with w in another file."""
    onnx = pytest.importorskip("onnx", reason="needs onnx (extra export)")
    weight = onnx.TensorProto(
        name="w", data_type=onnx.TensorProto.FLOAT, dims=[size], data_location=onnx.TensorProto.EXTERNAL
    )
    for key, value in (("location", location), ("offset", str(offset)), ("length", str(length))):
        entry = weight.external_data.add()
        entry.key, entry.value = key, value
    y = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [size])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["w"], ["y"])], "g", [], [y], [weight])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)], ir_version=8)
    file.write_bytes(model.SerializeToString())


def open_onnx(folder: Path) -> None:
    pytest.importorskip("onnxruntime", reason="needs onnxruntime (extra onnx)")
    from tests.core.test_models_session_onnx import open_graph, write

    exported = write(folder, (folder / "unet.onnx").read_bytes())
    open_graph(exported).run()


def test_onnx_weights_outside_the_folder_are_not_read(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    (folder / "inner").mkdir(parents=True)
    (tmp_path / "secret").write_bytes(bytes(16))
    (folder / "inside").write_bytes(bytes(16))
    (folder / "link").symlink_to(tmp_path / "secret")
    onnx_graph(folder / "unet.onnx", "inside")
    open_onnx(folder)  # such a graph runs
    for place in ("../secret", str(tmp_path / "secret"), "inner/../../secret", "link"):
        onnx_graph(folder / "unet.onnx", place)
        with pytest.raises(WeightsError, match="External data path"):
            open_onnx(folder)


@pytest.mark.parametrize(
    "lie",
    [
        {"length": 1 << 40, "size": 1 << 38},
        {"offset": 1 << 60},
        {"offset": -16},
        {"length": 8},
        {"offset": 8},
        {"size": -4},
    ],
)
def test_an_onnx_header_that_lies_about_sizes(tmp_path: Path, lie: dict[str, int], capfd: Any) -> None:
    (tmp_path / "data").write_bytes(bytes(16))
    onnx_graph(tmp_path / "unet.onnx", "data", **lie)
    with pytest.raises(LipsyncError, match=r"unet\.onnx"):
        open_onnx(tmp_path)


@pytest.mark.parametrize("content", [b"", b"\xff" * 64, b"\x08\x07:\xff\xff\xff\xff\x0f", b"TFL3" * 20])
def test_a_network_that_is_none(tmp_path: Path, content: bytes) -> None:
    pytest.importorskip("onnxruntime", reason="needs onnxruntime (extra onnx)")
    (tmp_path / "unet.onnx").write_bytes(content)
    with pytest.raises(LipsyncError, match=r"unet\.onnx"):
        open_onnx(tmp_path)
