"""Folders of this program on the user's machine."""

from __future__ import annotations

import os
from pathlib import Path

from platformdirs import user_cache_dir

CACHE_VARIABLE = "LIPSYNC_CACHE"


def cache_dir() -> Path:
    """Return the cache folder: `LIPSYNC_CACHE`, or the platform's own place. It may not exist yet."""
    given = os.environ.get(CACHE_VARIABLE)
    return Path(given) if given else Path(user_cache_dir("lipsync", appauthor=False))
