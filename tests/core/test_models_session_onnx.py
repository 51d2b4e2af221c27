"""Sessions on graphs of one node: shared, checked, bound, and their errors in words."""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError

ort = pytest.importorskip("onnxruntime", reason="needs onnxruntime (extra onnx)")

from lipsync_core.errors import BackendError, WeightsError  # noqa: E402
from lipsync_core.models import session_onnx  # noqa: E402
from lipsync_core.models.exported import Exported, ExportRecord, Graph, GraphName, Precision  # noqa: E402
from lipsync_core.models.folder import ModelFolder  # noqa: E402
from lipsync_core.models.providers_onnx import _PROBE, CPU, Provider  # noqa: E402
from lipsync_core.models.session_onnx import (  # noqa: E402
    NoMemoryError,
    OnnxOptions,
    Runtime,
    Session,
    usable_cores,
)

NAME = GraphName.UNET
CUDA = Provider("CUDAExecutionProvider")
FREE_AXIS = _PROBE.replace(b"\x02\x08\x01", b"\x02\x12\x00")  # the axis has no name and no length

# A tensor w, float32 [1], in a file that is not there, and y = Identity(w).
_WEIGHT = b"\x08\x01\x10\x01B\x01wj\x15\n\x08location\x12\tno.onnx.dp\x01"
_GRAPH = (
    b'\n\x10\n\x01w\x12\x01y"\x08Identity\x12\x01g*'
    + bytes([len(_WEIGHT)])
    + _WEIGHT
    + b"b\x0f\n\x01y\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01"
)
WEIGHT_ELSEWHERE = b"\x08\x07:" + bytes([len(_GRAPH)]) + _GRAPH + b"B\x04\n\x00\x10\r"


def write(root: Path, content: bytes = FREE_AXIS) -> Exported:
    """A model whose graph is y = x."""
    (root / "unet.onnx").write_bytes(content)
    graph = Graph(file="unet.onnx", sha256="ab" * 32, nodes=1, nodes_before=1, difference=0, scale=1)
    record = ExportRecord(
        format=1,
        model="tiny",
        precision=Precision.FLOAT32,
        resolution=64,
        opset=13,
        versions={},
        sources={},
        graphs={NAME: graph},
    )
    folder: ModelFolder = SimpleNamespace(root=root)  # type: ignore[assignment]
    return Exported(folder, root, record)


def open_graph(exported: Exported, **options: Any) -> Session:
    return Runtime(OnnxOptions(**{"provider": "cpu", "threads": 1} | options)).open(exported, NAME)


def row(*numbers: float) -> NDArray[np.float32]:
    return np.array(numbers, np.float32)


def test_a_graph_runs_at_any_length(tmp_path: Path) -> None:
    session = open_graph(write(tmp_path))
    for length in (3, 1, 5):
        x = np.arange(length, dtype=np.float32)
        x.flags.writeable = False
        (y,) = session.run(x=x)
        assert y.tolist() == x.tolist()
        assert y.flags.writeable
        assert not np.shares_memory(x, y)


def test_what_is_opened_alike_is_shared(tmp_path: Path) -> None:
    exported = write(tmp_path)
    one, two = open_graph(exported), open_graph(exported)
    assert one is two
    assert open_graph(exported, threads=2) is not one
    assert open_graph(exported, provider_options={"arena_extend_strategy": "kSameAsRequested"}) is not one
    before = (tmp_path / "unet.onnx").stat().st_mtime_ns
    os.utime(tmp_path / "unet.onnx", ns=(before + 10**9, before + 10**9))
    assert open_graph(exported) is not one  # exported anew meanwhile


def test_a_session_goes_with_its_last_user(tmp_path: Path) -> None:
    exported = write(tmp_path)
    one, two = open_graph(exported), open_graph(exported)
    inner = one.inner
    count = len(session_onnx._sessions)
    del one
    gc.collect()
    assert len(session_onnx._sessions) == count
    assert open_graph(exported).inner is inner
    del two
    gc.collect()
    assert len(session_onnx._sessions) == count - 1


def test_threads_and_their_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    real = ort.InferenceSession

    def opened(file: Path, settings: Any, **rest: Any) -> Any:
        seen.append(settings)
        return real(file, settings, **rest)

    monkeypatch.setattr(ort, "InferenceSession", opened)
    open_graph(write(tmp_path), threads=3)
    monkeypatch.setattr(session_onnx, "usable_cores", lambda: 5)
    open_graph(write(tmp_path), threads=0)
    assert [settings.intra_op_num_threads for settings in seen] == [3, 5]
    assert {settings.get_session_config_entry("session.intra_op.allow_spinning") for settings in seen} == {"0"}


