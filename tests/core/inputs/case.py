"""A row of the matrix: files are made, a whole job is run on them, and what came out is held against what went in."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any
from unittest import mock

import av
import numpy as np
from numpy.typing import NDArray

from lipsync_core import api
from lipsync_core.errors import LipsyncError
from lipsync_core.media.reader import VideoReader
from lipsync_core.registry import discover
from tests.core.media.conftest import Clips

from . import passing

_TICK_S = 0.0011  # Matroska rounds times to milliseconds


@dataclass(frozen=True)
class Made:
    """The inputs of a job and what is true of them.

    numbers: of the frames in order of showing, None where the pictures carry none. times: when each is shown, s from
    the first. output: the name to write. difference: of a stored picture from the source's, grey levels, at most.
    """

    video: Path
    sound: Path
    numbers: Sequence[int] | None
    times: Sequence[float]
    output: str = "out.mp4"
    flags: dict[str, Any] = field(default_factory=dict)
    difference: float = 6.0


@dataclass(frozen=True)
class Case:
    """One row. `refused`: a part of the sentence where the job is to be refused. `also`: more to hold of the output."""

    group: str
    name: str
    make: Callable[[Clips], Made]
    refused: str = ""
    also: Callable[[Made, Path], None] | None = None
    slow: bool = False

    @property
    def id(self) -> str:
        return f"{self.group}: {self.name}"


def run(case: Case, folder: Path) -> str:
    """Run a case in an empty folder and return what the table says; raises `AssertionError`."""
    made = case.make(Clips(folder))
    (folder / "passing.toml").write_text(passing.PROFILE)
    output = folder / made.output
    before = set(folder.iterdir())
    refusal = None
    with _said() as warnings:
        try:
            api.dub(made.video, made.sound, output, profile=folder / "passing.toml", flags=made.flags)
        except LipsyncError as error:
            refusal = error
    if refusal is not None:
        assert case.refused, f"refused: {refusal}"
        assert case.refused in refusal.cause, refusal.cause
        assert refusal.cause.endswith(".")
        assert set(folder.iterdir()) - before <= {folder / "cache"}, "something half done is left"
        return f"refused: {_nameless(str(refusal), folder)}"
    assert not case.refused, "the job was not refused"
    facts = _hold(made, output)
    if case.also is not None:
        case.also(made, output)
    return "; ".join([*facts, *(f"warns: {_nameless(line, folder)}" for line in warnings)])


@contextmanager
def _said() -> Iterator[list[str]]:
    """Give jobs the passing backends and collect what they warn of."""
    lines: list[str] = []

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    handler = Kept(logging.WARNING)
    logger = logging.getLogger("lipsync_core")
    logger.addHandler(handler)
    registry = discover([EntryPoint("passing", passing.__name__, "lipsync")])
    try:
        with mock.patch.object(api, "discover", return_value=registry):
            yield lines
    finally:
        logger.removeHandler(handler)


def _nameless(text: str, folder: Path) -> str:
    return text.replace(f"{folder}/", "").replace(str(folder), "")


def _hold(made: Made, output: Path) -> list[str]:
    source, dubbed = VideoReader(made.video), VideoReader(output)
    before, after = source.info, dubbed.info
    assert (after.width, after.height) == (before.width, before.height)
    if not source.is_still:
        assert dubbed.orientation == source.orientation
        assert dubbed.sample_aspect_ratio == source.sample_aspect_ratio
    frames = list(dubbed.pictures())
    times = [float((p.pts - frames[0].pts) * dubbed.time_base) for p in frames]
    assert len(times) == len(made.times), f"{len(times)} frames of {len(made.times)}"
    late = np.abs(np.array(times) - made.times).max()
    assert late <= _TICK_S, f"a frame is {late * 1000:.1f} ms off"
    if made.numbers is not None:
        assert [Clips.number(p.pixels) for p in frames] == list(made.numbers)
    _hold_pictures(made, source, output)
    sound = _hold_sound(output, times, after.fps)
    depth, chroma, alpha = _form(source.pix_fmt)
    remarks = [f"{depth} bits become 8"] if depth > 8 else []
    remarks += ["alpha is dropped"] if alpha else []
    _, kept, _ = _form(dubbed.pix_fmt)
    remarks += [f"{chroma} becomes {kept}"] if chroma != kept else []
    return [f"{after.width}×{after.height}, {_rate(made.times, dubbed)}", *remarks, sound]


def _rate(times: Sequence[float], dubbed: VideoReader) -> str:
    count = f"{len(times)} frame{'s' * (len(times) > 1)}"
    steps = np.diff(times)
    if len(steps) and steps.max() - steps.min() > 2 * _TICK_S:
        return f"{count} of variable rate"
    return f"{count} at {float(dubbed.info.fps):.5g} fps"


def _form(pix_fmt: str) -> tuple[int, str, bool]:
    """Return bits, chroma and whether there is alpha of a pixel format."""
    form = av.VideoFormat(pix_fmt)
    bits = max(component.bits for component in form.components)
    alpha = any(component.is_alpha for component in form.components)
    if form.is_rgb or form.has_palette:
        return (8 if form.has_palette else bits), "RGB", alpha
    if len(form.components) < 3:
        return bits, "grey", alpha
    across, down = form.chroma_width(8), form.chroma_height(8)
    names = {(8, 8): "4:4:4", (4, 8): "4:2:2", (4, 4): "4:2:0", (8, 4): "4:4:0", (2, 8): "4:1:1"}
    return bits, names[across, down], alpha


def _hold_pictures(made: Made, source: VideoReader, output: Path) -> None:
    """Stored pictures are the source's within what encoding costs, as any player with the same tags shows them."""
    wanted = _plain(made.video, 1 if source.is_still else None)
    got = _plain(output, None)
    order = range(len(made.times)) if made.numbers is None else made.numbers
    first = min(order)
    for frame, number in zip(got, order, strict=True):
        original = wanted[min(number - first, len(wanted) - 1)].astype(int)
        if original.shape != frame.shape:  # a photo is turned upright
            continue
        off = float(np.abs(frame.astype(int) - original).mean())
        assert off < made.difference, f"pictures differ by {off:.1f} grey levels"


