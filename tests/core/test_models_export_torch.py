"""Exporting with backends that stand in for the real ones: what is written, and that nothing is where it fails."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from lipsync_core import BackendSpec
from lipsync_core.backends import StageKind
from lipsync_core.errors import BackendError, WeightsError
from lipsync_core.registry import Entry, Origin, Registry, State

torch = pytest.importorskip("torch", reason="needs torch (extra torch)")
pytest.importorskip("onnx", reason="needs onnx (extra export)")
ort = pytest.importorskip("onnxruntime", reason="needs onnxruntime (extra onnx)")

from torch import nn  # noqa: E402

from lipsync_core.models import export_torch  # noqa: E402
from lipsync_core.models.export_torch import export_model  # noqa: E402
from lipsync_core.models.exported import Exported, GraphName, Precision, exports  # noqa: E402
from lipsync_core.models.folder import ModelFolder  # noqa: E402
from lipsync_core.models.graph_torch import GraphBuilder, GraphSource  # noqa: E402
from lipsync_core.models.store import sha256  # noqa: E402
from lipsync_core.models.tiny import CONFIG  # noqa: E402

torch.set_num_threads(1)
WIDTH = 8
Reported = list[tuple[GraphName, Any, int]]


class Stand:
    """A backend whose networks are a matrix each; `wrong` is added to what a graph gives."""

    names: tuple[GraphName, ...]
    wrong = 0.0

    @classmethod
    def export_graphs(cls, folder: ModelFolder) -> Iterator[GraphSource]:
        for name in cls.names:
            layer = nn.Linear(WIDTH, WIDTH).requires_grad_(False)
            x = torch.randn(3, WIDTH)

            def emit(g: GraphBuilder, layer: Any = layer, name: GraphName = name) -> None:
                h = g.linear(g.to_own(g.input("x", ("n", WIDTH))), layer)
                h = g.reshape(g.attention(*(g.reshape(h, 1, -1, WIDTH),) * 3, 2, WIDTH), -1, WIDTH)
                h = g.to_single(h)
                if name is GraphName.UNET:
                    h = g.add("Add", h, g.single(cls.wrong))
                g.output("y", h, ("n", folder.config.resolution))

            def run(x: Any, layer: Any = layer) -> list[Any]:
                h = layer(x).view(1, -1, 2, WIDTH // 2).transpose(1, 2)
                return [nn.functional.scaled_dot_product_attention(h, h, h).transpose(1, 2).reshape(-1, WIDTH)]

            yield GraphSource(name, emit, run, {"x": x}, {"n": (1, 5)})


class Audio(Stand):
    names = (GraphName.WHISPER,)


class Denoiser(Stand):
    names = (GraphName.VAE_ENCODER, GraphName.VAE_DECODER, GraphName.UNET)


def entry(kind: StageKind, name: str, target: type, state: State = State.READY) -> Entry:
    path = f"{__name__}:{target.__name__}"
    return Entry(BackendSpec(kind, name, "-", path, path), Origin("t", "t", "1"), state, "pip install it")


@pytest.fixture
def registry() -> Registry:
    return Registry(
        entries=[
            entry(StageKind.AUDIO, "whisper-torch", Audio),
            entry(StageKind.DENOISER, "latentsync-torch", Denoiser),
        ]
    )


@pytest.fixture
def folder(tmp_path: Path) -> ModelFolder:
    root = tmp_path / "model"
    config = CONFIG.model_copy(update={"resolution": WIDTH})
    for part in (config.audio, config.autoencoder, config.unet):
        (root / part.weights).parent.mkdir(parents=True, exist_ok=True)
        (root / part.weights).write_bytes(part.weights.encode())
    (root / "model.json").write_text(config.model_dump_json(), encoding="utf-8")
    return ModelFolder.open(root)


def files(root: Path) -> set[str]:
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}


GRAPHS = {f"{name}.onnx" for name in GraphName}


def test_the_graphs_of_a_model_and_what_is_recorded(folder: ModelFolder, registry: Registry) -> None:
    before, reported = files(folder.root), Reported()
    exported = export_model(folder, Precision.FLOAT32, registry=registry, report=lambda *words: reported.append(words))
    where = "onnx/float32/"
    assert files(folder.root) - before == {where + "export.json", *(where + name for name in GRAPHS)}
    assert list(exports(folder.root)) == [Precision.FLOAT32]
    assert [name for name, _, _ in reported] == list(GraphName)
    record = exported.record
    assert (record.model, record.precision, record.resolution) == ("tiny", Precision.FLOAT32, WIDTH)
    assert (record.opset, record.fused) == (18, True)
    assert set(record.versions) == {"lipsync-core", "torch", "onnx", "onnxruntime", "numpy"}
    weights = {part.weights for part in (CONFIG.audio, CONFIG.autoencoder, CONFIG.unet)}
    assert record.sources == {name: sha256(folder.root / name) for name in weights}
    for name, graph, size in reported:
        assert record.graphs[name] == graph
        assert graph.sha256 == sha256(exported.path(name))
        assert size == exported.path(name).stat().st_size
        assert (graph.inputs, graph.outputs) == ({"x": ("n", WIDTH)}, {"y": ("n", WIDTH)})
        assert (graph.extent(most=False), graph.extent(most=True)) == ({"x": (1, WIDTH)}, {"x": (5, WIDTH)})
        assert graph.nodes < graph.nodes_before
        assert 0 <= graph.difference < 1e-5 < 0.1 < graph.scale


def test_a_new_folder_gets_the_description_and_needs_no_weights(
    folder: ModelFolder, registry: Registry, tmp_path: Path
) -> None:
    before = files(folder.root)
    root = tmp_path / "far" / "new"
    export_model(folder, Precision.FLOAT32, root=root, registry=registry)
    export_model(folder, Precision.INT8, root=root, registry=registry)
    assert files(folder.root) == before
    inner = {f"onnx/{p}/{name}" for p in ("float32", "int8") for name in {"export.json", *GRAPHS}}
    assert files(root) == {"model.json", *inner}
    again = Exported.open(ModelFolder.open(root), Precision.INT8)
    assert again.folder.config == folder.config
    with pytest.raises(WeightsError, match="lacks"):
        export_model(again.folder, Precision.FLOAT16, registry=registry)


def test_only_the_unet_is_quantised(folder: ModelFolder, registry: Registry) -> None:
    import onnx

    exported = export_model(folder, Precision.INT8, registry=registry)
    for name in GraphName:
        kinds = {node.op_type for node in onnx.load(exported.path(name)).graph.node}
        assert ("MatMulInteger" in kinds) == (name is GraphName.UNET)


def test_standard_operators_alone(folder: ModelFolder, registry: Registry) -> None:
    import onnx

    exported = export_model(folder, Precision.FLOAT32, fused=False, registry=registry)
    assert not exported.record.fused
    for name, graph in exported.record.graphs.items():
        model = onnx.load(exported.path(name))
        assert {node.domain for node in model.graph.node} == {""}
        assert [opset.domain for opset in model.opset_import] == [""]
        assert graph.nodes == graph.nodes_before


def test_an_export_is_replaced_only_when_asked(folder: ModelFolder, registry: Registry) -> None:
    first = export_model(folder, Precision.FLOAT32, registry=registry)
    (first.root / "unet.onnx.data").write_bytes(b"of an older export")
    (first.root / "notes.txt").write_text("the user's")
    with pytest.raises(WeightsError, match="--overwrite"):
        export_model(folder, Precision.FLOAT32, registry=registry)
    second = export_model(folder, Precision.FLOAT32, overwrite=True, registry=registry)
    assert second.record.graphs[GraphName.UNET].sha256 != first.record.graphs[GraphName.UNET].sha256
    assert files(second.root) == {"export.json", "notes.txt", *GRAPHS}


def test_another_resolution_is_another_folder(folder: ModelFolder, registry: Registry, tmp_path: Path) -> None:
    root = tmp_path / "new"
    exported = export_model(folder, Precision.FLOAT32, root=root, resolution=64, registry=registry)
    assert (exported.record.resolution, ModelFolder.open(root).config.resolution) == (64, 64)
    with pytest.raises(WeightsError, match="another model"):
        export_model(folder, Precision.FLOAT16, root=root, registry=registry)
    assert list(exports(root)) == [Precision.FLOAT32]
    for wrong in (0, -8, 60):
        with pytest.raises(WeightsError, match="no multiple of 8 px"):
            export_model(folder, Precision.FLOAT16, resolution=wrong, registry=registry)


@pytest.mark.parametrize("wrong", [1.0, float("nan"), float("inf")])
@pytest.mark.parametrize("precision", list(Precision))
def test_a_graph_that_gives_something_else_leaves_nothing(
    folder: ModelFolder,
    registry: Registry,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    wrong: float,
    precision: Precision,
) -> None:
    monkeypatch.setattr(Denoiser, "wrong", 3 * wrong)
    before = files(tmp_path)
    with pytest.raises(WeightsError, match=f"The graph unet in {precision} is off by"):
        export_model(folder, precision, registry=registry)
    with pytest.raises(WeightsError, match="is off by"):
        export_model(folder, precision, root=tmp_path / "new", registry=registry)
    assert files(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_full_disk_leaves_nothing_and_keeps_the_old_export(
    folder: ModelFolder, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    export_model(folder, Precision.FLOAT32, registry=registry)
    before = {name: (folder.root / name).read_bytes() for name in files(folder.root)}
    real, written = export_torch.write_graph, []

    def full(builder: GraphBuilder, file: Path, shared: Sequence[Path]) -> list[Path]:
        if written:
            file.write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(file)
        return real(builder, file, shared)

    monkeypatch.setattr(export_torch, "write_graph", full)
    for precision in (Precision.FLOAT32, Precision.FLOAT16):
        written.clear()
        with pytest.raises(WeightsError, match=r"cannot be written: No space left on device\. Free space"):
            export_model(folder, precision, overwrite=True, registry=registry)
        assert {name: (folder.root / name).read_bytes() for name in files(folder.root)} == before
    assert sorted(path.name for path in folder.root.iterdir()) == sorted({name.split("/")[0] for name in before})


def test_a_folder_that_cannot_be_made_is_one_sentence(folder: ModelFolder, registry: Registry, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(WeightsError, match="cannot be written") as caught:
        export_model(folder, Precision.FLOAT32, root=tmp_path / "file" / "new", registry=registry)
    assert "\n" not in str(caught.value)


def test_without_a_backend_the_cure_is_its_pip_line(folder: ModelFolder, registry: Registry) -> None:
    registry.entries[1] = entry(StageKind.DENOISER, "latentsync-torch", Denoiser, State.MISSING)
    with pytest.raises(BackendError, match="pip install it"):
        export_model(folder, Precision.FLOAT32, registry=registry)


def test_the_record_is_plain_json(folder: ModelFolder, registry: Registry) -> None:
    root = export_model(folder, Precision.FLOAT32, registry=registry).root
    content = json.loads((root / "export.json").read_text(encoding="utf-8"))
    assert content["graphs"]["unet"]["file"] == "unet.onnx"
    assert content["precision"] == "float32"


class TestSharedWeights:
    """Graphs of a small model of the kind that is packaged, beside weights in float16."""

    @pytest.fixture
    def small(self, tmp_path: Path) -> ModelFolder:
        from lipsync_core.models.tensors_torch import write_safetensors
        from lipsync_denoiser.latentsync.autoencoder_torch import blank_autoencoder
        from lipsync_denoiser.latentsync.unet_torch import build_unet, initialise

        pytest.importorskip("diffusers")
        config = ModelFolder.open(put_small(tmp_path / "small")).config
        autoencoder = blank_autoencoder(config.autoencoder, torch.float32)
        initialise(autoencoder, 1)
        unet = build_unet(config.unet, torch.float32, "cpu", 2)
        for part, net in ((config.autoencoder, autoencoder), (config.unet, unet)):
            halves = {name: tensor.half() for name, tensor in net.state_dict().items()}
            write_safetensors(tmp_path / "small" / part.weights, halves)
        return ModelFolder.open(tmp_path / "small")

    def test_they_are_on_the_disk_once_and_give_the_same(self, small: ModelFolder) -> None:
        shared = export_model(small, Precision.FLOAT32, share=True)
        weights = sum(file.stat().st_size for file in shared.root.glob("*.safetensors"))
        graphs = {file: file.stat().st_size for file in shared.root.glob("*.onnx")}
        assert len(graphs) == 3
        assert sorted(p.name for p in shared.root.iterdir()) == sorted(
            [*(f"{name}.onnx" for name in shared.record.graphs), "export.json", "a.safetensors", "u.safetensors"]
        )
        for name, graph in shared.record.graphs.items():
            assert graph.difference <= 1e-4 * graph.scale, name
        alone = export_model(small, Precision.FLOAT32, overwrite=True)
        written = sum(file.stat().st_size for file in alone.root.glob("*.onnx"))
        # Nearly all of the float32 weights are gone from the graphs: what is left are nodes.
        assert written - sum(graphs.values()) > 1.7 * weights
        hashes = {graph.sha256 for record in (shared.record, alone.record) for graph in record.graphs.values()}
        assert len(hashes) == 6

    def test_weights_elsewhere_cannot_be_shared(self, small: ModelFolder, tmp_path: Path) -> None:
        with pytest.raises(WeightsError, match="No weights lie in .*other"):
            export_model(small, Precision.FLOAT32, root=tmp_path / "other", share=True)
        assert not (tmp_path / "other").exists()


def put_small(root: Path) -> Path:
    """Write the description of a small model whose weights lie where its graphs go."""
    config = {
        "name": "small",
        "title": "Small",
        "licence": "none",
        "resolution": 32,
        "frames": 4,
        "audio": {"kind": "mouth-shape", "reach": 1},
        "autoencoder": {"kind": "patch", "weights": "onnx/float32/a.safetensors", "patch": 4, "width": 32},
        "unet": {
            "weights": "onnx/float32/u.safetensors",
            "in_channels": 49,
            "out_channels": 16,
            "block_out_channels": (32, 64),
            "layers_per_block": 1,
            "attention_heads": 2,
            "cross_attention_dim": 24,
        },
        "scheduler": {},
    }
    root.mkdir()
    (root / "model.json").write_text(json.dumps(config))
    return root
