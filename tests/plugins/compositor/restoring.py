"""What the tests of both paste-back backends share: work to do, and the reference's result of it."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from lipsync_compositor import paste
from lipsync_core import landmarks as lm
from lipsync_core.types import AlignedFaces, FaceTrack, FrameBatch, GeneratedFaces, MouthMask

H, W, SIDE = 90, 110, 64
OPENCV_5 = int(cv2.__version__.split(".")[0]) >= 5  # earlier ones place samples to 1/32 px
Work = tuple[FrameBatch, AlignedFaces, MouthMask, GeneratedFaces]


def make_work(
    matrices: NDArray[np.float64],
    *,
    side: int = SIDE,
    seed: int = 0,
    found: list[bool] | None = None,
    frames: NDArray[np.uint8] | None = None,
    generated: NDArray[np.float32] | None = None,
    generate: NDArray[np.float32] | None = None,
    points: NDArray[np.float32] | None = None,
) -> Work:
    """Make a batch; points: landmarks [68, 2] in px of each crop."""
    rng = np.random.default_rng(seed)
    n = len(matrices)
    if frames is None:
        frames = rng.integers(0, 256, (n, H, W, 3), dtype=np.uint8)
    if generate is None:
        generate = np.zeros((n, side, side), np.float32)
        generate[:, side // 3 : side - 4, 6 : side - 6] = 1
    if generated is None:
        generated = rng.random((n, side, side, 3), np.float32)
    landmarks = np.full((n, lm.COUNT, 2), np.nan, np.float32)  # the eyes' distance falls back to a part of the side
    if points is not None:
        landmarks[:] = [cv2.transform(points[None], cv2.invertAffineTransform(matrix))[0] for matrix in matrices]
    track = FaceTrack(3, matrices, np.array(found or [True] * n, np.bool_), landmarks, side)
    crops = rng.integers(0, 256, (n, side, side, 3), dtype=np.uint8)
    return FrameBatch(3, frames), AlignedFaces(track, crops), MouthMask(generate), GeneratedFaces(generated)


def make_matrix(turn: float, size: float, stretch: float, x: float, y: float) -> NDArray[np.float64]:
    cos, sin = size * np.cos(turn), size * np.sin(turn)
    linear = np.array([[cos, sin], [-sin * stretch, cos * stretch]])
    return np.column_stack([linear, (SIDE / 2, SIDE / 2) - linear @ (x, y)])[None]


affines = st.builds(
    make_matrix,
    st.floats(-3.1, 3.1),
    st.floats(0.3, 3.0),
    st.floats(0.7, 1.4),
    st.floats(-20, W + 20),
    st.floats(-20, H + 20),
)


def one_frame(work: Work, row: int) -> Work:
    frames, faces, mask, generated = work
    cut = slice(row, row + 1)
    return (
        FrameBatch(frames.start + row, frames.pixels[cut]),
        AlignedFaces(faces.track[cut], faces.pixels[cut]),
        MouthMask(mask.generate[cut]),
        GeneratedFaces(generated.pixels[cut]),
    )


def outside_the_warped_mask(work: Work) -> NDArray[np.bool_]:
    """Which pixels of the (only) frame must stay; OpenCV before 5 places samples to 1/32 px, so with a pixel spared."""
    inside = (work[2].generate[0] > 0).astype(np.float32)
    matrix = work[1].track.frame_to_crop[0]
    reach = cv2.warpAffine(inside, matrix, (W, H), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    return cv2.dilate(reach, np.ones((3, 3))) == 0


# The reference's results


def golden_work(reference: Path, resolution: int, face: NDArray[np.float32]) -> Work:
    golden = np.load(reference / "align.npz")
    frame = cv2.cvtColor(cv2.imread(str(reference / "align_image.png")), cv2.COLOR_BGR2RGB)
    width, height = paste.crop_rectangle(resolution)
    matrix = golden[f"r{resolution}.affine_matrix"].astype(np.float64)[None]
    return make_work(
        paste.rescaled(matrix, (width, height), (resolution, resolution)),
        side=resolution,
        frames=frame[None],
        generated=np.ascontiguousarray(face.transpose(1, 2, 0)[None] / 2 + 0.5, np.float32),
        generate=np.ones((1, resolution, resolution), np.float32),
    )


def check_against(restored: NDArray[np.uint8], golden: NDArray[np.uint8]) -> None:
    """MANIFEST: mean ≤ 0.2 levels and 99.9 % within 3. This code comes closer, so it is held closer."""
    error = np.abs(restored.astype(int) - golden)
    assert error.mean() <= 0.03
    assert error.max() <= 1


def synthetic_face(reference: Path) -> NDArray[np.float32]:
    return np.load(reference / "align.npz")["r256.synth_face_x100_int8"].astype(np.float32) / 100


def golden_256(reference: Path) -> tuple[Work, NDArray[np.uint8]]:
    """Work at 256 px and the reference's frame."""
    golden = cv2.cvtColor(cv2.imread(str(reference / "align_restored_r256.png")), cv2.COLOR_BGR2RGB)
    return golden_work(reference, 256, synthetic_face(reference)), golden


def golden_512(reference: Path) -> tuple[Work, NDArray[np.uint8]]:
    """Work at 512 px and every third pixel of the reference's frame.

    The 512 px face is not stored: its smooth part is enlarged from the 256 px one, its checkers drawn again.
    """

    def checkers(side: int) -> NDArray[np.float64]:
        wave = np.sin(40 * np.arange(side) / side)
        return 0.1 * np.sign(wave * wave[:, None])

    smooth = (synthetic_face(reference) - checkers(256)).astype(np.float32).transpose(1, 2, 0)
    x, y = np.meshgrid(*[np.arange(512, dtype=np.float32) / 2] * 2)
    large = cv2.remap(smooth, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    face = (large + checkers(512)[..., None]).astype(np.float32).transpose(2, 0, 1)
    return golden_work(reference, 512, face), np.load(reference / "align.npz")["r512.restored_rows_every3"]


def white_rim(matrix: NDArray[np.float64]) -> NDArray[np.float32]:
    """One channel of the reference's frame where a black face is pasted into a black frame, before truncation."""
    width, height = paste.crop_rectangle(SIDE)
    to_crop, flags = paste.rescaled(matrix, (SIDE, SIDE), (width, height))[0], cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    face = cv2.warpAffine(np.full((height, width), -1, np.float32), to_crop, (W, H), flags=flags, borderValue=127)
    area = cv2.warpAffine(np.ones((height, width), np.float32), to_crop, (W, H), flags=flags)
    eroded = cv2.erode(area, np.ones((2, 2), np.uint8))
    assert 400 < eroded.sum() < 1600  # so the edge is 1
    soft = cv2.GaussianBlur(cv2.erode(eroded, np.ones((2, 2), np.uint8)), (3, 3), 0.8)
    expected = soft * (eroded * np.clip(face / 2 + 0.5, 0, 1) * 255)
    assert expected.max() > 100
    return np.asarray(expected, np.float32)
