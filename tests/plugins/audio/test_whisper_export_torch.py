"""Whisper's graph against its PyTorch encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch")
pytest.importorskip("onnx", reason="needs onnx (extra export)")
ort = pytest.importorskip("onnxruntime", reason="needs onnxruntime (extra onnx)")

from lipsync_audio.whisper_encoder_torch import build, dims_of, random_state  # noqa: E402
from lipsync_audio.whisper_torch import WhisperTorch  # noqa: E402
from lipsync_core.models.exported import GraphName, Precision  # noqa: E402
from lipsync_core.models.folder import ModelFolder  # noqa: E402
from lipsync_core.models.graph_file_torch import write_graph  # noqa: E402
from lipsync_core.models.graph_torch import GraphBuilder  # noqa: E402
from lipsync_core.models.tensors_torch import write_pickle  # noqa: E402
from lipsync_core.models.tiny import CONFIG  # noqa: E402

torch.set_num_threads(1)
TOLERANCE = {Precision.FLOAT32: 1e-4, Precision.FLOAT16: 2e-2, Precision.INT8: 0.3}


def folder(root: Path, **changes: Any) -> ModelFolder:
    part = CONFIG.audio.model_copy(update=changes)
    write_pickle(root / part.weights, {"dims": dims_of(part), "model_state_dict": random_state(part, 3)})
    return ModelFolder(root, CONFIG.model_copy(update={"audio": part}))


@pytest.mark.parametrize("precision", list(Precision))
@pytest.mark.parametrize("changes", [{}, {"layers": 3, "width": 24, "heads": 3}], ids=["as tiny", "other"])
def test_every_state_is_torchs(tmp_path: Path, precision: Precision, changes: dict[str, int]) -> None:
    model = folder(tmp_path, **changes)
    (graph,) = WhisperTorch.export_graphs(model)
    assert graph.name is GraphName.WHISPER
    builder = GraphBuilder(graph.name, precision, fused=True)
    graph.emit(builder)
    (file,) = write_graph(builder, tmp_path / "whisper.onnx")
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    mel = torch.randn(1, 80, 3000, generator=torch.Generator().manual_seed(4))
    (got,) = session.run(["states"], {"mel": mel.numpy()})
    part = model.config.audio
    with torch.inference_mode():
        want = build(part, random_state(part, 3), "test")(mel).numpy()
    assert got.shape == want.shape == (1500, part.layers + 1, part.width)
    for state in range(part.layers + 1):
        assert np.abs(got[:, state] - want[:, state]).max() <= TOLERANCE[precision], state
