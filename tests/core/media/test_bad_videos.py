"""Every way a path can be no video: one sentence for the cause, one for the cure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from lipsync_core.errors import InputError
from lipsync_core.media.probe import demux
from lipsync_core.media.reader import VideoReader


def bad_inputs(clips: Any) -> dict[str, Path]:
    folder = clips.folder / "bad"
    folder.mkdir(exist_ok=True)
    (folder / "text.mp4").write_text("Once upon a time there was no video.\n" * 50)
    (folder / "zero.mp4").write_bytes(b"")
    (folder / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(5000))
    (folder / "list.m3u8").write_text(
        "#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\nhttp://127.0.0.1:1/a.ts\n#EXT-X-ENDLIST\n"
    )
    (folder / "story.txt").write_text("hello\n" * 100)
    wave = clips.sound("sound.wav", clips.tone(0.2), "pcm_s16le")
    header = clips.video("header.mp4", n=3).read_bytes()
    # The pictures are gone, the tables are there.
    (folder / "hollow.mp4").write_bytes(
        header.replace(
            header[header.index(b"mdat") + 4 :][:3000], bytes(len(header[header.index(b"mdat") + 4 :][:3000])), 1
        )
    )
    return {
        "no file": folder / "absent.mp4",
        "is not a file": folder,
        "zero bytes": folder / "zero.mp4",
        "text.mp4' is not a video": folder / "text.mp4",
        "noise.mp4' is not a video": folder / "noise.mp4",
        "list.m3u8'": folder / "list.m3u8",
        "story.txt'": folder / "story.txt",
        "has no video": wave,
        "hollow.mp4'": folder / "hollow.mp4",
    }


def test_what_is_no_video(clips: Any) -> None:
    for message, path in bad_inputs(clips).items():
        with pytest.raises(InputError) as caught:
            VideoReader(path)
        assert message in caught.value.cause, caught.value.cause
        for sentence in (caught.value.cause, caught.value.cure):
            assert sentence.endswith(".")
            assert "\n" not in sentence
            assert sentence[0].isupper() or sentence[0] == "'"


def test_unreadable(clips: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    path = clips.video("locked.mp4", n=2)

    def refused(*_args: Any, **_kwargs: Any) -> Any:
        raise av.error.PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(av, "open", refused)
    with pytest.raises(InputError, match="may not be read"):
        VideoReader(path)


def test_cover_art_is_no_video(clips: Any) -> None:
    path = clips.folder / "cover.mp3"
    picture = clips.video("cover.png", "png", n=1, pix_fmt="rgb24")
    with av.open(str(path), "w") as container, av.open(str(picture)) as art:
        sound = container.add_stream("libmp3lame", rate=44100)
        cover = container.add_stream_from_template(art.streams.video[0], opaque=True)
        cover.disposition = av.stream.Disposition.attached_pic
        for packet in art.demux(video=0):
            if packet.size:
                packet.stream = cover
                container.mux(packet)
        for packet in clips._encoded(sound, clips.tone(0.5), 44100):
            container.mux(packet)
    with av.open(str(path)) as check:
        assert len(check.streams.video) == 1
    with pytest.raises(InputError, match="no video"):
        VideoReader(path)


def test_a_stream_that_begins_midway_does_not_end_the_others() -> None:
    """PyAV raises an IndexError at its packet and goes on after it when it is asked again."""

    class Container:
        packets = iter([1, 2, "of another", 3])

        def demux(self, *streams: Any) -> Any:
            for packet in self.packets:
                if packet == "of another":
                    raise IndexError("list index out of range")
                yield packet

    assert list(demux(Container(), None)) == [1, 2, 3]  # type: ignore[arg-type, type-var]