@pytest.mark.parametrize(
    ("flags", "asked"), [("fma avx2", "1"), ("avx2 avx_vnni", "0"), ("avx2 avx512_vnni amx_int8", "0"), (None, "1")]
)
def test_slower_exact_products_only_where_others_overflow(
    flags: str | None, asked: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "cpuinfo"
    if flags is not None:
        file.write_text(f"processor\t: 0\nflags\t\t: {flags}\nbugs\t\t:\n", encoding="ascii")
    monkeypatch.setattr(session_onnx, "_CPU_INFO", file)
    monkeypatch.setattr(session_onnx, "_has_vnni", session_onnx._has_vnni.__wrapped__)
    settings = ort.SessionOptions()
    session_onnx.quantise_exactly(settings)
    assert settings.get_session_config_entry("session.x64quantprecision") == asked


@pytest.mark.parametrize("weight", [-127, 127])
def test_products_of_8_bit_numbers_are_exact_here(weight: int) -> None:
    """At the ends of their range sums of two such products leave 16 bits."""
    onnx = pytest.importorskip("onnx")
    make, kinds = onnx.helper, onnx.TensorProto
    weights = np.full((640, 48), weight, np.int8)
    graph = make.make_graph(
        [make.make_node("MatMulInteger", ["x", "w"], ["y"])],
        "product",
        [make.make_tensor_value_info("x", kinds.UINT8, [None, 640])],
        [make.make_tensor_value_info("y", kinds.INT32, [None, 48])],
        [onnx.numpy_helper.from_array(weights, "w")],
    )
    model = make.make_model(graph, opset_imports=[make.make_opsetid("", 18)], ir_version=8)
    settings = ort.SessionOptions()
    session_onnx.quantise_exactly(settings)
    session = ort.InferenceSession(model.SerializeToString(), settings, providers=["CPUExecutionProvider"])
    (got,) = session.run(None, {"x": np.full((17, 640), 255, np.uint8)})
    assert (got == 255 * weight * 640).all()


def test_cores() -> None:
    assert 0 <= usable_cores() <= (os.cpu_count() or 1)


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="only Linux tells")
def test_cores_are_those_this_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0})
    assert usable_cores.__wrapped__() == 1


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")
@pytest.mark.parametrize(("siblings", "count"), [(["0-1", "0-1"], 2), (["0-1", "0-1", "2-3", "2-3", "4-5", "4-5"], 3)])
def test_two_threads_share_a_core_only_where_there_is_one(
    siblings: list[str], count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(len(siblings))))
    monkeypatch.setattr(Path, "is_file", lambda path: True)
    monkeypatch.setattr(Path, "read_text", lambda path, encoding: siblings[int(path.parts[5].removeprefix("cpu"))])
    assert usable_cores.__wrapped__() == count


def test_a_binding_sees_new_content_and_keeps_the_rest(tmp_path: Path) -> None:
    out = row(0, 0)
    binding = open_graph(write(tmp_path)).bind("y", out)
    x = row(1, 2)
    binding.put("x", x)
    assert binding.run() is out
    assert out.tolist() == [1, 2]
    x[:] = 5, 6
    binding.put("x", x)
    assert binding.run().tolist() == [5, 6]
    assert binding.run().tolist() == [5, 6]
    apart = np.arange(4, dtype=np.float32)[::2]
    apart.flags.writeable = False
    binding.put("x", apart)
    assert binding.run().tolist() == [0, 2]
    assert x.tolist() == [5, 6]  # what was bound before is not written to


class FakeDevice:
    """Memory on a device, for `ort.OrtValue`."""

    def __init__(self) -> None:
        self.made: list[tuple[Any, ...]] = []
        self.updated: list[list[float]] = []

    def ortvalue_from_numpy(self, array: NDArray[np.float32], *device: Any) -> Any:
        self.made.append(device)
        return SimpleNamespace(update_inplace=lambda new: self.updated.append(new.tolist()))


def test_on_a_device_the_same_memory_is_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    device, bound = FakeDevice(), []
    monkeypatch.setattr(ort, "OrtValue", device)
    inner = SimpleNamespace(
        io_binding=lambda: SimpleNamespace(
            bind_ortvalue_output=lambda name, value: None,
            bind_ortvalue_input=lambda name, value: bound.append((name, value)),
        )
    )
    session = Session(Path("unet.onnx"), inner, Provider(CUDA.name, (("device_id", "1"),)))
    binding = session.bind("y", row(0))
    binding.put("x", row(1))
    binding.put("x", row(2))
    assert device.made == [(), ("cuda", 1)]  # the output in main memory, the input on the device
    assert device.updated == [[2]]
    assert bound[0] == bound[1]


