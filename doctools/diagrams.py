"""The diagrams of the documentation; `python -m doctools.diagrams` draws them into docs/images."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from doctools.svg import ACCENT, DATA, FADED, STAGE, Drawing

FOLDER: Final = Path(__file__).resolve().parent.parent / "docs" / "images"
RENEW: Final = "python -m doctools.diagrams"


def stages() -> Drawing:
    """The five stages and what passes between them."""
    d = Drawing(960, 250, "The five stages and what passes between them")
    d.box(20, 40, 110, 50, "new sound", fill=DATA, bold=False)
    d.box(190, 40, 130, 50, "audio encoder", "what is said")
    d.arrow((130, 65), (190, 65))
    d.box(20, 150, 110, 50, "video", "frames", fill=DATA, bold=False)
    d.box(190, 150, 130, 50, "face aligner", "where the face is")
    d.arrow((130, 175), (190, 175))
    d.box(390, 150, 120, 50, "masker", "what to replace")
    d.arrow((320, 175), (390, 175), words="crops")
    d.box(580, 150, 130, 50, "denoiser", "makes the mouth")
    d.arrow((510, 175), (580, 175), words="masks")
    d.arrow((320, 65), (645, 65), (645, 150), words="features of each frame")
    d.box(780, 150, 130, 50, "compositor", "puts it back")
    d.arrow((710, 175), (780, 175), words="mouths")
    d.box(790, 40, 110, 50, "dubbed video", fill=DATA, bold=False)
    d.arrow((845, 150), (845, 90))
    d.arrow((75, 200), (75, 230), (845, 230), (845, 200), dashed=True)
    d.text(460, 224, "the frames themselves: all but the mouth stays as it is", colour=FADED)
    return d


def passes() -> Drawing:
    """Two passes over the video."""
    d = Drawing(960, 310, "Two passes over the video, and what is kept between them")
    d.text(20, 30, "Pass 1: analyse, once a video", anchor="start", bold=True)
    d.box(20, 45, 120, 46, "decode", fill=DATA)
    d.box(190, 45, 140, 46, "find scene cuts", fill=DATA)
    d.box(380, 45, 140, 46, "track the face")
    d.box(580, 45, 200, 46, "analysis cache", "hundreds of bytes a frame", fill=DATA)
    for x0, x1 in ((140, 190), (330, 380), (520, 580)):
        d.arrow((x0, 68), (x1, 68))
    d.text(20, 135, "Pass 2: render, once a job", anchor="start", bold=True)
    d.box(20, 150, 170, 46, "timeline", "which frame, when", fill=DATA)
    d.box(240, 150, 190, 46, "chunks", "one scene, ≤ max_frames", fill=DATA)
    d.box(480, 150, 210, 46, "crop, mask, generate,", "composite")
    d.box(740, 150, 200, 46, "segments", "ten seconds each, kept", fill=DATA)
    for x0, x1 in ((190, 240), (430, 480), (690, 740)):
        d.arrow((x0, 173), (x1, 173))
    d.arrow((680, 91), (680, 120), (335, 120), (335, 150), dashed=True)
    d.box(740, 240, 200, 46, "join, add the sound", "rename to the output", fill=DATA)
    d.arrow((840, 196), (840, 240))
    d.text(20, 262, "Decoding, generating and encoding run at once, with short queues between them:", anchor="start")
    d.text(20, 281, "memory does not grow with the length of the video.", anchor="start")
    return d


def audio() -> Drawing:
    """Which rows of the audio features a frame sees."""
    d = Drawing(960, 230, "Which rows of Whisper's features a video frame sees")
    left, step = 40, 22
    for row in range(40):
        seen = 16 <= row <= 25
        d.box(left + row * step, 90, step - 3, 40, fill=STAGE if seen else DATA)
    for frame in range(20):
        d.box(left + frame * 2 * step, 40, 2 * step - 4, 26, str(frame), fill=DATA, bold=frame == 10)
    d.text(20, 28, "video frames, 25 a second", anchor="start", bold=True)
    d.text(20, 152, "rows of the encoder, 50 a second,", anchor="start", bold=True)
    d.text(20, 170, "each five states of 384 numbers", anchor="start", bold=True)
    d.arrow((left + 20 * step + 20, 66), (left + 20 * step + 20, 90))
    x0, x1 = left + 16 * step, left + 26 * step - 3
    d.shape([(x0, 134), (x1, 134), (x1 - 40, 180), (x0 + 40, 180)], STAGE, 0.5)
    d.text((x0 + x1) / 2, 198, "frame 10: rows 16 to 25, ten rows of five states: 50 tokens of 384", colour=ACCENT)
    d.text((x0 + x1) / 2, 217, "before the sound and after its end the outermost row is repeated", colour=FADED)
    return d


def unet() -> Drawing:
    """What goes into LatentSync's U-Net, and the loop around it."""
    d = Drawing(960, 330, "The input of LatentSync's U-Net, and the loop around it")
    parts = (
        ("noisy latents", "4 channels"),
        ("mask", "1 channel"),
        ("face without mouth", "4 channels, encoded"),
        ("reference face", "4 channels, encoded"),
    )
    for row, (name, what) in enumerate(parts):
        d.box(20, 30 + row * 64, 180, 50, name, what, fill=DATA)
        d.arrow((200, 55 + row * 64), (250, 55 + row * 64))
    d.box(250, 30, 72, 242, "13", "channels", fill=DATA)
    d.box(
        370,
        95,
        210,
        112,
        "U-Net",
        "convolutions within a frame,",
        "attention to the sound,",
        "attention across 16 frames",
    )
    d.arrow((322, 151), (370, 151))
    d.box(385, 20, 180, 46, "audio tokens", "50 × 384 for each frame", fill=DATA)
    d.arrow((475, 66), (475, 95))
    d.box(640, 120, 130, 62, "the noise in it", "4 channels", fill=DATA)
    d.arrow((580, 151), (640, 151))
    d.box(640, 225, 130, 46, "scheduler", "one step down")
    d.arrow((705, 182), (705, 225))
    d.arrow((640, 248), (345, 248), (345, 310), (10, 310), (10, 55), (20, 55), dashed=True)
    d.text(350, 303, "20 times, from pure noise to a clean latent", anchor="start", colour=ACCENT)
    d.box(820, 225, 120, 46, "decoder", "latent to pixels")
    d.arrow((770, 248), (820, 248), words="at last")
    d.box(820, 120, 120, 62, "mouth", "in the mask", fill=DATA)
    d.arrow((880, 225), (880, 182))
    return d


