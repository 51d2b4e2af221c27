"""How good a dubbed video is, in numbers."""
