"""The training lies beside the package, not in it; and clips that are quick to make."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the extra train")
pytest.importorskip("diffusers", reason="needs the extra train")

TRAINING = Path(__file__).resolve().parents[2] / "plugins" / "denoiser" / "training"


@pytest.fixture(scope="session", autouse=True)
def _importable() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(TRAINING))
        yield


@pytest.fixture
def make_clip() -> Callable[..., Any]:
    """Return a maker of clips whose frame f is one grey of level 8 f, and whose shapes are all f."""

    def make(name: str, speaker: str, frames: int = 24) -> Any:
        from mini_training.footage import STORED, Clip

        levels = np.arange(frames, dtype=np.uint8) * 8
        pictures = np.broadcast_to(levels[:, None, None, None], (frames, STORED, STORED, 3))
        shapes = np.repeat(np.arange(frames, dtype=np.float32)[:, None], 8, axis=1)
        points = np.zeros((frames, 68, 2), np.float32)  # a mouth of no width, which nothing can change
        return Clip(name, speaker, "CC0-1.0", "drawn", pictures, shapes, points, np.arange(frames))

    return make


@pytest.fixture
def face_points() -> Any:
    """Landmarks float32 [68, 2] of a stored picture whose mouth is closed and 80 px wide, its middle at (144, 180)."""
    points = np.full((68, 2), (144.0, 120.0), np.float32)
    angle = np.pi - np.arange(12) * np.pi / 6
    points[48:60] = np.stack([144 + 40 * np.cos(angle), 180 - 12 * np.sin(angle)], axis=1)
    points[60:68] = [(110, 180), (127, 180), (144, 180), (161, 180), (178, 180), (161, 180), (144, 180), (127, 180)]
    return points


@pytest.fixture
def prepared(tmp_path: Path, face_points: Any) -> Path:
    """A prepared folder: two speakers to train on, and one clip of each speaker held out."""
    from mini_training.footage import STORED
    from mini_training.recipe import HELD_OUT

    folder = tmp_path / "prepared"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number, speaker in enumerate(("one", "two", *HELD_OUT)):
        low = rng.integers(0, 256, (12, 6, 6, 3), np.uint8)
        np.save(folder / f"clip{number}.npy", low.repeat(STORED // 6, axis=1).repeat(STORED // 6, axis=2))
        about = {"name": f"clip{number}", "speaker": speaker, "licence": "CC0-1.0", "source": "drawn"}
        about |= {"usable": list(range(12)), "shapes": rng.normal(size=(12, 8)).tolist()}
        about |= {"landmarks": np.broadcast_to(face_points, (12, 68, 2)).tolist()}
        (folder / f"clip{number}.json").write_text(json.dumps(about))
    return folder


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the networks small."""
    from mini_training import autoencoder, export, recipe, unet

    small = {"width": 8, "encoder_blocks": 1, "decoder_blocks": 1}
    changes = {"block_out_channels": (16, 16), "norm_num_groups": 4, "attention_heads": 2}
    for module in (recipe, export):
        monkeypatch.setattr(module, "AUTOENCODER", recipe.AUTOENCODER | small)
        monkeypatch.setattr(module, "UNET", recipe.UNET | changes)
    monkeypatch.setattr(autoencoder, "ITEMS", 2)
    monkeypatch.setattr(autoencoder, "_STARTING", 16)
    monkeypatch.setattr(unet, "_CHECKED", (2, 2))
