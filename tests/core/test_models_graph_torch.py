"""Each layer a graph is built of against PyTorch's, in every precision, and the file it is written to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="needs torch (extra torch)")
onnx = pytest.importorskip("onnx", reason="needs onnx (extra export)")
ort = pytest.importorskip("onnxruntime", reason="needs onnxruntime (extra onnx)")

from torch import nn  # noqa: E402

from lipsync_core.models import graph_file_torch  # noqa: E402
from lipsync_core.models.exported import Precision  # noqa: E402
from lipsync_core.models.graph_file_torch import write_graph  # noqa: E402
from lipsync_core.models.graph_torch import MICROSOFT, GraphBuilder  # noqa: E402

torch.set_num_threads(1)
# Largest difference over the result's root mean square. int8 has 255 steps for all values of an input.
TOLERANCE = {Precision.FLOAT32: 2e-5, Precision.FLOAT16: 1e-2, Precision.INT8: 0.1}
Emit = Callable[..., str]


def session(file: Path) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(file, options, providers=["CPUExecutionProvider"])


def check(folder: Path, emit: Emit, want: Any, precision: Precision, *inputs: Any, fused: bool = True) -> GraphBuilder:
    """Build a graph of the inputs with one output and compare it with `want`."""
    builder = GraphBuilder("test", precision, fused=fused)
    names = [builder.input(f"x{i}", x.shape) for i, x in enumerate(inputs)]
    out = emit(builder, *(builder.to_own(name) for name in names))
    builder.output("y", builder.to_single(out), want.shape)
    write_graph(builder, folder / "graph.onnx")
    model = onnx.load(folder / "graph.onnx")
    onnx.checker.check_model(model)
    (got,) = session(folder / "graph.onnx").run(None, {name: x.numpy() for name, x in zip(names, inputs, strict=True)})
    want = want.detach().numpy()
    assert got.shape == want.shape
    assert np.abs(got - want).max() <= TOLERANCE[precision] * np.sqrt(np.square(want).mean())
    return builder


@pytest.fixture
def random() -> Any:
    return torch.Generator().manual_seed(1)


@pytest.fixture(params=list(Precision))
def precision(request: pytest.FixtureRequest) -> Precision:
    return request.param


@pytest.fixture(params=[True, False], ids=["fused", "standard"])
def fused(request: pytest.FixtureRequest) -> bool:
    return request.param


def randomise(layer: Any, random: Any) -> Any:
    for parameter in layer.parameters():
        parameter.data = torch.randn(parameter.shape, generator=random)
    return layer.requires_grad_(False)


@pytest.mark.parametrize("bias", [True, False])
def test_product(tmp_path: Path, random: Any, precision: Precision, bias: bool) -> None:
    layer, x = randomise(nn.Linear(24, 10, bias=bias), random), torch.randn(7, 24, generator=random)
    layer.weight.data[3] *= 100  # one scale for all outputs would lose the others
    want = layer(x)
    rows = check(tmp_path, lambda g, x: g.linear(x, layer), want, precision, x)
    assert ("MatMulInteger" in {node.op_type for node in rows.nodes}) == (precision is Precision.INT8)


def test_every_output_of_a_quantised_product_has_its_own_scale(tmp_path: Path, random: Any) -> None:
    layer, x = randomise(nn.Linear(24, 10), random), torch.randn(7, 24, generator=random)
    layer.weight.data[3] *= 1000
    layer.bias.data[3] *= 1000
    layer.weight.data[4] = 0
    layer.bias.data[4] = 1  # a column of zeros has a scale, and gives its bias
    scale = torch.tensor([1.0, 1, 1, 1e-3, 1, 1, 1, 1, 1, 1])
    check(
        tmp_path,
        lambda g, x: g.add("Mul", g.linear(x, layer), g.single(scale)),
        layer(x) * scale,
        Precision.INT8,
        x,
    )


def test_exact_products_are_not_quantised_and_a_shared_input_is_quantised_once(tmp_path: Path, random: Any) -> None:
    a, b, c = (randomise(nn.Linear(8, 8), random) for _ in range(3))
    x = torch.randn(4, 8, generator=random)

    def emit(g: GraphBuilder, x: str) -> str:
        return g.add("Add", g.add("Add", g.linear(x, a), g.linear(x, b)), g.linear(x, c, exact=True))

    kinds = Counter(node.op_type for node in check(tmp_path, emit, a(x) + b(x) + c(x), Precision.INT8, x).nodes)
    assert (kinds["MatMulInteger"], kinds["Gemm"], kinds["DynamicQuantizeLinear"]) == (2, 1, 1)


@settings(max_examples=12)
@given(
    kernel=st.sampled_from([1, 3]),
    stride=st.sampled_from([1, 2]),
    side=st.integers(3, 9),
    channels=st.integers(1, 5),
    precision=st.sampled_from(Precision),
)
def test_convolution_of_pictures(
    tmp_path_factory: pytest.TempPathFactory, kernel: int, stride: int, side: int, channels: int, precision: Precision
) -> None:
    random = torch.Generator().manual_seed(0)
    layer = randomise(nn.Conv2d(channels, 6, kernel, stride, padding=kernel // 2), random)
    x = torch.randn(2, channels, side, side, generator=random) + 0.5  # so that the zero of the whole numbers is not 0
    folder = tmp_path_factory.mktemp("conv")
    check(folder, lambda g, x: g.picture_conv(x, layer, side), layer(x), precision, x)


def test_convolution_with_other_padding_or_one_axis(tmp_path: Path, random: Any) -> None:
    picture = randomise(nn.Conv2d(3, 4, 3, stride=2), random)
    x = torch.randn(2, 3, 8, 8, generator=random)
    want = picture(nn.functional.pad(x, (0, 1, 0, 1)))
    check(tmp_path, lambda g, x: g.conv(x, picture, (0, 0, 1, 1)), want, Precision.FLOAT32, x)
    sound = randomise(nn.Conv1d(3, 4, 3, stride=2, padding=1), random)
    x = torch.randn(1, 3, 20, generator=random)
    check(tmp_path, lambda g, x: g.conv(x, sound), sound(x), Precision.FLOAT32, x)


def test_norms(tmp_path: Path, random: Any, precision: Precision) -> None:
    rows, layer = torch.randn(5, 12, generator=random) * 3 + 1, randomise(nn.LayerNorm(12), random)
    check(tmp_path, lambda g, x: g.layer_norm(x, layer), layer(rows), precision, rows)
    pictures, norm = torch.randn(3, 12, 4, 4, generator=random) * 3 + 1, randomise(nn.GroupNorm(4, 12, 0.5), random)
    check(tmp_path, lambda g, x: g.group_norm(x, norm, 4), norm(pictures), precision, pictures)


def test_a_norm_is_in_float32_where_float16_would_overflow(tmp_path: Path, random: Any) -> None:
    norm = randomise(nn.GroupNorm(2, 4), random)
    x = torch.randn(2, 4, 32, 32, generator=random) * 3000  # the squares do not fit into float16
    builder = check(tmp_path, lambda g, x: g.group_norm(x, norm, 32), norm(x), Precision.FLOAT16, x)
    # The CPU has no other kernel; a GPU has.
    made = {node.output[0]: node for node in builder.nodes}
    (node,) = (node for node in builder.nodes if node.op_type == "InstanceNormalization")
    cast = made[node.input[0]]
    assert (cast.op_type, onnx.helper.get_node_attr_value(cast, "to")) == ("Cast", onnx.TensorProto.FLOAT)


@pytest.mark.parametrize("kind", ["linear", "pointwise"])
def test_norm_product(tmp_path: Path, random: Any, precision: Precision, fused: bool, kind: str) -> None:
    x, norm = torch.randn(3, 8, 4, 4, generator=random), randomise(nn.GroupNorm(4, 8), random)
    layer = randomise(nn.Linear(8, 6) if kind == "linear" else nn.Conv2d(8, 6, 1), random)
    pixels = norm(x).permute(0, 2, 3, 1).reshape(-1, 8)
    want = pixels @ layer.weight.flatten(1).T + layer.bias

    def emit(g: GraphBuilder, x: str) -> str:
        def to_rows(x: str) -> str:
            return g.reshape(g.add("Transpose", g.reshape(x, 0, 8, 16), perm=[0, 2, 1]), -1, 8)

        return g.norm_product(x, norm, layer, to_rows)

    check(tmp_path, emit, want, precision, x, fused=fused)


@settings(max_examples=10)
@given(
    n=st.integers(1, 3),
    queries=st.integers(1, 9),
    keys=st.integers(1, 9),
    heads=st.integers(1, 3),
    fused=st.booleans(),
    precision=st.sampled_from([Precision.FLOAT32, Precision.FLOAT16]),
)
def test_attention(
    tmp_path_factory: pytest.TempPathFactory,
    n: int,
    queries: int,
    keys: int,
    heads: int,
    fused: bool,
    precision: Precision,
) -> None:
    random, width = torch.Generator().manual_seed(0), 8 * heads
    q, k, v = (torch.randn(n, length, width, generator=random) for length in (queries, keys, keys))
    split = [x.view(n, -1, heads, 8).transpose(1, 2) for x in (q, k, v)]
    want = nn.functional.scaled_dot_product_attention(*split).transpose(1, 2).reshape(n, queries, width)
    folder = tmp_path_factory.mktemp("attention")
    builder = check(folder, lambda g, *x: g.attention(*x, heads, width), want, precision, q, k, v, fused=fused)
    assert any(node.domain == MICROSOFT for node in builder.nodes) == fused


@pytest.mark.parametrize(("side", "wanted"), [(4, 8), (4, 7), (3, 5), (1, 2), (1, 1)])
def test_nearest_resize(tmp_path: Path, random: Any, side: int, wanted: int) -> None:
    x = torch.randn(2, 3, side, side, generator=random)
    want = nn.functional.interpolate(x, size=(wanted, wanted), mode="nearest")
    check(tmp_path, lambda g, x: g.resize(x, side, wanted), want, Precision.FLOAT32, x)


def test_activations(tmp_path: Path, precision: Precision) -> None:
    x = torch.linspace(-6, 6, 101)
    check(tmp_path, lambda g, x: g.silu(x), nn.functional.silu(x), precision, x)
    check(tmp_path, lambda g, x: g.gelu(x), nn.functional.gelu(x), precision, x)


def test_large_constants_are_written_beside_the_graph(
    tmp_path: Path, random: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graph_file_torch, "_INLINE_BYTES", 10_000)
    layers = [randomise(nn.Linear(30, 30), random) for _ in range(3)]
    x = torch.randn(2, 30, generator=random)

    def emit(g: GraphBuilder, x: str) -> str:
        for layer in layers:
            x = g.linear(x, layer)
        return x

    builder = check(tmp_path, emit, layers[2](layers[1](layers[0](x))), Precision.FLOAT32, x)
    data = tmp_path / "graph.onnx.data"
    assert 3 * 3600 <= data.stat().st_size <= 3 * 4096
    assert (tmp_path / "graph.onnx").stat().st_size < 3600
    assert write_graph(builder, tmp_path / "graph.onnx") == [tmp_path / "graph.onnx", data]
    monkeypatch.undo()
    assert write_graph(builder, tmp_path / "small.onnx") == [tmp_path / "small.onnx"]


def test_names_follow_the_layers(tmp_path: Path) -> None:
    builder = GraphBuilder("names", Precision.FLOAT32, fused=True)
    x = builder.input("x", (2, 2))
    with builder.scope("a"), builder.scope("b"):
        first, second = builder.add("Abs", x), builder.add("Abs", x)
    assert (first, second) == ("a.b.Abs", "a.b.Abs_2")
    assert builder.shape(1, 2) == builder.shape(1, 2) != builder.shape(2, 1)
