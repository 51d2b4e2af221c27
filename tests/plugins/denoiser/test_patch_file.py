from __future__ import annotations

import numpy as np

from lipsync_denoiser.patch_file import PatchFile


def test_pixels_come_back_from_the_file_whatever_the_order():
    rng = np.random.default_rng(0)
    file = PatchFile()
    pictures = [rng.integers(0, 256, (h, w, 3), dtype=np.uint8) for h, w in ((5, 7), (1, 3), (20, 4))]
    patches = [file.append(p, (k, 0, p.shape[1], p.shape[0])) for k, p in enumerate(pictures)]
    for k in (2, 0, 1, 0):
        np.testing.assert_array_equal(file.read(patches[k]), pictures[k])
    file.close()
