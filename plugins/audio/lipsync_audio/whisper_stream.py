"""What `whisper-torch` and `whisper-onnx` have in common: sound in, the features of video frames out, streamed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from lipsync_audio.log_mel import BANDS, LOWEST, SAMPLE_RATE, log_mel_rows, scaled
from lipsync_audio.whisper_windows import Boundary, framewise, plan, windowed
from lipsync_core.models.folder import AudioPart
from lipsync_core.types import AudioBlock, AudioFeatures

# LatentSync fills a short last window with this, in the normalised log-mel domain: louder than silence, but what its
# weights were trained with (FACTS §4).
_REFERENCE_PADDING = 0.0


class WhisperStream(ABC):
    """Encodes sound as the states of ten Whisper rows for each video frame, float32 [n, 10 · (layers + 1), width]."""

    sample_rate = SAMPLE_RATE

    def __init__(self, part: AudioPart, boundary: Boundary) -> None:
        self.part = part
        self.feature_shape = part.feature_shape
        self.boundary: Boundary = boundary

    def encode(self, audio: Iterable[AudioBlock], *, times: NDArray[np.float64]) -> Iterator[AudioFeatures]:
        """Yield the features of the frames at `times` (s, not decreasing); frames outside the sound see its end rows.

        Reads `audio` twice, first for the loudest log-mel cell of the whole clip, and holds one window of 30 s. Raises
        TypeError if `audio` is an iterator, which can be read only once.
        """
        if isinstance(audio, Iterator):
            raise TypeError("audio is read twice: it must be iterable again, not an iterator")
        if len(times) == 0:
            return
        yield from framewise(self.rows(audio), times, self.part.rows_before, self.part.rows_after)

    def rows(self, audio: Iterable[AudioBlock]) -> Iterator[NDArray[np.float32]]:
        """Yield the feature rows of the whole sound, float32 [n, layers + 1, width], 50 a second."""
        peak, columns = LOWEST, 0
        for batch in log_mel_rows(audio):
            peak = max(peak, float(batch.max()))
            columns += len(batch)
        if self.boundary == "reference":
            padding = _REFERENCE_PADDING
        else:
            padding = float(scaled(np.full(1, LOWEST, np.float32), peak)[0])
        mel: Iterable[NDArray[np.float32]] = (scaled(batch, peak) for batch in log_mel_rows(audio))
        if columns == 0:
            mel = [np.empty((0, BANDS), np.float32)]
        yield from windowed(mel, plan(columns, self.boundary), padding, self._encode_window)

    @abstractmethod
    def _encode_window(self, columns: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the states of a window, float32 [1500, layers + 1, width], the caller's to change.

        columns: normalised log-mel [3000, 80].
        """