def test_a_damaged_file_is_named_and_nothing_is_printed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(WeightsError, match=r"unet\.onnx cannot be loaded: .*[^.]\.$") as caught:
        open_graph(write(tmp_path, b"no graph"))
    assert caught.value.cure == "Delete its folder and export again."
    with pytest.raises(BackendError, match=r"cannot load .*unet\.onnx for CPUExecutionProvider"):
        open_graph(write(tmp_path, FREE_AXIS.replace(b"Identity", b"Idontity")))
    with pytest.raises(WeightsError, match=r"unet\.onnx cannot be loaded: External data"):
        open_graph(write(tmp_path, WEIGHT_ELSEWHERE))
    with pytest.raises(WeightsError, match="lacks the graph whisper"):
        Runtime(OnnxOptions(provider="cpu")).open(write(tmp_path), GraphName.WHISPER)
    assert capfd.readouterr() == ("", "")


def test_a_run_that_fails_is_named_and_nothing_is_printed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    session = open_graph(write(tmp_path))
    with pytest.raises(BackendError, match=r"failed at unet\.onnx on CPUExecutionProvider: .*rank"):
        session.run(x=np.zeros((2, 2), np.float32))
    with pytest.raises(BackendError, match="failed at"):
        session.bind("y", row(0)).run()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("Failed to allocate memory for requested buffer of size 123"),
        RuntimeError("std::bad_alloc"),
        RuntimeError("CUDA failure 2: out of memory ; GPU=0"),
        RuntimeError("Exception(1) tid(5) 8007000E Not enough memory resources are available."),
    ],
)
def test_running_out_of_memory_has_its_own_kind(error: Exception, tmp_path: Path) -> None:
    def fail(*_: object) -> None:
        raise error

    session = Session(tmp_path / "unet.onnx", SimpleNamespace(run=fail), CUDA)
    with pytest.raises(NoMemoryError, match=r"unet\.onnx ran out of memory on CUDAExecutionProvider"):
        session.run(x=row(1))


def test_a_session_that_falls_to_the_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The provider started for the probe, and then did not take the model's own graph."""
    real = ort.InferenceSession

    def opened(model: Any, settings: Any, *, providers: Any, enable_fallback: int) -> Any:
        if isinstance(model, bytes):
            return SimpleNamespace(get_providers=lambda: [name for name, _ in providers])
        return real(model, settings, providers=[providers[-1]], enable_fallback=enable_fallback)

    monkeypatch.setattr(ort, "InferenceSession", opened)
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["MIGraphXExecutionProvider", "CPUExecutionProvider"])
    exported = write(tmp_path)
    with pytest.raises(BackendError, match=r"MIGraphXExecutionProvider here: it did not take unet\.onnx"):
        open_graph(exported, provider="MIGraphXExecutionProvider")
    session = open_graph(exported, provider="MIGraphXExecutionProvider", allow_cpu_fallback=True)
    assert "The CPU is used" in caplog.text
    assert session.run(x=row(1))[0] == [1]


@pytest.mark.parametrize("fused", [False, True])
def test_the_shapes_of_a_whole_graph_are_passed_on(
    fused: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With onnxruntime's own operators among the others it comes to TensorRT in pieces, with inputs of other names."""
    seen: list[Any] = []
    real = Provider.chain

    def chain(provider: Provider, *rest: Any, shapes: Any = None, **more: Any) -> Any:
        seen.append(shapes)
        return real(provider, *rest, shapes=shapes, **more)

    monkeypatch.setattr(Provider, "chain", chain)
    exported = write(tmp_path)
    graph = exported.record.graphs[NAME].model_copy(update={"inputs": {"x": ("n", 4)}, "lengths": {"n": (1, 6)}})
    exported.record = exported.record.model_copy(update={"graphs": {NAME: graph}, "fused": fused})
    open_graph(exported)
    assert seen[-1] == (None if fused else ({"x": (1, 4)}, {"x": (6, 4)}))


@pytest.mark.parametrize(
    ("option", "provider", "first"),
    [("auto", CPU, "float32"), ("auto", CUDA, "float16"), ("int8", CPU, "int8"), ("float16", CPU, "float16")],
)
def test_the_precision_follows_the_provider(
    option: Any, provider: Provider, first: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_onnx, "pick_provider", lambda *_, **__: provider)
    precisions = Runtime(OnnxOptions(precision=option)).precisions
    assert precisions[0] == first
    assert len(precisions) == (3 if option == "auto" else 1)


@pytest.mark.parametrize(
    "wrong", [{"threads": -1}, {"precision": "float64"}, {"provider_options": {"a": [1]}}, {"x": 1}]
)
def test_wrong_options_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        OnnxOptions.model_validate(wrong)


def test_a_number_among_a_providers_settings_is_text() -> None:
    assert OnnxOptions.model_validate({"provider_options": {"device_id": 1}}).provider_options == {"device_id": "1"}
