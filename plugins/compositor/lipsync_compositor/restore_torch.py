"""The compositor `restore-torch`: LatentSync's paste-back, or only the mouth of it, in batches on a torch device.

For crops of geometry `latentsync`: an upright crop of 3 : 4, stretched to a square.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from lipsync_compositor.detail import finish
from lipsync_compositor.feather import bounding_box, feather_px, feathered
from lipsync_compositor.mouth_area import around_mouth
from lipsync_compositor.paste import (
    BORDER,
    Boxes,
    PasteOptions,
    boxes_around,
    crop_rectangle,
    moved,
    part_of_crop,
    reach_of,
    rescaled,
    scale_of,
)
from lipsync_compositor.paste_torch import area_of, soft_mask, warp
from lipsync_core.models.device_torch import pick_device
from lipsync_core.types import AlignedFaces, FaceTrack, FrameBatch, GeneratedFaces, MouthMask

_STEP_PIXELS: Final = 1 << 18  # of all boxes handled at once: some 200 MB of working memory


class RestoreOptions(PasteOptions):
    """Options of `restore-torch`."""

    device: str = Field(default="auto", description="where to compute: auto, cpu, cuda, cuda:1 or mps")


class RestoreTorch:
    """Pastes generated crops back into their frames."""

    def __init__(self, options: RestoreOptions) -> None:
        self._options = options
        self._device = pick_device(options.device)

    def composite(
        self, frames: FrameBatch, faces: AlignedFaces, mask: MouthMask, generated: GeneratedFaces
    ) -> FrameBatch:
        """Return new frames; those without a face are returned as they are. All arguments cover the same n frames.

        Region `crop` pastes all of what was generated and takes no notice of the mask: the denoiser has laid it over
        what it kept of the face, and resampling changes that too.
        """
        out = frames.pixels.copy()
        rows = np.flatnonzero(faces.track.found)
        if len(rows):
            if self._options.region == "crop":
                self._paste_crop(out, rows, faces.track, generated)
            else:
                self._paste_mask(out, rows, faces.track, mask, generated)
        return FrameBatch(frames.start, out)

    def _paste_crop(
        self, out: NDArray[np.uint8], rows: NDArray[np.int64], track: FaceTrack, generated: GeneratedFaces
    ) -> None:
        """FACTS §7: bicubic to 3 : 4, inverse warp, erosion, soft mask, truncation. Not clamped before the warp."""
        side = track.crop_size
        width, height = crop_rectangle(side)
        to_image = rescaled(track.frame_to_crop[rows], (side, side), (width, height))
        for part, boxes, box_to_image in _steps(to_image, reach_of(width, height), out):
            own = rows[part]
            image = _resized(self._load(generated.pixels[own]), width, height)
            area = area_of((width, height), box_to_image, boxes, self._device)
            face = warp(image, box_to_image, boxes, "bilinear", "zeros").add_((1 - area).mul_(BORDER)[:, None])
            eroded, soft = soft_mask(area)
            face = _clamped(face).mul_(eroded.mul(255)[:, None])
            mixed = torch.lerp(self._load(boxes.cut(out[own])), face, soft[:, None])
            _put(out, own, boxes, mixed)

    def _paste_mask(
        self,
        out: NDArray[np.uint8],
        rows: NDArray[np.int64],
        track: FaceTrack,
        mask: MouthMask,
        generated: GeneratedFaces,
    ) -> None:
        """Blend by the feathered mask, rounded to the nearest level; nothing is touched where the mask is 0."""
        generate = mask.generate[rows]
        if self._options.region == "mouth":
            faces = zip(generate, track.frame_to_crop[rows], track.landmarks[rows], strict=True)
            generate = np.stack([around_mouth(*face) for face in faces])
        held = bounding_box(generate.max(axis=0))
        if held is None:
            return
        (top, bottom), (left, right) = ((s.start, s.stop) for s in held)
        to_crop = track.frame_to_crop[rows]
        alpha = np.stack([self._alpha(track, int(row), area[held]) for row, area in zip(rows, generate, strict=True)])
        shown, size = part_of_crop(held, to_crop, track.crop_size)
        # The warped mask reaches one crop pixel beyond its own.
        for part, boxes, box_to_crop in _steps(to_crop, (left - 1, top - 1, right + 1, bottom + 1), out):
            own = rows[part]
            source = self._load(generated.pixels[(own, *shown)])
            box_to_image = rescaled(moved(box_to_crop, shown), (source.shape[3], source.shape[2]), size)
            face = warp(_resized(source, *size), box_to_image, boxes, "bicubic", "border")
            soft = warp(self._load(alpha[part][..., None]), moved(box_to_crop, held), boxes, "bilinear", "zeros")
            base, face = self._load(boxes.cut(out[own])), _clamped(face).mul_(255)
            if self._options.finish:
                face = self._finished(face, soft, out, own, boxes, track)
            # exactly the base where `soft` is 0
            _put(out, own, boxes, torch.lerp(base, face, soft).round_())

    def _finished(
        self,
        face: Tensor,
        soft: Tensor,
        out: NDArray[np.uint8],
        rows: NDArray[np.int64],
        boxes: Boxes,
        track: FaceTrack,
    ) -> Tensor:
        """Return faces [n, 3, h, w] as `detail.finish` makes them, which is for a frame at a time."""
        faces = face.movedim(1, -1).cpu().numpy()
        alphas = soft[:, 0].cpu().numpy()
        for place, row in enumerate(rows):
            x, y = (int(v) for v in boxes.corners[place])
            one, how = np.ascontiguousarray(faces[place]), self._options.finish
            scale = scale_of(track.frame_to_crop[row])
            finish(one, alphas[place], out[row], (x, y), track.landmarks[row], scale, how)
            faces[place] = np.clip(one, 0, 255)
        return self._load(faces)

    def _alpha(self, track: FaceTrack, row: int, generate: NDArray[np.float32]) -> NDArray[np.float32]:
        soft = self._options.feather_eye_distances
        return feathered(generate, feather_px(track.frame_to_crop[row], track.landmarks[row], track.crop_size, soft))

    def _load(self, pixels: NDArray[Any]) -> Tensor:
        """Return [n, h, w, c] as float32 [n, c, h, w]: in planes, masks multiply colours in long rows."""
        planes = torch.from_numpy(pixels).to(self._device).movedim(-1, 1)
        return planes.to(torch.float32, memory_format=torch.contiguous_format)


def _resized(image: Tensor, width: int, height: int) -> Tensor:
    """Resize [n, 3, h, w], bicubic, averaging where it shrinks; not clamped."""
    if image.shape[2:] == (height, width):
        return image
    return functional.interpolate(image, (height, width), mode="bicubic", antialias=True, align_corners=False)


def _clamped(face: Tensor) -> Tensor:
    """Bring a face to 0…1 in place; what is no number becomes 0."""
    return torch.fmax(face, torch.zeros((), device=face.device), out=face).clamp_(max=1)


def _steps(
    frame_to_image: NDArray[np.float64], area: tuple[float, float, float, float], out: NDArray[np.uint8]
) -> list[tuple[slice, Boxes, NDArray[np.float64]]]:
    """Return batches of rows, their boxes around `area`, and the affines from the boxes to the image."""
    height, width = out.shape[1:3]
    boxes = boxes_around(frame_to_image, area, (width, height))
    if boxes is None:
        return []
    box_to_image = boxes.affines(frame_to_image)
    size = max(1, _STEP_PIXELS // (boxes.width * boxes.height))
    parts = [slice(start, start + size) for start in range(0, len(frame_to_image), size)]
    return [(part, Boxes(boxes.corners[part], boxes.width, boxes.height), box_to_image[part]) for part in parts]


def _put(out: NDArray[np.uint8], rows: NDArray[np.int64], boxes: Boxes, pixels: Tensor) -> None:
    """Write levels [n, 3, h, w], truncated."""
    done = pixels.to(torch.uint8).movedim(1, -1).cpu().numpy()
    for place, row in enumerate(rows):
        boxes.view(out[row], place)[:] = done[place]