def _plain(path: Path, most: int | None) -> list[NDArray[np.uint8]]:
    frames = []
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            frames.append(frame.to_ndarray(format="rgb24"))
            if len(frames) == most:
                break
    return frames


def _hold_sound(output: Path, times: Sequence[float], fps: Fraction) -> str:
    """The sound is as long as the pictures; returns what it is."""
    with av.open(str(output)) as container:
        stream = container.streams.audio[0]
        codec, layout = stream.codec_context.codec.canonical_name, stream.codec_context.layout.name
        heard = sum(frame.samples for frame in container.decode(stream)) / stream.rate
        rate = stream.rate
    last = max(1 / float(fps), times[-1] - times[-2] if len(times) > 1 else 0.0)
    # Codecs work in blocks of up to 2048 samples, and may need a block to begin.
    assert abs(heard - times[-1] - last) <= 2 * 2048 / rate + last, f"sound of {heard:.3f} s under {times[-1]:.3f} s"
    return f"{codec} {rate} Hz {layout}"


def steady(n: int, rate: Fraction | int = 25) -> list[float]:
    """Return the times of n frames at a rate."""
    return [float(i / Fraction(rate)) for i in range(n)]


def made_at(
    clips: Clips, name: str, codec: str, *, n: int = 12, rate: Fraction | int = 25, output: str = "out.mp4", **how: Any
) -> Made:
    """Write `n` numbered frames and a tone as long as they are."""
    difference = how.pop("difference", 6.0)
    video = clips.video(name, codec, n=n, rate=rate, **how)
    seconds = float(n / Fraction(rate))
    sound = clips.sound("tone.wav", clips.tone(seconds, 16000, 1), "pcm_s16le", 16000)
    return Made(video, sound, range(n), steady(n, rate), output, difference=difference)
