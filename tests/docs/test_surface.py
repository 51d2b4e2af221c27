"""The public surface changes on purpose only."""

from __future__ import annotations

import difflib
import importlib

import pytest

pytest.importorskip("griffe", reason="reading the surface needs griffelib (extra dev)")

from doctools import surface


def test_it_is_the_one_committed() -> None:
    known = surface.SNAPSHOT.read_text(encoding="utf-8").splitlines()
    diff = list(difflib.unified_diff(known, surface.surface(), "docs/public_surface.txt", "the code", n=0, lineterm=""))
    gone = sum(line.startswith("-") for line in diff[2:])
    breaks = f" {gone} line(s) went or changed, which may break others: see docs/stability.md." if gone else ""
    assert not diff, (
        f"The public surface is not the one committed.{breaks} If that is meant, run `{surface.RENEW}`, commit "
        "docs/public_surface.txt and tell it in CHANGELOG.md.\n" + "\n".join(diff)
    )


def test_what_it_lists_is_there() -> None:
    """A line griffe read from the source names something that can be imported."""
    for line in surface.SNAPSHOT.read_text(encoding="utf-8").splitlines():
        path = line.removeprefix("class ").split("(")[0].split(":")[0].split(" = ")[0]
        if not path.startswith("lipsync_core") or not line.startswith("class "):
            continue
        module, _, name = path.rpartition(".")
        assert isinstance(getattr(importlib.import_module(module), name), type), line


def test_it_has_each_kind_of_name() -> None:
    lines = surface.SNAPSHOT.read_text(encoding="utf-8").splitlines()
    for start in (
        "class lipsync_core.BackendSpec",
        "lipsync_core.BackendSpec(kind: StageKind, name: str",
        "lipsync_core.StageKind.MASKER = 'masker'",
        "lipsync_core.api.dub(video: str | Path, ",
        "lipsync_core.types.FrameBatch.pixels: NDArray[np.uint8]",
        "lipsync_core.hookspecs.LipsyncHooks.lipsync_register_backends(self)",
        "lipsync_core.testing.pytest_plugin.lipsync_clip(",
        "$ lipsync run --crf",
        "$ lipsync run VIDEO",
        "$ lipsync doctor",
        "profile draft",
        "job.crf: int",
        "denoiser exemplar-opencv options.own_voice: bool",
        "denoiser latentsync-torch options.steps: int",
    ):
        assert [line for line in lines if line.startswith(start)], start


def test_the_page_names_every_public_module() -> None:
    text = (surface.ROOT / "docs" / "stability.md").read_text(encoding="utf-8")
    for module in surface.MODULES:
        assert f"`{module}`" in text or f"`{module.removeprefix('lipsync_core')}`" in text, module
