"""`in_order` against a plain decode, on every way a file can make seeking hard."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any
from unittest import mock

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lipsync_core.errors import InputError
from lipsync_core.media import order as order_module
from lipsync_core.media.reader import VideoReader

_GOP = "keyint=8:min-keyint=8:scenecut=0:bframes=3"
_MPEG = {"bf": "2", "g": "8", "b": "400000"}
_VFR = np.cumsum([0, *np.random.default_rng(3).integers(20, 90, 39)]).tolist()

CLIPS: dict[str, dict[str, Any]] = {
    "b_frames.mp4": {"options": {"x264-params": _GOP}},
    "one_gop.mp4": {},
    "open_gop.mkv": {"options": {"x264-params": f"{_GOP}:open-gop=1"}},
    "open_gop.ts": {"options": {"x264-params": f"{_GOP}:open-gop=1"}},
    "intra_refresh.mkv": {"options": {"x264-params": "keyint=8:intra-refresh=1:bframes=0"}},
    "hevc.mp4": {"codec": "libx265", "options": {"x265-params": "keyint=8:min-keyint=8:open-gop=1:log-level=none"}},
    "mpeg1.mpg": {"codec": "mpeg1video", "options": _MPEG},
    "mpeg2.vob": {"codec": "mpeg2video", "options": _MPEG},
    "mpeg2.ts": {"codec": "mpeg2video", "options": _MPEG},
    "mpeg4.avi": {"codec": "mpeg4", "options": _MPEG},
    "h264_without_pts.avi": {"options": {"x264-params": _GOP}},
    "variable.mkv": {"options": {"x264-params": _GOP}, "pts": _VFR, "time_base": Fraction(1, 1000)},
    "vp9.webm": {"codec": "libvpx-vp9", "options": {"g": "8", "deadline": "realtime", "cpu-used": "8"}},
    "picture.png": {"codec": "png", "n": 1, "pix_fmt": "rgb24"},
}


class Case:
    """One clip, its index and its plainly decoded frames."""

    def __init__(self, path: Path) -> None:
        self.reader = VideoReader(path)
        self.index = self.reader.index()
        self.plain = [picture.pixels for picture in self.reader.pictures()]


@pytest.fixture(scope="module")
def cases(clips: Any) -> dict[str, Case]:
    return {name: Case(clips.video(name, **{"n": 40} | how)) for name, how in CLIPS.items()}


@pytest.fixture(params=CLIPS)
def case(cases: dict[str, Case], request: pytest.FixtureRequest) -> Case:
    return cases[request.param]


def holding(frames: int, seek_gain: int = 0) -> Any:
    """Let so many 64×48 frames be held, and seek eagerly: the limits of real videos on tiny ones."""
    size = 64 * 48 * 3 // 2
    return mock.patch.multiple(order_module, HOLD_BYTES=frames * size, _SEEK_GAIN=seek_gain)


def assert_same(case: Case, order: list[int]) -> None:
    frames = list(case.reader.in_order(case.index, np.array(order, np.int64)))
    assert len(frames) == len(order)
    wrong = [
        (at, i) for at, (i, got) in enumerate(zip(order, frames, strict=True)) if not np.array_equal(got, case.plain[i])
    ]
    assert not wrong


def test_plain_decode_is_numbered(clips: Any, cases: dict[str, Case]) -> None:
    """The clips do tell their frames apart, so a wrong frame is a different array."""
    for name, case in cases.items():
        assert len(case.index) == (1 if name.endswith("png") else 40), name
        assert [clips.number(pixels) for pixels in case.plain] == list(range(len(case.plain))), name
        assert (np.diff(case.index.pts) > 0).all(), name


@pytest.mark.parametrize("held", [1, 5, 1000])
def test_ping_pong(case: Case, held: int) -> None:
    n = len(case.index)
    with holding(held):
        assert_same(case, [*range(n), *range(n - 1, -1, -1), *range(n)])


@settings(max_examples=25)
@given(data=st.data())
def test_any_order(cases: dict[str, Case], data: st.DataObject) -> None:
    case = cases[data.draw(st.sampled_from(sorted(cases)))]
    frame = st.integers(0, len(case.index) - 1)
    runs = st.one_of(
        st.lists(frame, max_size=8),
        st.builds(lambda a, b: list(range(min(a, b), max(a, b) + 1)), frame, frame),
        st.builds(lambda a, b: list(range(max(a, b), min(a, b) - 1, -1)), frame, frame),
        st.builds(lambda a, k: [a] * k, frame, st.integers(1, 5)),
    )
    order = [i for run in data.draw(st.lists(runs, max_size=5)) for i in run]
    with holding(data.draw(st.integers(1, 12)), data.draw(st.sampled_from([0, 3, 16]))):
        assert_same(case, order)


def test_backward_memory_is_bounded(cases: dict[str, Case]) -> None:
    """No more decoded frames are alive than may be held, the decoder's own and the current one aside."""
    case = cases["one_gop.mp4"]
    most = 0
    original = order_module.Cursor.frame

    def counted(self: Any, target: int) -> Any:
        frame = original(self, target)
        requested.append(target)
        return frame

    requested: list[int] = []
    n = len(case.index)
    with holding(6), mock.patch.object(order_module.Cursor, "frame", counted):
        frames = case.reader.in_order(case.index, np.array([*range(n - 1, -1, -1), 20, 5, *range(6, n)]))
        for given_out, _ in enumerate(frames, 1):
            most = max(most, len(requested) - given_out + 1)
    assert 2 <= most <= 6 + 1


