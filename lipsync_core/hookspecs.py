"""The two hooks of the `lipsync` entry-point group."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.resources.abc import Traversable

import pluggy

from lipsync_core.backends import BackendSpec

PROJECT = "lipsync"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


class LipsyncHooks:
    """A plugin module implements either hook, or both, as a function marked with `hookimpl`."""

    @hookspec
    def lipsync_register_backends(self) -> Iterable[BackendSpec]:
        """Return the backends this plugin offers."""
        raise NotImplementedError  # a specification: pluggy never calls it

    @hookspec
    def lipsync_register_profiles(self) -> Iterable[Traversable]:
        """Return the TOML files (or package resources) of the profiles this plugin offers."""
        raise NotImplementedError  # a specification: pluggy never calls it