def geometry() -> Drawing:
    """A face, its crop, the mask, and the way back."""
    d = Drawing(960, 270, "From the frame to the crop and back")
    d.box(20, 40, 300, 200, fill=DATA)
    d.text(170, 30, "frame, pixels (x, y)", bold=True)
    tilt = math.radians(-14)

    def at(x: float, y: float) -> tuple[float, float]:
        """Return a point of the head's own upright square (−1…1) in the frame."""
        return 190 + 62 * (x * math.cos(tilt) - y * math.sin(tilt)), 140 + 62 * (
            x * math.sin(tilt) + y * math.cos(tilt)
        )

    d.shape([at(-1.1, -1.1), at(1.1, -1.1), at(1.1, 1.1), at(-1.1, 1.1)], STAGE, 0.6)
    d.shape(
        [at(0.78 * math.cos(a), 0.1 + 0.95 * math.sin(a)) for a in [k * math.pi / 16 for k in range(32)]], "#f2d3bf"
    )
    for x, y in (at(-0.35, -0.25), at(0.35, -0.25)):
        d.ellipse(x, y, 5, 3, "#1d2a2e")
    d.shape([at(-0.3, 0.52), at(0, 0.44), at(0.3, 0.52), at(0, 0.66)], ACCENT)
    d.arrow((330, 110), (430, 110), words="frame_to_crop")
    d.arrow((430, 180), (330, 180))
    d.text(380, 200, "its inverse", colour=ACCENT)
    for left, name in ((440, "crop, S × S"), (720, "mask: 1 = generate")):
        d.box(left, 40, 200, 200, fill=STAGE)
        d.text(left + 100, 30, name, bold=True)
        middle = left + 100
        d.ellipse(middle, 150, 70, 86, "#f2d3bf")
        for x in (middle - 32, middle + 32):
            d.ellipse(x, 118, 5, 3, "#1d2a2e")
        d.shape([(middle - 27, 187), (middle, 180), (middle + 27, 187), (middle, 200)], ACCENT)
    jaw = [(820 + 84 * math.cos(a), 160 + 74 * math.sin(a)) for a in [k * math.pi / 20 for k in range(21)]]
    d.shape([(904, 128), *jaw, (736, 128), (790, 128), (800, 152), (840, 152), (850, 128)], "#1d6f63", 0.45)
    d.arrow((650, 140), (710, 140))
    return d


DIAGRAMS: Final[Mapping[str, Callable[[], Drawing]]] = {
    "stages": stages,
    "passes": passes,
    "audio-windows": audio,
    "unet": unet,
    "geometry": geometry,
}


def main() -> None:
    """Draw them all."""
    for name, draw in DIAGRAMS.items():
        (FOLDER / f"{name}.svg").write_text(str(draw()), encoding="utf-8")
    sys.stdout.write(f"{len(DIAGRAMS)} diagrams are drawn into docs/images\n")


if __name__ == "__main__":
    main()
