"""What became of which frames: the output cut into ranges that were treated alike."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from lipsync_core.analysis import Analysis
from lipsync_core.media.timeline import Timeline


class Treatment(StrEnum):
    """What a job does with a frame: a new mouth, a mouth at rest, or nothing, and why."""

    DUBBED = "dubbed"
    RESTED = "rested"
    NO_FACE = "passed through: no face"
    NO_SOUND = "passed through: the sound has ended"
    NO_SPEECH = "passed through: nobody speaks"


@dataclass(frozen=True, slots=True)
class FrameRange:
    """Output frames `start`…`stop` − 1, shown from `start_s` to `stop_s`, and what became of all of them."""

    start: int
    stop: int
    start_s: float
    stop_s: float
    treatment: Treatment


def frame_ranges(
    scene: NDArray[np.int64], resting: NDArray[np.bool_], timeline: Timeline, analysis: Analysis
) -> tuple[FrameRange, ...]:
    """Return the ranges of an output, in order and without gaps.

    scene: each output frame's, [N], −1 where it is passed through. resting: [N], where the mouth rests.
    """
    found = analysis.found[timeline.source_frames]
    kinds = tuple(Treatment)
    conditions = {
        Treatment.RESTED: (scene >= 0) & resting,
        Treatment.DUBBED: scene >= 0,
        Treatment.NO_FACE: ~found,
        Treatment.NO_SOUND: ~timeline.dubbed,
    }
    codes = [kinds.index(kind) for kind in conditions]
    what = np.select(list(conditions.values()), codes, kinds.index(Treatment.NO_SPEECH))
    starts = np.flatnonzero(np.diff(what, prepend=-1)).tolist()
    ends = [*starts[1:], len(what)]
    times = [*timeline.times.tolist(), float(timeline.duration)]
    return tuple(
        FrameRange(start, end, times[start], times[end], kinds[what[start]])
        for start, end in zip(starts, ends, strict=True)
    )
