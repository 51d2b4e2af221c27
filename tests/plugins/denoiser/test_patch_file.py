from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lipsync_core.errors import OutputError
from lipsync_denoiser.patch_file import PatchFile


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
def test_a_full_disk_has_a_cure_and_is_told_once(monkeypatch):
    file = PatchFile()
    with Path("/dev/full").open("r+b", buffering=0) as full:
        monkeypatch.setattr(file, "_file", full)
        with pytest.raises(OutputError, match="No space left on device.*TMPDIR"):
            file.append(np.zeros((4, 4, 3), np.uint8), (0, 0, 4, 4))
        assert full.closed
    file.close()


def test_pixels_come_back_from_the_file_whatever_the_order():
    rng = np.random.default_rng(0)
    file = PatchFile()
    pictures = [rng.integers(0, 256, (h, w, 3), dtype=np.uint8) for h, w in ((5, 7), (1, 3), (20, 4))]
    patches = [file.append(p, (k, 0, p.shape[1], p.shape[0])) for k, p in enumerate(pictures)]
    for k in (2, 0, 1, 0):
        np.testing.assert_array_equal(file.read(patches[k]), pictures[k])
    file.close()
