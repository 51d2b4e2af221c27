"""What is fuzzed: each target makes an input from a random generator and feeds it to the code that reads such inputs.

A target raises whatever is a finding. What is no finding, it catches: a `LipsyncError`, which is one sentence for the
user, and for the manifest pydantic's own error, which never reaches one.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import random
import string
import tempfile
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import numpy as np
from pydantic import ValidationError

from lipsync_core import cache
from lipsync_core.analysis import Analysis
from lipsync_core.errors import LipsyncError
from lipsync_core.landmarks import COUNT
from lipsync_core.media.audio import AudioSource
from lipsync_core.media.extras import Extras
from lipsync_core.media.index import FrameIndex
from lipsync_core.media.reader import VideoReader
from lipsync_core.models.exported import ExportRecord
from lipsync_core.models.folder import read_config
from lipsync_core.models.manifest import Manifest
from lipsync_core.registry import discover
from lipsync_core.settings import resolve
from lipsync_core.types import FaceTrack
from tests.core.media.conftest import Clips

ROOT: Final = Path(__file__).resolve().parents[3]
_MODELS: Final = ROOT / "lipsync_core" / "models"
_PROFILES: Final = ROOT / "lipsync_core" / "profiles"
_INTERESTING: Final = (0, 1, 0x7F, 0x80, 0xFF)

registry = functools.cache(discover)


def mutated(data: bytes, chance: random.Random, *, head: int | None = None) -> bytes:
    """Return `data` with some of its bytes changed, cut out, doubled or moved; most of them within the first `head`."""
    made = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 4, 16, 64))):
        if not made:
            break
        reach = len(made) if head is None or chance.random() < 0.2 else min(head, len(made))
        at, length = chance.randrange(reach), chance.choice((1, 1, 2, 4, 8, 40))
        kind = chance.randrange(6)
        if kind == 0:
            made[at] ^= 1 << chance.randrange(8)
        elif kind == 1:
            made[at : at + length] = bytes(chance.choice(_INTERESTING) for _ in range(length))
        elif kind == 2:
            del made[at : at + length]
        elif kind == 3:
            made[at:at] = made[at : at + length]
        elif kind == 4:
            made[at : at + 4] = chance.randrange(1 << 32).to_bytes(4, chance.choice(("big", "little")))
        else:
            made = made[: max(1, at)] if chance.random() < 0.2 else made
    return bytes(made)


def _value(chance: random.Random, depth: int = 0) -> Any:
    """Return any value JSON or TOML can hold."""
    kinds: list[Callable[[], Any]] = [
        lambda: chance.choice((True, False)),
        lambda: chance.choice((0, 1, -1, 2**31, 2**63, 10**400, -(10**30))),
        lambda: chance.choice((0.0, -1.5, 1e308, float("inf"), float("nan"))),
        lambda: "".join(chance.choices(string.printable + "é\u2028\x00😀", k=chance.randrange(12))),
        lambda: chance.choice(("../x", "/etc/passwd", "a/../../b", "C:\\x", "source", "draft", "auto", "nan", "1/0")),
        lambda: "x" * 100_000,
        lambda: "9" * 5000,
        lambda: "[" * 3000,
        lambda: "~nobody/x",
    ]
    if depth < 3:
        kinds.append(lambda: [_value(chance, depth + 1) for _ in range(chance.randrange(4))])
        kinds.append(lambda: {str(_value(chance, 3)): _value(chance, depth + 1) for _ in range(chance.randrange(4))})
    return chance.choice(kinds)()


def _varied(content: Any, chance: random.Random) -> Any:
    """Return a structure like `content` with some values replaced, dropped or added."""
    if chance.random() < 0.04:
        return _value(chance)
    if isinstance(content, dict):
        kept = {key: _varied(value, chance) for key, value in content.items() if chance.random() > 0.02}
        return kept | ({str(_value(chance, 3)): _value(chance)} if chance.random() < 0.05 else {})
    if isinstance(content, list):
        return [_varied(value, chance) for value in content if chance.random() > 0.02]
    return content


def profile(chance: random.Random, folder: Path) -> None:
    """A profile file: mutated text of a packaged one."""
    text = chance.choice(sorted(_PROFILES.glob("*.toml"))).read_bytes()
    file = folder / "fuzz.toml"
    file.write_bytes(mutated(text, chance))
    with contextlib.suppress(LipsyncError):
        resolve(registry(), profile=file, folder=folder, environment={})


_KEYS: Final = (
    *("job.crf", "job.fps", "job.seed", "job.c2pa_key", "job.model", "job", "masker", "audio.options"),
    *("aligner.options.face", "compositor.options.x", "denoiser.backend", "denoiser.options"),
    "denoiser.options.candidates",
)


def set_(chance: random.Random, folder: Path) -> None:
    """`--set` and the environment."""
    texts = []
    for _ in range(chance.randrange(1, 4)):
        key = chance.choice(_KEYS) if chance.random() < 0.8 else str(_value(chance, 3))
        texts.append(mutated(f"{key}={_value(chance)}".encode(), chance).decode("utf-8", "replace"))
    names = {f"LIPSYNC_{text.split('=')[0].replace('.', '__')}": text.partition("=")[2] for text in texts}
    with contextlib.suppress(LipsyncError):
        if chance.random() < 0.3:
            resolve(registry(), folder=folder, environment=names)
        else:
            resolve(registry(), overrides=texts, folder=folder, environment={})


_EXPORT: Final[dict[str, Any]] = {
    "format": 1, "model": "m", "precision": "float32", "resolution": 64, "opset": 18, "versions": {"onnx": "1"},
    "sources": {"unet.pt": "0" * 64},
    "graphs": {"unet": {"file": "unet.onnx", "sha256": "0" * 64, "inputs": {"latents": ["b", 4, "f", 8, 8]},
                        "lengths": {"b": [1, 2]}, "nodes": 3, "nodes_before": 4, "difference": 0.1, "scale": 1.0}},
}  # fmt: skip


def manifest(chance: random.Random, folder: Path) -> None:
    """The weight manifest, a model folder's description, an export's record."""
    import tomllib

    which = chance.randrange(3)
    with contextlib.suppress(ValidationError):
        if which == 0:
            Manifest.model_validate(_varied(tomllib.loads((_MODELS / "manifest.toml").read_text("utf-8")), chance))
        elif which == 1:
            ExportRecord.model_validate(_varied(_EXPORT, chance))
    if which == 2:
        text = (_MODELS / "latentsync-1.6.json").read_bytes()
        file = folder / "model.json"
        file.write_bytes(
            mutated(text, chance) if chance.random() < 0.5 else json.dumps(_varied(json.loads(text), chance)).encode()
        )
        with contextlib.suppress(LipsyncError):
            read_config(file)


@functools.cache
def media_seeds() -> tuple[tuple[str, bytes], ...]:
    """Small whole files of many containers, with sound where they hold it."""
    made = []
    with tempfile.TemporaryDirectory() as folder:
        clips = Clips(Path(folder))
        tone = clips.tone(0.2, 16000, 1)
        for name, codec, more in (
            ("a.mp4", "libx264", {"sound": tone, "sound_rate": 16000}),
            ("a.mkv", "libx264", {"sound": tone, "sound_rate": 16000}),
            ("a.mov", "mjpeg", {"pix_fmt": "yuvj420p"}),
            ("a.webm", "libvpx-vp9", {"sound": tone, "sound_rate": 48000, "sound_codec": "libopus"}),
            ("a.avi", "mpeg4", {"sound": tone, "sound_rate": 16000, "sound_codec": "pcm_s16le"}),
            ("a.ts", "mpeg2video", {"sound": tone, "sound_rate": 16000}),
            ("a.mpg", "mpeg1video", {}),
            ("a.flv", "libx264", {}),
            ("a.gif", "gif", {"pix_fmt": "rgb8"}),
            ("a.png", "png", {"pix_fmt": "rgb24", "n": 1}),
            ("a.jpg", "mjpeg", {"pix_fmt": "yuvj420p", "n": 1}),
            ("a.webp", "libwebp", {"n": 1}),
        ):
            path = clips.video(name, codec, **{"n": 5, **more})
            made.append((name, path.read_bytes()))
        for name, codec in (("b.wav", "pcm_s16le"), ("b.mp3", "libmp3lame"), ("b.flac", "flac"), ("b.m4a", "aac")):
            made.append((name, clips.sound(name, clips.tone(0.2, 44100, 1), codec).read_bytes()))
    return tuple(made)


def media(chance: random.Random, folder: Path) -> None:
    """Opening and reading media: real files with mutated headers."""
    name, data = chance.choice(media_seeds())
    file = folder / f"fuzz{Path(name).suffix}"
    file.write_bytes(mutated(data, chance, head=chance.choice((64, 600, 4000))))
    with contextlib.suppress(LipsyncError):
        reader = VideoReader(file)
        if reader.info.width * reader.info.height <= 4 << 20:  # a header may say more than a test should wait for
            index = reader.index()
            order = np.array([len(index) - 1, 0, len(index) // 2])
            for _ in zip(range(3), reader.in_order(index, order), strict=False):
                pass
            Extras.of(file, index.pts[0].item() * index.time_base).chapters_until(Fraction(1))
    with contextlib.suppress(LipsyncError):
        for count, _ in enumerate(AudioSource(file).blocks(16000)):
            if count == 20:
                break


def _analysis() -> Analysis:
    n = 40
    landmarks = np.zeros((n, COUNT, 2), np.float32)
    track = FaceTrack(0, np.tile(np.eye(2, 3), (n, 1, 1)), np.ones(n, np.bool_), landmarks, 64)
    return Analysis(FrameIndex(np.arange(n), np.ones(n, np.bool_), Fraction(1, 25), n), (track,))


def cache_file(chance: random.Random, folder: Path) -> None:
    """Analysis cache files."""
    whole = folder / "whole.npz"
    if not whole.exists():
        cache._save(whole, _analysis())
    key = "fuzz"
    file = cache.analysis_dir() / f"{key}.npz"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(mutated(whole.read_bytes(), chance, head=chance.choice((None, 200))))
    found, _ = cache.cached(key, _analysis)
    assert len(found.index) == len(found.found) == len(found.scene_of)


TARGETS: Final[dict[str, Callable[[random.Random, Path], None]]] = {
    "profile": profile,
    "set": set_,
    "manifest": manifest,
    "media": media,
    "cache": cache_file,
}


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep warnings about damage to themselves."""
    logger = logging.getLogger("lipsync_core")
    was = logger.disabled, logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.disabled, level = was
        logger.setLevel(level)
