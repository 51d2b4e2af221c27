"""Videos of every usual codec, container, form and size."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

from lipsync_core.media.reader import VideoReader
from tests.core.media.conftest import Clips

from .case import Case, Made, made_at

_AV1: Final = {"preset": "12", "svtav1-params": "lp=1"}
_X265: Final = {"x265-params": "log-level=none:pools=none", "preset": "ultrafast"}

_CODECS: Final[list[tuple[str, str, dict[str, Any]]]] = [
    *((f"H.264 in {s.upper()}", s, {"codec": "libx264"}) for s in ("mp4", "mov", "mkv", "avi", "ts", "flv")),
    *((f"HEVC in {s.upper()}", s, {"codec": "libx265", "options": _X265}) for s in ("mp4", "mov", "mkv", "ts")),
    ("VP8 in WEBM", "webm", {"codec": "libvpx"}),
    *((f"VP9 in {s.upper()}", s, {"codec": "libvpx-vp9"}) for s in ("webm", "mkv", "mp4")),
    *(
        (f"AV1 in {s.upper()}", s, {"codec": "libsvtav1", "options": _AV1, "size": (64, 64)})
        for s in ("mp4", "mkv", "webm")
    ),
    ("MPEG-1 in MPG", "mpg", {"codec": "mpeg1video"}),
    ("MPEG-2 in MPG", "mpg", {"codec": "mpeg2video"}),
    ("MPEG-2 in TS", "ts", {"codec": "mpeg2video"}),
    ("MPEG-4 Part 2 in AVI", "avi", {"codec": "mpeg4"}),
    ("MPEG-4 Part 2 in MP4", "mp4", {"codec": "mpeg4"}),
    ("Motion JPEG in AVI", "avi", {"codec": "mjpeg", "pix_fmt": "yuvj420p"}),
    ("Motion JPEG in MOV", "mov", {"codec": "mjpeg", "pix_fmt": "yuvj422p"}),
    ("ProRes 422 in MOV", "mov", {"codec": "prores_ks", "pix_fmt": "yuv422p10le"}),
    ("ProRes 4444 with alpha in MOV", "mov", {"codec": "prores_ks", "pix_fmt": "yuva444p10le"}),
    (
        "DNxHR in MOV",
        "mov",
        {"codec": "dnxhd", "pix_fmt": "yuv422p", "options": {"profile": "dnxhr_sq"}, "size": (256, 120)},
    ),
    ("FFV1 in MKV", "mkv", {"codec": "ffv1"}),
    ("HuffYUV in AVI", "avi", {"codec": "huffyuv", "pix_fmt": "yuv422p"}),
    ("QuickTime Animation with alpha in MOV", "mov", {"codec": "qtrle", "pix_fmt": "argb"}),
    ("uncompressed in AVI", "avi", {"codec": "rawvideo"}),
    ("GIF, animated", "gif", {"codec": "gif", "pix_fmt": "rgb8", "difference": 30.0}),
    ("PNG, animated", "apng", {"codec": "apng", "pix_fmt": "rgb24"}),
]

_FORMS: Final[list[tuple[str, str, dict[str, Any]]]] = [
    ("H.264, 10 bits", "mp4", {"codec": "libx264", "pix_fmt": "yuv420p10le"}),
    ("H.264, 4:2:2", "mp4", {"codec": "libx264", "pix_fmt": "yuv422p"}),
    ("H.264, 4:4:4", "mp4", {"codec": "libx264", "pix_fmt": "yuv444p"}),
    ("H.264, grey", "mp4", {"codec": "libx264", "pix_fmt": "gray"}),
    ("H.264, RGB", "mkv", {"codec": "libx264rgb", "pix_fmt": "rgb24"}),
    ("HEVC, 10 bits", "mp4", {"codec": "libx265", "options": _X265, "pix_fmt": "yuv420p10le"}),
    ("HEVC, 12 bits, 4:4:4", "mkv", {"codec": "libx265", "options": _X265, "pix_fmt": "yuv444p12le"}),
    ("VP9, 4:4:4", "webm", {"codec": "libvpx-vp9", "pix_fmt": "yuv444p"}),
    ("VP9 with alpha", "webm", {"codec": "libvpx-vp9", "pix_fmt": "yuva420p"}),
    ("AV1, 10 bits", "mp4", {"codec": "libsvtav1", "options": _AV1, "pix_fmt": "yuv420p10le", "size": (64, 64)}),
    ("FFV1, 16 bits", "mkv", {"codec": "ffv1", "pix_fmt": "yuv420p16le"}),
]

# ITU-T H.273: primaries, transfer, matrix.
_TAGS: Final = {
    "BT.709, limited range": (1, 1, 1, 1),
    "BT.709, full range": (1, 1, 1, 2),
    "BT.601 (NTSC), limited range": (6, 6, 6, 1),
    "BT.601 (PAL), full range": (5, 6, 5, 2),
    "HDR10: BT.2020 with PQ": (9, 16, 9, 1),
    "HLG: BT.2020 with HLG": (9, 18, 9, 1),
}

_SIZES: Final = [(16, 16), (18, 34), (65, 49), (63, 48), (64, 47), (640, 24)]


def _also_tags(tags: tuple[int, int, int, int]) -> Any:
    def also(made: Made, output: Path) -> None:
        color = VideoReader(output).color
        assert (color.primaries, color.trc, color.space, color.range) == tags

    return also


def _tagged(clips: Clips, tags: tuple[int, int, int, int], output: str) -> Made:
    primaries, transfer, matrix, reach = tags
    context = {"color_primaries": primaries, "color_trc": transfer, "colorspace": matrix, "color_range": reach}
    ten = transfer in (16, 18)
    how = {"codec": "libx265", "options": _X265, "pix_fmt": "yuv420p10le"} if ten else {"codec": "libx264"}
    return made_at(clips, "in.mp4", context=context, output=output, **how)


def still(clips: Clips, name: str, codec: str, pix_fmt: str, size: tuple[int, int] = (64, 48)) -> Made:
    """A picture, shown for half a second."""
    made = made_at(clips, name, codec, n=1, pix_fmt=pix_fmt, size=size, difference=8.0)
    sound = clips.sound("tone.wav", clips.tone(0.52, 16000, 1), "pcm_s16le", 16000)
    return Made(
        made.video, sound, [0] * 13, [i / 25 for i in range(13)], difference=30.0 if codec == "gif" else 8.0
    )  # few colours, dithered


def _turned(clips: Clips, suffix: str, angle: int, output: str) -> Made:
    made = made_at(clips, f"in.{suffix}", "libx264", rotation=(float(angle), False, False), output=output)
    return Made(made.video, made.sound, None, made.times, output)


def _also_turned(angle: int) -> Any:
    def also(made: Made, output: Path) -> None:
        reader = VideoReader(output)
        assert reader.rotation == angle
        upright = next(iter(reader.pictures())).pixels
        assert upright.shape[:2] == ((64, 48) if angle % 180 else (48, 64))

    return also


def _wide(made: Made, output: Path) -> None:
    assert VideoReader(output).sample_aspect_ratio == Fraction(4, 3)


def _interlaced(clips: Clips) -> Made:
    # Both flags of libavcodec/avcodec.h: AV_CODEC_FLAG_INTERLACED_DCT and AV_CODEC_FLAG_INTERLACED_ME.
    return made_at(clips, "in.mpg", "mpeg2video", context={"flags": (1 << 18) | (1 << 29)})


def video_cases() -> Iterator[Case]:
    """Yield the rows about pictures."""
    for name, suffix, how in _CODECS:
        slow = how["codec"] == "libsvtav1" and suffix != "mp4"
        yield Case("Codecs and containers", name, lambda c, s=suffix, h=how: made_at(c, f"in.{s}", **h), slow=slow)
    yield Case(
        "Pictures",
        "WebP, animated",
        lambda c: made_at(c, "in.webp", "libwebp_anim", options={"lossless": "1"}, pix_fmt="bgra"),
        refused="is animated WebP",
    )
    for name, file, codec, pix_fmt in [
        ("PNG", "in.png", "png", "rgb24"),
        ("PNG, 16 bits with alpha", "in.png", "png", "rgba64be"),
        ("PNG, odd size", "in.png", "png", "rgb24"),
        ("JPEG", "in.jpg", "mjpeg", "yuvj420p"),
        ("WebP", "in.webp", "libwebp", "yuv420p"),
        ("WebP with alpha", "in.webp", "libwebp", "yuva420p"),
        ("GIF of one frame", "in.gif", "gif", "rgb8"),
        ("JPEG 2000", "in.jp2", "jpeg2000", "rgb24"),
        ("BMP", "in.bmp", "bmp", "bgr24"),
        ("TIFF", "in.tiff", "tiff", "rgb24"),
        ("AVIF", "in.avif", "libsvtav1", "yuv420p"),
    ]:
        size = (65, 49) if "odd" in name else (64, 64) if "AVIF" in name else (64, 48)
        yield Case("Pictures", name, lambda c, f=file, k=codec, p=pix_fmt, s=size: still(c, f, k, p, s))
    for name, suffix, how in _FORMS:
        yield Case("Bits, chroma, alpha", name, lambda c, s=suffix, h=how: made_at(c, f"in.{s}", **h))
    for name, tags in _TAGS.items():
        for output in ("mp4", "mkv", "webm"):
            yield Case(
                "Colour",
                f"{name}, to {output}",
                lambda c, t=tags, o=output: _tagged(c, t, f"out.{o}"),
                also=_also_tags(tags),
            )
    for size in _SIZES:
        for output in ("mp4", "webm"):
            yield Case(
                "Sizes and shapes",
                f"{size[0]}×{size[1]}, to {output}",
                lambda c, s=size, o=output: _of_size(c, s, f"out.{o}"),
            )
    yield Case("Sizes and shapes", "3840×2160", lambda c: _of_size(c, (3840, 2160), "out.mp4", n=3), slow=True)
    for output in ("mp4", "mov", "mkv"):
        yield Case(
            "Sizes and shapes",
            f"pixels 4:3, to {output}",
            lambda c, o=output: made_at(
                c, "in.mp4", "libx264", context={"sample_aspect_ratio": Fraction(4, 3)}, output=f"out.{o}"
            ),
            also=_wide,
        )
    yield Case(
        "Sizes and shapes",
        "pixels 4:3, to webm",
        lambda c: made_at(c, "in.mp4", "libx264", context={"sample_aspect_ratio": Fraction(4, 3)}, output="out.webm"),
        refused="pixels, which are not square",
    )
    for angle in (90, 180, 270):
        for suffix, output in (("mp4", "mp4"), ("mov", "mov"), ("mkv", "mkv"), ("mp4", "webm")):
            yield Case(
                "Sizes and shapes",
                f"turned by {angle}°, {suffix} to {output}",
                lambda c, s=suffix, a=angle, o=output: _turned(c, s, a, f"out.{o}"),
                also=_also_turned(angle),
            )
    yield Case("Sizes and shapes", "interlaced MPEG-2", _interlaced)


def _of_size(clips: Clips, size: tuple[int, int], output: str, n: int = 12) -> Made:
    odd = size[0] % 2 or size[1] % 2
    made = made_at(clips, "in.mkv", "ffv1" if odd else "libx264", n=n, size=size, output=output)
    numbers = None if min(size) < 24 else made.numbers
    return Made(made.video, made.sound, numbers, made.times, output)
