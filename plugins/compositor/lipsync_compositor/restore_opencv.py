"""The compositor `restore-opencv`: LatentSync's paste-back, or only the mouth of it, without torch.

For crops of geometry `latentsync`: an upright crop of 3 : 4, stretched to a square. It does what `restore-torch` does,
frame by frame, each within the box that changes.
"""

from __future__ import annotations

from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from lipsync_compositor.detail import Finish, finish
from lipsync_compositor.feather import bounding_box, feather_px, feathered
from lipsync_compositor.mouth_area import around_mouth
from lipsync_compositor.paste import (
    BORDER,
    EDGE_PARTS,
    PasteOptions,
    boxes_around,
    crop_rectangle,
    moved,
    part_of_crop,
    reach_of,
    rescaled,
    scale_of,
)
from lipsync_compositor.resize import resized
from lipsync_core.types import AlignedFaces, FrameBatch, GeneratedFaces, MouthMask

_LINEAR: Final = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
_CUBIC: Final = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP


class RestoreOptions(PasteOptions):
    """Options of `restore-opencv`."""


class RestoreOpencv:
    """Pastes generated crops back into their frames."""

    def __init__(self, options: RestoreOptions) -> None:
        self._options = options

    def composite(
        self, frames: FrameBatch, faces: AlignedFaces, mask: MouthMask, generated: GeneratedFaces
    ) -> FrameBatch:
        """Return new frames; those without a face are returned as they are. All arguments cover the same n frames.

        Region `crop` pastes all of what was generated and takes no notice of the mask: the denoiser has laid it over
        what it kept of the face, and resampling changes that too.
        """
        out = frames.pixels.copy()
        track = faces.track
        rows = zip(out, track.found, track.frame_to_crop, track.landmarks, mask.generate, generated.pixels, strict=True)
        for frame, found, matrix, landmarks, generate, pixels in rows:
            if not found:
                continue
            if self._options.region == "crop":
                _paste_crop(frame, matrix, pixels)
                continue
            if self._options.region == "mouth":
                generate = around_mouth(generate, matrix, landmarks)
            width = feather_px(matrix, landmarks, track.crop_size, self._options.feather_eye_distances)
            _paste_mask(frame, matrix, generate, width, pixels, landmarks, self._options.finish)
        return FrameBatch(frames.start, out)


def _paste_crop(frame: NDArray[np.uint8], frame_to_crop: NDArray[np.float64], pixels: NDArray[np.float32]) -> None:
    """FACTS §7: bicubic to 3 : 4, inverse warp, erosion, soft mask, truncation. Not clamped before the warp."""
    width, height = crop_rectangle(len(pixels))
    to_image = rescaled(frame_to_crop[None], (len(pixels), len(pixels)), (width, height))
    boxes = boxes_around(to_image, reach_of(width, height), frame.shape[1::-1])
    if boxes is None:
        return
    matrix, base = boxes.affines(to_image)[0], boxes.view(frame, 0)
    face = _warped(resized(pixels, width, height), matrix, base, _LINEAR, border=BORDER)
    eroded, soft = soft_mask(_warped(np.ones((height, width), np.float32), matrix, base, _LINEAR, border=0.0))
    _clamp(face)
    face *= _in_colour(eroded)
    _mix(base, face, soft)
    np.copyto(base, face, casting="unsafe")  # truncates


def _paste_mask(
    frame: NDArray[np.uint8],
    frame_to_crop: NDArray[np.float64],
    generate: NDArray[np.float32],
    width_px: float,
    pixels: NDArray[np.float32],
    landmarks: NDArray[np.float32],
    how: Finish,
) -> None:
    """Blend by the feathered mask, rounded to the nearest level; nothing is touched where the mask is 0."""
    held = bounding_box(generate)
    if held is None:
        return
    (top, bottom), (left, right) = ((s.start, s.stop) for s in held)
    # The warped mask reaches one crop pixel beyond its own.
    boxes = boxes_around(frame_to_crop[None], (left - 1, top - 1, right + 1, bottom + 1), frame.shape[1::-1])
    if boxes is None:
        return
    to_crop, base = boxes.affines(frame_to_crop[None]), boxes.view(frame, 0)
    soft = _warped(feathered(generate[held], width_px), moved(to_crop, held)[0], base, _LINEAR, border=0.0)
    part, size = part_of_crop(held, frame_to_crop[None], len(pixels))
    source = pixels[part]
    to_image = rescaled(moved(to_crop, part), source.shape[1::-1], size)[0]
    face = _warped(resized(source, *size), to_image, base, _CUBIC, border=None)
    _clamp(face)
    if how:
        x, y = (int(place) for place in boxes.corners[0])
        finish(face, soft, frame, (x, y), landmarks, scale_of(frame_to_crop), how)
        np.clip(face, 0, 255, out=face)
    _mix(base, face, soft)
    np.copyto(base, np.rint(face, out=face), casting="unsafe")


def soft_mask(inside: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the eroded crop and the soft mask, both [h, w], of the warped crop's area [h, w] in 0…1.

    Outside the box there must be nothing of the crop but what lies outside the frame.
    """
    eroded = np.asarray(cv2.erode(inside, np.ones((2, 2), np.uint8)), np.float32)
    edge = int(np.sqrt(eroded.sum())) // EDGE_PARTS
    if edge == 0:  # a face of under 400 px of area is too small for a soft edge
        return eroded, eroded
    centre = cv2.erode(eroded, np.ones((2 * edge, 2 * edge), np.uint8))
    sigma = 0.3 * (edge - 1) + 0.8  # as OpenCV chooses it for a kernel of that size
    soft = cv2.GaussianBlur(centre, (2 * edge + 1, 2 * edge + 1), sigma, borderType=cv2.BORDER_REFLECT_101)
    return eroded, np.asarray(soft, np.float32)


def _warped(
    image: NDArray[np.float32],
    box_to_image: NDArray[np.float64],
    box: NDArray[np.uint8],
    flags: int,
    *,
    border: float | None,
) -> NDArray[np.float32]:
    """Sample an image [h, w] or [h, w, 3] at the pixels of a box of a frame.

    border: the value outside the image, blended in linearly over one pixel; None repeats the image's edge.
    """
    size, more = (
        box.shape[1::-1],
        {"borderMode": cv2.BORDER_REPLICATE} if border is None else {"borderValue": [border] * 3},
    )
    out: Any = cv2.warpAffine(image, box_to_image, size, flags=flags, **more)
    return np.asarray(out, np.float32)


def _clamp(face: NDArray[np.float32]) -> None:
    """Bring a face of 0…1 to levels 0…255 in place; what is no number becomes 0."""
    np.fmin(np.fmax(face, np.float32(0), out=face), np.float32(1), out=face)
    face *= np.float32(255)


def _mix(base: NDArray[np.uint8], face: NDArray[np.float32], soft: NDArray[np.float32]) -> None:
    """Replace `face`, in place, by its blend with `base`: exactly `base` where `soft` is 0."""
    below = base.astype(np.float32)
    face -= below
    face *= _in_colour(soft)
    face += below


def _in_colour(plane: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return [h, w] as [h, w, 3]: NumPy is slow at spreading it over so short an axis."""
    return np.asarray(cv2.cvtColor(plane, cv2.COLOR_GRAY2RGB), np.float32)
