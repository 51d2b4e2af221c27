"""The reference of a scene: one frame that shows the person with the mouth open as usual.

A frame that is its own reference, or one near it, tells the model how the mouth was, and what it was comes through
whatever the new sound says. One reference for many frames tells nothing of the moment, and looks do not change with it.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from lipsync_core import landmarks as lm
from lipsync_core.stages import SourceClip
from lipsync_core.types import FaceTrack
from lipsync_denoiser.patch_file import Patch, PatchFile

STRETCH: Final = 128  # source frames that share a reference: over minutes, pose and light change


class UsualMouths:
    """The references of one job, one for each stretch of about `STRETCH` frames of a scene that the job uses."""

    def __init__(self, source: SourceClip) -> None:
        """Choose the frames by their landmarks and put their crops into a temporary file, 35 MB an hour at 128 px."""
        self._job = source.source_frames
        used = np.unique(self._job)
        firsts, chosen = [], []
        for track in source.tracks():
            rows = used[(used >= track.start) & (used < track.start + len(track))] - track.start
            rows = rows[track.found[rows]]
            for stretch in stretches(rows):
                if len(stretch):
                    firsts.append(track.start + int(stretch[0]))
                    chosen.append(track.start + int(stretch[usual_row(openings(track, stretch))]))
        self._firsts, self._chosen = np.array(firsts, np.int64), np.array(chosen, np.int64)
        self._file, self._crops = PatchFile(), dict[int, Patch]()
        for faces in source.faces(self._chosen) if chosen else ():
            for row, crop in enumerate(faces.pixels):
                self._crops[faces.track.start + row] = self._file.append(crop, (0, 0, crop.shape[1], crop.shape[0]))

    def of(self, output: int) -> NDArray[np.uint8]:
        """Return the reference uint8 [S, S, 3] of an output frame that shows a face."""
        stretch = int(np.searchsorted(self._firsts, self._job[output], side="right")) - 1
        return self._file.read(self._crops[int(self._chosen[stretch])])


def stretches(rows: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Cut the rows of a scene into those that share a reference."""
    return np.array_split(rows, max(1, round(len(rows) / STRETCH)))


def openings(track: FaceTrack, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the inner opening [n], crop px, in some rows of a track."""
    lips = track.landmarks[rows][:, [lm.UPPER_LIP_INNER, lm.LOWER_LIP_INNER]].astype(np.float64)
    between = lips[:, 1] - lips[:, 0]
    gap: NDArray[np.float64] = (between * track.frame_to_crop[rows, 1, :2]).sum(axis=1)
    return gap


def usual_row(gaps: NDArray[np.float64]) -> int:
    """Return the row of the median opening."""
    return int(np.argsort(gaps, kind="stable")[len(gaps) // 2])
