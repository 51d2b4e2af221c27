"""Every code block of the documentation is run as a reader would run it; see `blocks.py` for what is not."""

from __future__ import annotations

import shutil
import wave
from collections.abc import Iterator
from pathlib import Path

import av
import pytest

from lipsync_core.errors import WeightsError
from lipsync_core.models import store
from lipsync_core.paths import CACHE_VARIABLE
from lipsync_core.testing import samples
from tests.docs.blocks import ROOT, Sandbox, blocks_of

PAGES = sorted((ROOT / "docs").rglob("*.md"))
PARSED_ONLY = [ROOT / "README.md"]  # the same commands are run in docs/
FRAMES = 14  # the fewest of which something is told, and few enough to be quick


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the pages work on: talk.mp4, portrait.png, speech.wav and the same in other languages; a shared cache."""
    folder = tmp_path_factory.mktemp("docs")
    pictures = samples.frames(0, FRAMES).pixels
    with av.open(str(folder / "talk.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=samples.FPS)
        stream.height, stream.width, stream.pix_fmt = samples.HEIGHT, samples.WIDTH, "yuv420p"
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    av.VideoFrame.from_ndarray(pictures[0], format="rgb24").to_image().save(folder / "portrait.png")
    for name in ("speech", "speech.de", "speech.fr", "speech.ja"):
        with wave.open(str(folder / f"{name}.wav"), "wb") as file:
            file.setparams((1, 2, 16000, 0, "NONE", ""))
            file.writeframes((samples.speech(FRAMES / 25, 16000) * 32767).astype("<i2").tobytes())
    return folder


@pytest.fixture
def sandbox(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    try:
        store.locate("face-landmarker", download=False)
    except WeightsError as error:
        pytest.skip(str(error))
    for file in files.iterdir():
        if file.is_file():
            shutil.copy(file, tmp_path)
    monkeypatch.setenv(CACHE_VARIABLE, str(files / "cache"))
    box = Sandbox(tmp_path, monkeypatch)
    yield box
    box.forget()


@pytest.mark.facemodel
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_the_blocks_of_a_page(page: Path, sandbox: Sandbox) -> None:
    for block in blocks_of(page):
        sandbox.run(block)


@pytest.mark.parametrize("page", PARSED_ONLY, ids=lambda page: page.name)
def test_the_commands_of_a_page_can_be_given(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sandbox = Sandbox(tmp_path, monkeypatch, parse_only=True)
    found = blocks_of(page)
    assert found
    for block in found:
        sandbox.run(block)
