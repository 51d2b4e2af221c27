"""Errors a user can act on: each says the cause and the cure in one sentence each.

The command line prints them on one line and exits with code 2. `LIPSYNC_DEBUG=1` shows the traceback.
"""

from __future__ import annotations


class LipsyncError(Exception):
    """Base of every error this project raises on purpose."""

    def __init__(self, cause: str, cure: str) -> None:
        self.cause = cause
        self.cure = cure
        super().__init__(f"{cause} {cure}")

    def __reduce__(self) -> tuple[type[LipsyncError], tuple[str, str]]:
        return type(self), (self.cause, self.cure)


class InputError(LipsyncError):
    """A video or audio file that cannot be used."""


class OutputError(LipsyncError):
    """The output cannot be written there."""


class SettingsError(LipsyncError):
    """A profile, option or value that does not exist or does not fit."""


class BackendError(LipsyncError):
    """A backend that is missing, broken, in conflict, or failed at its work."""


class WeightsError(LipsyncError):
    """A model file that is absent or not what it should be."""


class NoFaceError(InputError):
    """No frame of the video shows a face."""
