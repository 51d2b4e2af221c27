"""Builds an ONNX graph layer by layer from PyTorch layers.

Built, not traced: tracing LatentSync's U-Net with two lengths left open takes minutes even at tiny dimensions, and the
operators are then whatever came out. Here each layer becomes the operators that runtimes are fast at, the axes that are
open stay open, and a constant is made when it is written, so that no second copy of the weights is in memory.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import product
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, ValueInfoProto, helper
from torch import Tensor, nn

from lipsync_core.models.exported import GraphName, Precision

# The newest that CUDA has all kernels for in every onnxruntime this project takes. A node whose operator is newer than
# its kernel runs on the CPU, with copies there and back: Resize from opset 19 up to onnxruntime 1.24
# (microsoft/onnxruntime#27415), Pad from 19 (#26393), Shape from 21 (#26065). DirectML ends at opset 20.
OPSET: Final = 18
MICROSOFT: Final = "com.microsoft"  # onnxruntime's own operators; CPU, CUDA and DirectML have those used here
_INT8_MAX: Final = 127
_SMALLEST_PEAK: Final = 1e-12  # of a column of weights, so that one of zeros has a scale too

Dim = int | str
Shaper = Callable[[str], str]


@dataclass(frozen=True, slots=True)
class GraphSource:
    """One network that can be written as a graph.

    emit: adds it to a builder, inputs and outputs as `GraphName` has them. run: the network itself in float32, called
    with inputs by name, returns the outputs in order. inputs: random ones to compare the two on. lengths: the least and
    the most that the backends ask for of each open axis.
    """

    name: GraphName
    emit: Callable[[GraphBuilder], None]
    run: Callable[..., Sequence[Tensor]]
    inputs: dict[str, Tensor]
    lengths: dict[str, tuple[int, int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Constant:
    """A constant of the graph; `make` returns its values when they are written."""

    dtype: type[np.generic]
    shape: tuple[int, ...]
    make: Callable[[], NDArray[Any]]

    @property
    def size(self) -> int:
        """Bytes it takes."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


