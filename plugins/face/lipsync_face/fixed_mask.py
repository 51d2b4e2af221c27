"""The masker `fixed-mask`: LatentSync's one mask for every aligned face, drawn from its outline.

Only for crops of geometry `latentsync`, where every face has the same place. Shape and resizing as the reference's
`latentsync/utils/mask.png` and `image_processor.py` have them.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from lipsync_core.types import AlignedFaces, MouthMask

SIDE: Final = 256  # px, the size it is drawn at; a pixel is inside where its centre is
# Both cheeks beside the nose: columns and rows, last one included.
CHEEKS: Final = ((9, 77), (178, 246))
CHEEK_ROWS: Final = (95, 127)
# The jaw below: its left and right edge as corners (row, column) joined by straight lines. Fitted to the reference's
# mask with as few corners as give the same pixels.
# fmt: off
JAW_LEFT: Final = (
    (128, 8.45), (170, 11.45), (184, 19.37), (190, 23.25), (208, 39.34), (210, 42.70), (215, 48.41), (224, 63.29),
    (235, 86.10), (238, 94.98), (239, 98.06), (241, 107.98), (242, 130.98),
)
JAW_RIGHT: Final = (
    (128, 247.45), (169, 244.54), (181, 237.76), (185, 234.63), (193, 229.76), (207, 217.97), (217, 206.62),
    (219, 203.25), (222, 199.57), (230, 185.89), (238, 166.07), (239, 164.02), (242, 152.02),
)
# fmt: on


class FixedMaskOptions(BaseModel):
    """`fixed-mask` has no options."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class FixedMasker:
    """Gives every crop the same mask."""

    def __init__(self, options: FixedMaskOptions) -> None:
        self._options = options

    def mask(self, faces: AlignedFaces) -> MouthMask:
        """Return the mask of each crop; at sides other than 256 its edge is soft."""
        generate = generate_area(faces.track.crop_size)
        return MouthMask(np.repeat(generate[None], len(faces.track), axis=0))


@lru_cache(maxsize=4)
def generate_area(side: int) -> NDArray[np.float32]:
    """Return the area to generate, float32 [side, side]: 1 inside; Lanczos makes its edge soft where side ≠ 256."""
    keep: NDArray[Any] = np.where(_draw(), 0, 255).astype(np.uint8)
    if side != SIDE:
        keep = cv2.resize(keep, (side, side), interpolation=cv2.INTER_LANCZOS4)
    generate = (1 - keep / 255).astype(np.float32)
    generate.flags.writeable = False
    return generate


def _draw() -> NDArray[np.bool_]:
    inside = np.zeros((SIDE, SIDE), np.bool_)
    for first, last in CHEEKS:
        inside[CHEEK_ROWS[0] : CHEEK_ROWS[1] + 1, first : last + 1] = True
    (top, _), (bottom, _) = JAW_LEFT[0], JAW_LEFT[-1]
    rows, columns = np.arange(top, bottom + 1), np.arange(SIDE)
    left, right = (np.interp(rows, *np.transpose(edge)) for edge in (JAW_LEFT, JAW_RIGHT))
    inside[top : bottom + 1] = (columns >= left[:, None]) & (columns <= right[:, None])
    return inside
