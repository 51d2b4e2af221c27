"""A job whose every step is booked in a ledger: stages by proxies, media by wrapping the classes that do it.

For a process that does nothing but one measurement: what `timed_media` wraps is wrapped for all of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from lipsync_core import analysis, job
from lipsync_core.backends import StageKind
from lipsync_core.bench.ledger import FRAMEWORK, Ledger
from lipsync_core.media.audio import AudioSource
from lipsync_core.media.mux import mux
from lipsync_core.media.reader import IndexedBatches, VideoReader
from lipsync_core.media.writer import SegmentWriter
from lipsync_core.registry import Entry, Registry
from lipsync_core.scenes import split_scenes
from lipsync_core.types import FrameBatch

DECODE, ENCODE, MUX, SOUND, SCENES, LOAD = "decode", "encode", "mux", "sound", "scenes", "load"
MEDIA: Final = (DECODE, ENCODE, MUX, SOUND)

# What a stage does when called, and which of those calls hand out results one by one.
_METHODS: Final[Mapping[StageKind, tuple[str, ...]]] = {
    StageKind.AUDIO: ("encode",),
    StageKind.ALIGNER: ("track", "crop"),
    StageKind.MASKER: ("mask",),
    StageKind.DENOISER: ("prepare", "generate"),
    StageKind.COMPOSITOR: ("composite",),
}
_STREAMED: Final = {"encode": SOUND, "track": SCENES}
_SOURCE_ITERATORS: Final = ("tracks", "faces", "audio", "target_audio")


class TimedRegistry(Registry):
    """A registry whose backends book what they do.

    `loads` are the wall seconds it took to make each stage's. `seen`, where given, is told of every call of a
    compositor: its frames, faces, mask, and the finished frames; what that takes is booked to no stage.
    """

    def __init__(self, found: Registry, ledger: Ledger, seen: Callable[..., None] | None = None) -> None:
        super().__init__(found.entries, found.profiles, found.problems)
        self.loads: dict[str, float] = {}
        self._ledger = ledger
        self._seen = seen

    def create(self, entry: Entry, options: Any) -> Any:
        """Make the backend as `Registry.create` does, and return it behind a proxy."""
        began = time.perf_counter()
        with self._ledger.spend(LOAD):
            backend = super().create(entry, options)
        kind = entry.spec.kind
        self.loads[kind] = time.perf_counter() - began
        return proxy(backend, self._timed(kind, backend))

    def _timed(self, kind: StageKind, backend: Any) -> dict[str, Callable[..., Any]]:
        timed: dict[str, Callable[..., Any]] = {}
        for name in _METHODS[kind]:
            method = getattr(backend, name, None)
            if method is None:
                continue
            if name in _STREAMED:
                timed[name] = self._stream(kind, method, _STREAMED[name])
            elif name == "prepare":
                timed[name] = self._prepare(method)
            else:
                timed[name] = self._ledger.wrap(kind, method)
        if kind is StageKind.COMPOSITOR and self._seen is not None:
            timed["composite"] = _telling(timed["composite"], self._seen)
        return timed

    def _stream(self, kind: StageKind, method: Callable[..., Any], source: str) -> Callable[..., Iterator[Any]]:
        def timed(items: Iterable[Any], **named: Any) -> Iterator[Any]:
            # Making an input is not the stage's own work.
            yield from self._ledger.watch(kind, method(_Watched(self._ledger, source, items), **named))

        return timed

    def _prepare(self, method: Callable[..., Any]) -> Callable[..., None]:
        def timed(source: Any) -> None:
            iterators = {name: self._sourced(getattr(source, name)) for name in _SOURCE_ITERATORS}
            with self._ledger.spend(StageKind.DENOISER):
                method(proxy(source, iterators))

        return timed

    def _sourced(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any) -> Any:
            with self._ledger.spend(FRAMEWORK):
                items = method(*arguments)
            return None if items is None else self._ledger.watch(FRAMEWORK, items)

        return timed


class _Watched:
    """An iterable, each iteration of which is booked to an account."""

    def __init__(self, ledger: Ledger, account: str, items: Iterable[Any]) -> None:
        self._ledger, self._account, self._items = ledger, account, items

    def __iter__(self) -> Iterator[Any]:
        return self._ledger.watch(self._account, self._items)


def _telling(composite: Callable[..., FrameBatch], seen: Callable[..., None]) -> Callable[..., FrameBatch]:
    def told(frames: Any, faces: Any, mask: Any, generated: Any) -> FrameBatch:
        finished = composite(frames, faces, mask, generated)
        seen(frames, faces, mask, finished)
        return finished

    return told


def proxy(target: Any, replaced: Mapping[str, Callable[..., Any]]) -> Any:
    """Return an object with the public attributes of `target`, those of `replaced` exchanged.

    A class of its own and not `__getattr__`: `isinstance` against a Protocol looks at the class from Python 3.12 on.
    """
    names = [name for name in dir(target) if not name.startswith("_")]
    body: dict[str, Any] = {name: property(_forwarded(target, name)) for name in names}
    body |= {name: staticmethod(call) for name, call in replaced.items()}
    return type(f"Timed{type(target).__name__}", (), body)()


def _forwarded(target: Any, name: str) -> Callable[[Any], Any]:
    return lambda _: getattr(target, name)


class FirstFrame:
    """When the first finished frame reached the encoder: `at`, s of `time.perf_counter`; None before."""

    at: float | None = None


@contextmanager
def timed_media(ledger: Ledger, first: FirstFrame) -> Iterator[None]:
    """Book decoding, encoding, muxing and sound while inside."""

    def watched(account: str, method: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
        return lambda *arguments, **named: ledger.watch(account, method(*arguments, **named))

    def write(self: SegmentWriter, frames: FrameBatch) -> None:
        if first.at is None:
            first.at = time.perf_counter()
        with ledger.spend(ENCODE):
            plain_write(self, frames)

    def split(frames: Iterable[FrameBatch]) -> Iterator[Iterator[FrameBatch]]:
        return ledger.watch(SCENES, plain_split(frames))

    plain_write, plain_split = SegmentWriter.write, split_scenes
    places: list[tuple[Any, str, Any]] = [
        (VideoReader, "__init__", ledger.wrap(DECODE, VideoReader.__init__)),
        (VideoReader, "in_order", watched(DECODE, VideoReader.in_order)),
        (VideoReader, "in_runs", watched(DECODE, VideoReader.in_runs)),
        (IndexedBatches, "__next__", ledger.wrap(DECODE, IndexedBatches.__next__)),
        (AudioSource, "__init__", ledger.wrap(SOUND, AudioSource.__init__)),
        (AudioSource, "frames", watched(SOUND, AudioSource.frames)),
        (SegmentWriter, "__init__", ledger.wrap(ENCODE, SegmentWriter.__init__)),
        (SegmentWriter, "write", write),
        (SegmentWriter, "close", ledger.wrap(ENCODE, SegmentWriter.close)),
        (job, "mux", ledger.wrap(MUX, mux)),
        (analysis, "split_scenes", split),
    ]
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in places]
    for owner, name, replacement in places:
        setattr(owner, name, replacement)
    try:
        yield
    finally:
        for owner, name, original in before:
            setattr(owner, name, original)