class GraphBuilder:
    """Collects the nodes and constants of one graph. A value is its name; "rows" are values [R, width].

    fused: use onnxruntime's own operators and fold scales into weights; otherwise standard operators, one for one.
    shared: keep weights as a float16 file holds them, so that the graph can take them from there; the runtime makes
    them float32, and folds what is to be folded, as it loads. For graphs in float32.
    """

    def __init__(self, name: str, precision: Precision, *, fused: bool, shared: bool = False) -> None:
        self.name = name
        self.precision = precision
        self.fused = fused
        self.shared = shared
        self.nodes: list[NodeProto] = []
        self.inputs: list[ValueInfoProto] = []
        self.outputs: list[ValueInfoProto] = []
        self.constants: dict[str, Constant] = {}
        self._half = precision is Precision.FLOAT16
        self._dtype: type[np.generic] = np.float16 if self._half else np.float32
        self._scopes: list[str] = []
        self._used: Counter[str] = Counter()
        self._known: dict[tuple[object, ...], Any] = {}

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """Name what is added inside after the layer it belongs to."""
        self._scopes.append(name)
        try:
            yield
        finally:
            self._scopes.pop()

    # Ends, nodes and constants

    def input(self, name: str, shape: Sequence[Dim]) -> str:
        """Declare an input, float32; a name in the shape is an open length."""
        self.inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape)))
        return name

    def output(self, name: str, value: str, shape: Sequence[Dim]) -> None:
        """Declare a float32 value as an output."""
        self.outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape)))
        self.nodes.append(helper.make_node("Identity", [value], [name], name=f"{name}.Identity"))

    @property
    def shapes(self) -> tuple[dict[str, tuple[Dim, ...]], dict[str, tuple[Dim, ...]]]:
        """Shapes of the inputs and of the outputs."""
        inputs, outputs = ({value.name: _dims(value) for value in values} for values in (self.inputs, self.outputs))
        return inputs, outputs

    def to_own(self, value: str) -> str:
        """Bring a float32 value to the precision the graph computes in."""
        return self.add("Cast", value, to=TensorProto.FLOAT16) if self._half else value

    def to_single(self, value: str) -> str:
        """Bring a value of the graph's precision to float32."""
        return self.add("Cast", value, to=TensorProto.FLOAT) if self._half else value

    def add(self, kind: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        """Add a node with one output and return it."""
        name = self._unique(kind)
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name=name, domain=domain, **attributes))
        return name

    def add_many(
        self, kind: str, outputs: Sequence[str], *inputs: str, domain: str = "", **attributes: Any
    ) -> list[str]:
        """Add a node and return its outputs, called after it; an empty name is an output nobody wants."""
        name = self._unique(kind)
        names = [output and f"{name}.{output}" for output in outputs]
        self.nodes.append(helper.make_node(kind, list(inputs), names, name=name, domain=domain, **attributes))
        return [name for name in names if name]

    def weight(self, tensor: Tensor, name: str = "weight") -> str:
        """Add a tensor in the precision of the graph."""
        if self.shared:
            half = self._constant(name, np.float16, tensor.shape, lambda: _array(tensor).astype(np.float16))
            return self.add("Cast", half, to=TensorProto.FLOAT)
        return self._constant(name, self._dtype, tensor.shape, lambda: _array(tensor).astype(self._dtype))

    def single(self, values: Tensor | float | Sequence[float]) -> str:
        """Add numbers in float32, whatever the graph's precision."""
        tensor = torch.as_tensor(values)
        return self._constant("values", np.float32, tensor.shape, lambda: _array(tensor))

    def ints(self, *values: int) -> str:
        """Return whole numbers, int64 [n]."""
        array = np.array(values, np.int64)
        return str(self._once(("ints", values), lambda: self._constant("ints", np.int64, array.shape, lambda: array)))

    # Shapes

    def shape(self, *dims: Dim) -> str:
        """Return a shape, int64; a string is an int64 [1] value."""
        if all(isinstance(dim, int) for dim in dims):
            return self.ints(*(int(dim) for dim in dims))
        parts = [dim if isinstance(dim, str) else self.ints(dim) for dim in dims]
        return str(self._once(("shape", dims), lambda: self.add("Concat", *parts, axis=0)))

    def reshape(self, value: str, *dims: Dim) -> str:
        """View a value in another shape, see `shape`; 0 keeps a length, −1 is what is left."""
        return self.add("Reshape", value, self.shape(*dims))

    def resize(self, x: str, side: int, wanted: int) -> str:
        """Bring pictures [N, C, side, side] to another size, each pixel the nearest one's value."""
        how: dict[str, Any] = {"mode": "nearest", "nearest_mode": "floor"}
        how["coordinate_transformation_mode"] = "asymmetric"
        if wanted == 2 * side:  # what runtimes have a fast way for
            target = [self._once(("twice",), lambda: self.single([1.0, 1.0, 2.0, 2.0]))]
        else:
            target = ["", self.ints(wanted, wanted)]
            how["axes"] = [2, 3]
        return self.add("Resize", x, "", *target, **how)

    # Layers

    def linear(self, rows: str, layer: nn.Linear, *, exact: bool = False) -> str:
        """Apply a layer to rows; see `product`."""
        return self.product(rows, layer.weight, layer.bias, exact=exact)

    def product(self, rows: str, weight: Tensor, bias: Tensor | None, *, exact: bool = False) -> str:
        """Multiply rows [R, inputs] by a matrix [outputs, inputs] and add a vector.

        exact: not quantised in an int8 graph; for layers that cost nothing and matter everywhere.
        """
        if self.precision is Precision.INT8 and not exact:
            whole, scale, zero = self._quantise(rows)
            return self._whole_product(whole, scale, zero, weight.shape[1], lambda: weight, bias)
        return self.add("Gemm", rows, self.weight(weight), *self._bias(bias), transB=1)

    def conv(self, x: str, layer: nn.Conv2d | nn.Conv1d, pads: Sequence[int] | None = None) -> str:
        """Apply a convolution; `pads` replaces its own padding: the beginnings of all axes, then the ends."""
        if pads is None:
            pads = 2 * [int(pad) for pad in layer.padding]
        return self.add(
            "Conv",
            x,
            self.weight(layer.weight),
            *self._bias(layer.bias),
            kernel_shape=list(layer.kernel_size),
            strides=list(layer.stride),
            pads=list(pads),
        )

    def picture_conv(self, x: str, layer: nn.Conv2d, side: int) -> str:
        """Apply a square convolution to pictures [N, C, side, side]; quantised in an int8 graph.

        There it is a product of all patches with a matrix: that takes a third of the time of onnxruntime's float32
        convolution or less (with AMX), while its ConvInteger takes five times as long.
        """
        if self.precision is not Precision.INT8:
            return self.conv(x, layer)
        (kernel, _), (stride, _), pad = layer.kernel_size, layer.stride, int(layer.padding[0])
        wanted = (side + 2 * pad - kernel) // stride + 1
        reach = stride * (wanted - 1) + 1
        whole, scale, zero = self._quantise(x)
        whole = self._permute(whole, 0, 2, 3, 1)
        if pad:
            whole = self.add("Pad", whole, self.ints(0, pad, pad, 0, 0, pad, pad, 0), zero)
        patches = [
            self.add("Slice", whole, self.ints(*at), self.ints(*(i + reach for i in at)), *self._steps(stride))
            for at in product(range(kernel), repeat=2)
        ]
        inputs = kernel * kernel * layer.in_channels
        rows = self.reshape(self.add("Concat", *patches, axis=3), -1, inputs)
        out = self._whole_product(
            rows, scale, zero, inputs, lambda: layer.weight.permute(0, 2, 3, 1).flatten(1), layer.bias
        )
        return self._permute(self.reshape(out, -1, wanted, wanted, layer.out_channels), 0, 3, 1, 2)

    def layer_norm(self, rows: str, layer: nn.LayerNorm) -> str:
        """Normalise each row."""
        inputs = self.weight(layer.weight), self.weight(layer.bias, "bias")
        return self.add("LayerNormalization", rows, *inputs, epsilon=layer.eps)

    def standardise(self, x: str, groups: int, eps: float) -> str:
        """Bring x [N, groups, values] to mean 0 and variance 1 along its last axis; always in float32."""
        unit = self._once(("unit", groups), lambda: (self.single(torch.ones(groups)), self.single(torch.zeros(groups))))
        return self.to_own(self.add("InstanceNormalization", self.to_single(x), *unit, epsilon=eps))

    def affine(self, x: str, norm: nn.GroupNorm) -> str:
        """Scale and shift the channels of pictures [N, C, …] in any view; returns [N, C, values]."""
        x = self.reshape(x, 0, norm.num_channels, -1)
        scaled = self.add("Mul", x, self.weight(norm.weight[:, None]))
        return self.add("Add", scaled, self.weight(norm.bias[:, None], "bias"))

    def group_norm(self, x: str, norm: nn.GroupNorm, side: int) -> str:
        """Normalise the groups of channels of each of the pictures [N, C, side, side]."""
        return self.reshape(self.affine(self._standard(x, norm), norm), 0, norm.num_channels, side, side)

    def norm_product(self, x: str, norm: nn.GroupNorm, layer: nn.Linear | nn.Conv2d, to_rows: Shaper) -> str:
        """Normalise as `group_norm`, take the pixels as rows with `to_rows`, and apply a layer to each.

        Fused, the norm's scale and shift go into the layer's weights.
        """
        weight, bias = layer.weight.flatten(1), layer.bias
        standard = self._standard(x, norm)
        if not self.fused:
            return self.product(to_rows(self.affine(standard, norm)), weight, bias)
        if self.shared:
            plain = self.weight(weight)
            scaled = self.add("Mul", plain, self.weight(norm.weight))
            moved = self.add("MatMul", plain, self.weight(norm.bias, "shift"))
            offset = moved if bias is None else self.add("Add", moved, *self._bias(bias))
            return self.add("Gemm", to_rows(standard), scaled, offset, transB=1)
        shift = weight @ norm.bias
        return self.product(to_rows(standard), weight * norm.weight, shift if bias is None else bias + shift)

    def attention(self, q: str, k: str, v: str, heads: int, width: int) -> str:
        """Attend: q [N, T, width], k and v [N, S, width] with heads side by side; returns [N, T, width]."""
        if self.fused:
            return self.add("MultiHeadAttention", q, k, v, domain=MICROSOFT, num_heads=heads)
        size = width // heads
        # Scaled before the product, which would leave float16's range otherwise.
        q = self.add("Mul", q, self._number(1 / math.sqrt(size)))
        q, k, v = (self.reshape(x, 0, 0, heads, size) for x in (q, k, v))
        scores = self.add("MatMul", self._permute(q, 0, 2, 1, 3), self._permute(k, 0, 2, 3, 1))
        mixed = self.add("MatMul", self.add("Softmax", scores, axis=-1), self._permute(v, 0, 2, 1, 3))
        return self.reshape(self._permute(mixed, 0, 2, 1, 3), 0, 0, width)

    def silu(self, x: str) -> str:
        """x · sigmoid(x), which onnxruntime makes one operator as it loads the graph."""
        return self.add("Mul", x, self.add("Sigmoid", x))

    def gelu(self, x: str) -> str:
        """x · (1 + erf(x / √2)) / 2."""
        if self.fused:
            return self.add("Gelu", x, domain=MICROSOFT)  # ONNX's own came with opset 20
        spread = self.add("Erf", self.add("Mul", x, self._number(1 / math.sqrt(2))))
        return self.add("Mul", self.add("Mul", x, self._number(0.5)), self.add("Add", spread, self._number(1.0)))

    # Helpers

    def _quantise(self, x: str) -> tuple[str, str, str]:
        """Return x as whole numbers uint8, their scale and their zero; once for all layers that share the input."""
        outputs = ("whole", "scale", "zero")
        whole, scale, zero = self._once(("quantised", x), lambda: self.add_many("DynamicQuantizeLinear", outputs, x))
        return whole, scale, zero

    def _whole_product(
        self, rows: str, scale: str, zero: str, inputs: int, matrix: Callable[[], Tensor], bias: Tensor | None
    ) -> str:
        """`product` of quantised rows: the weights of each output have a fixed scale, the rows one found as it runs.

        matrix: makes the weights [outputs, inputs].
        """

        def scales() -> NDArray[Any]:
            peaks: NDArray[Any] = _array(matrix().abs().amax(1))
            return peaks.clip(_SMALLEST_PEAK) / _INT8_MAX

        def values() -> NDArray[Any]:
            whole: NDArray[Any] = np.rint(_array(matrix()) / scales()[:, None]).astype(np.int8).T
            return whole

        outputs = len(matrix())
        # In this order onnxruntime makes one operator of these as it loads the graph.
        sums = self.add("MatMulInteger", rows, self._constant("weight", np.int8, (inputs, outputs), values), zero)
        factor = self.add("Mul", scale, self._constant("scale", np.float32, (outputs,), scales))
        result = self.add("Mul", self.add("Cast", sums, to=TensorProto.FLOAT), factor)
        return result if bias is None else self.add("Add", result, *self._bias(bias))

    def _standard(self, x: str, norm: nn.GroupNorm) -> str:
        return self.standardise(self.reshape(x, 0, norm.num_groups, -1), norm.num_groups, norm.eps)

    def _steps(self, stride: int) -> tuple[str, str]:
        """Axes and steps of a slice of height and width, channels last."""
        return self.ints(1, 2), self.ints(stride, stride)

    def _permute(self, x: str, *axes: int) -> str:
        return self.add("Transpose", x, perm=list(axes))

    def _number(self, value: float) -> str:
        """Return a number in the precision of the graph."""
        return str(self._once(("number", value), lambda: self.weight(torch.tensor(value), "number")))

    def _bias(self, bias: Tensor | None) -> list[str]:
        return [] if bias is None else [self.weight(bias, "bias")]

    def _constant(
        self, name: str, dtype: type[np.generic], shape: Sequence[int], make: Callable[[], NDArray[Any]]
    ) -> str:
        name = self._unique(name)
        self.constants[name] = Constant(dtype, tuple(shape), make)
        return name

    def _once(self, key: tuple[object, ...], make: Callable[[], Any]) -> Any:
        if key not in self._known:
            self._known[key] = make()
        return self._known[key]

    def _unique(self, name: str) -> str:
        name = ".".join([*self._scopes, name])
        self._used[name] += 1
        return name if self._used[name] == 1 else f"{name}_{self._used[name]}"


def _dims(value: ValueInfoProto) -> tuple[Dim, ...]:
    return tuple(dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim)


def _array(tensor: Tensor) -> NDArray[Any]:
    array: NDArray[Any] = tensor.detach().float().contiguous().numpy()
    return array
