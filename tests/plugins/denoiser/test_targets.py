"""Targets come back from the file as they were written."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lipsync_denoiser.targets import Targets


@given(st.integers(1, 40).flatmap(lambda n: st.tuples(st.just(n), st.sets(st.integers(0, n - 1)))))
def test_each_frame_has_its_own(case):
    count, chosen = case
    frames = np.array(sorted(chosen), np.int64)
    points = np.random.default_rng(count).normal(size=(len(frames), 37, 2)).astype(np.float32)
    targets = Targets(count)
    targets.write(frames, points)
    wanted = np.zeros((count, 37, 2), np.float32)
    wanted[frames] = points
    np.testing.assert_array_equal(targets.read(0, count), wanted)
    np.testing.assert_array_equal(targets.read(count - 1)[0], wanted[-1])
    targets.close()
