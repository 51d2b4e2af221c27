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


def existing(path: str | Path) -> Path | None:
    """Return the path with `~` expanded if anything is there; None too where no file can be or none may be seen."""
    try:
        expanded = Path(path).expanduser()
        return expanded if expanded.exists() else None
    except (OSError, RuntimeError):  # too long a name, a folder that may not be entered, an unknown user's home
        return None
