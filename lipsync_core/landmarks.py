"""The canonical landmark set: the 68 points of iBUG 300-W (Sagonas et al., 2013), here numbered from 0.

Every aligner delivers these 68 points in this order, in frame pixels (x, y), so that any masker or generator works
with any aligner. A point a detector cannot supply is NaN. "Left" and "right" are the image's.
"""

from __future__ import annotations

from typing import Final

COUNT: Final = 68

JAW: Final = slice(0, 17)  # along the face's edge, image left to right; 8 is the chin
BROW_LEFT: Final = slice(17, 22)
BROW_RIGHT: Final = slice(22, 27)
NOSE_BRIDGE: Final = slice(27, 31)  # top to tip
NOSE_BASE: Final = slice(31, 36)  # under the nostrils, image left to right; 33 is the middle
EYE_LEFT: Final = slice(36, 42)
EYE_RIGHT: Final = slice(42, 48)
OUTER_LIP: Final = slice(48, 60)  # clockwise from the mouth corner on the image's left
INNER_LIP: Final = slice(60, 68)  # clockwise from the inner corner on the image's left
LIPS: Final = slice(48, 68)

CHIN: Final = 8
NOSE_TIP: Final = 30
NOSE_BOTTOM: Final = 33
EYE_OUTER_LEFT: Final = 36
EYE_INNER_LEFT: Final = 39
EYE_INNER_RIGHT: Final = 42
EYE_OUTER_RIGHT: Final = 45
MOUTH_LEFT: Final = 48
UPPER_LIP_TOP: Final = 51
MOUTH_RIGHT: Final = 54
LOWER_LIP_BOTTOM: Final = 57
INNER_LEFT: Final = 60
UPPER_LIP_INNER: Final = 62
INNER_RIGHT: Final = 64
LOWER_LIP_INNER: Final = 66