def test_long_gop_jump_seeks(cases: dict[str, Case]) -> None:
    """A far jump does not decode what lies between."""
    case = cases["b_frames.mp4"]
    decoded = 0
    original = order_module.Cursor._advance

    def counted(self: Any) -> None:
        nonlocal decoded
        decoded += 1
        original(self)

    with holding(6, seek_gain=16), mock.patch.object(order_module.Cursor, "_advance", counted):
        assert_same(case, [0, 39])
    assert decoded <= 1 + 8


def test_repeats_share_one_read_only_array(cases: dict[str, Case]) -> None:
    case = cases["b_frames.mp4"]
    a, b, c = case.reader.in_order(case.index, np.array([3, 3, 4]))
    assert a is b
    assert c is not b
    with pytest.raises(ValueError, match="read-only"):
        a[0, 0, 0] = 1


@pytest.mark.parametrize("lengths", [[8], [3, 5], [1] * 8, [5, 2, 1]])
def test_runs_hold_the_same_frames(case: Case, lengths: list[int]) -> None:
    """Forward, held over a run's end, backward and jumping; what a run's taker writes into it shows in no other."""
    last = len(case.index) - 1
    order = np.minimum([4, 5, 5, 5, 6, 2, 2, 30], last)
    seen = case.reader.in_runs(case.index, order, lengths)
    at = 0
    for length in lengths:
        for row in range(length):
            run = next(seen)
            assert np.array_equal(run[row], case.plain[order[at + row]])  # there when it is yielded
        assert run.shape == (length, *case.plain[0].shape)
        assert all(np.array_equal(got, case.plain[i]) for got, i in zip(run, order[at : at + length], strict=True))
        run[...] = 255
        at += length
    assert next(seen, None) is None


def test_a_run_is_let_go_after_its_last_frame(cases: dict[str, Case]) -> None:
    case = cases["b_frames.mp4"]
    runs = case.reader.in_runs(case.index, np.arange(4), [2, 2])
    first = [weakref.ref(next(runs)) for _ in range(2)]
    assert first[0]() is first[1]() is not None
    second = next(runs)
    assert first[0]() is None
    assert len(second) == 2


def test_runs_add_up_to_the_order(cases: dict[str, Case]) -> None:
    case = cases["b_frames.mp4"]
    with pytest.raises(ValueError, match="runs of 3 frames for 4"):
        next(case.reader.in_runs(case.index, np.arange(4), [3]))


def test_frames_outside_the_index(cases: dict[str, Case]) -> None:
    case = cases["b_frames.mp4"]
    for wrong in ([-1], [0, 40]):
        with pytest.raises(IndexError, match="40"):
            next(case.reader.in_order(case.index, np.array(wrong)))
        with pytest.raises(IndexError, match="40"):
            next(case.reader.in_runs(case.index, np.array(wrong), [len(wrong)]))
    assert list(case.reader.in_order(case.index, np.zeros(0, np.int64))) == []


def test_file_replaced_between_passes(clips: Any) -> None:
    path = clips.video("replaced.mp4", n=20)
    reader = VideoReader(path)
    index = reader.index()
    clips.video("replaced.mp4", n=12)
    with pytest.raises(InputError, match="no longer holds"):
        list(reader.in_order(index, np.arange(20)))
    clips.video("replaced.mp4", n=20, pts=[7 * i for i in range(20)])
    with pytest.raises(InputError, match="no longer holds"):
        list(reader.in_order(index, np.arange(20)))


def test_seek_that_lands_on_foreign_times_is_given_up(cases: dict[str, Case]) -> None:
    """After a seek whose frames do not have the index's times everything is decoded from the start: still right."""
    case = cases["b_frames.mp4"]
    seek = av.container.InputContainer.seek
    seeks: list[int] = []

    class Lying:
        """A container whose frames after a seek skip one."""

        def __init__(self, container: Any) -> None:
            self._container = container

        def __getattr__(self, name: str) -> Any:
            return getattr(self._container, name)

        def seek(self, *args: Any, **kwargs: Any) -> None:
            seeks.append(1)
            seek(self._container, *args, **kwargs)

    def skipping(container: Any, stream: Any, damage: Any) -> Iterator[Any]:
        for k, frame in enumerate(decode(getattr(container, "_container", container), stream, damage)):
            if not seeks or k != 3:
                yield frame

    decode = order_module.decode_video
    restart = order_module.Cursor._restart

    def wrapped(self: Any) -> None:
        seeks.clear()
        restart(self)
        self._container = Lying(self._container)

    with (
        holding(3),
        mock.patch.object(order_module, "decode_video", skipping),
        mock.patch.object(order_module.Cursor, "_restart", wrapped),
    ):
        assert_same(case, [*range(40), *range(39, -1, -1)])


def test_pictures_from_the_middle(cases: dict[str, Case]) -> None:
    case = cases["open_gop.mkv"]
    for index in (None, case.index):
        got = list(case.reader.pictures(27, index))
        assert [picture.index for picture in got] == list(range(27, 40))
        assert [picture.pts for picture in got] == case.index.pts[27:].tolist()
        assert all(np.array_equal(picture.pixels, case.plain[picture.index]) for picture in got)
