"""Writes a built graph as an ONNX file, one constant in memory at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np
from onnx import TensorProto, helper

from lipsync_core.models.graph_torch import MICROSOFT, OPSET, GraphBuilder

DATA_SUFFIX: Final = ".data"
_IR_VERSION: Final = 8  # of the file format, the one that came with opset 18
_INLINE_BYTES: Final = 1 << 28  # above it, apart: a protobuf message ends at 2 GB, and is in memory several times over
_SMALL_BYTES: Final = 1024  # a constant below this stays in the graph: shapes must be known as it is loaded
_ALIGNMENT: Final = 4096  # a page, so that constants can be mapped
_TYPES: Final[dict[type[np.generic], int]] = {
    np.float32: TensorProto.FLOAT,
    np.float16: TensorProto.FLOAT16,
    np.int8: TensorProto.INT8,
    np.int64: TensorProto.INT64,
}


def write_graph(builder: GraphBuilder, file: Path, shared: Sequence[Path] = ()) -> list[Path]:
    """Write a graph into `file`, its constants into `FILE.data` where they are large; return the files written.

    shared: files beside `file`; a constant whose bytes are in one of them is read from there and not written again.
    """
    large = sum(constant.size for constant in builder.constants.values()) > _INLINE_BYTES
    data = file.with_name(file.name + DATA_SUFFIX)
    with ExitStack() as stack:
        store = stack.enter_context(data.open("wb")) if large else None
        held = {path.name: path.read_bytes() for path in shared}
        tensors = [_tensor(builder, name, store, data.name, held) for name in builder.constants]
    graph = helper.make_graph(builder.nodes, builder.name, builder.inputs, builder.outputs, tensors)
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", OPSET), *([helper.make_opsetid(MICROSOFT, 1)] if builder.fused else [])],
        ir_version=_IR_VERSION,
        producer_name="lipsync",
    )
    file.write_bytes(model.SerializeToString())
    return [file, data] if large else [file]


def _tensor(
    builder: GraphBuilder, name: str, store: BinaryIO | None, location: str, held: Mapping[str, bytes]
) -> TensorProto:
    constant = builder.constants[name]
    values = np.ascontiguousarray(constant.make())
    tensor = TensorProto(name=name, data_type=_TYPES[constant.dtype], dims=constant.shape)
    if values.nbytes >= _SMALL_BYTES:
        raw = values.tobytes() if held else b""
        for shared, content in held.items():
            if (place := content.find(raw)) >= 0:
                return _elsewhere(tensor, shared, place, values.nbytes)
    if store is None or values.nbytes < _SMALL_BYTES:
        tensor.raw_data = values.tobytes()
        return tensor
    store.write(b"\0" * (-store.tell() % _ALIGNMENT))
    _elsewhere(tensor, location, store.tell(), values.nbytes)
    store.write(values.data)
    return tensor


def _elsewhere(tensor: TensorProto, location: str, offset: int, length: int) -> TensorProto:
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", offset), ("length", length)):
        tensor.external_data.add(key=key, value=str(value))
    return tensor
