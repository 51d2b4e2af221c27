"""What passes between the layers of a network that is written as a graph."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Picture:
    """A value of shape [frames, channels, side, side], by its name in the graph."""

    value: str
    channels: int
    side: int
