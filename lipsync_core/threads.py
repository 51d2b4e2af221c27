"""What native libraries are told about their threads, through variables they read when they are loaded."""

from __future__ import annotations

from typing import Final

THREADS: Final = {
    # The pipeline overlaps stages in threads of its own; NumPy's on top make small products slower. No other library's
    # number: OMP_NUM_THREADS would leave PyTorch one core.
    "OPENBLAS_NUM_THREADS": "1",
    # OpenMP's threads (PyTorch's) sleep at a barrier instead of spinning. On two cores of which another job had one,
    # three seconds of video with the profile `tiny` took 84 to 151 CPU s and over 100 s spinning, 9 and 12 s asleep.
    # With both cores to itself that job, thousands of tiny layers, takes 14 s instead of 10.
    "OMP_WAIT_POLICY": "passive",
}
