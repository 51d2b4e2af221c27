"""What is in the wheel, what importing costs, and where the limits of a file lie."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def wheel_names(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    pytest.importorskip("hatchling", reason="building the wheel needs hatchling (extra dev)")
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder], cwd=ROOT, check=True)
    (wheel,) = folder.glob("*.whl")
    return zipfile.ZipFile(wheel).namelist()


def test_the_wheel_holds_our_packages_only(wheel_names: list[str]) -> None:
    tops = {name.split("/")[0] for name in wheel_names if ".dist-info/" not in name}
    assert tops == {"lipsync_core", "lipsync_audio", "lipsync_face", "lipsync_denoiser", "lipsync_compositor"}
    assert not [name for name in wheel_names if "training" in name]


@pytest.mark.parametrize(
    "name",
    [
        "lipsync_core/py.typed",
        "lipsync_core/profiles/draft.toml",
        "lipsync_core/models/manifest.toml",
        "lipsync_core/templates/plugin/plugin.py.txt",
        "lipsync_audio/data/mouth_shape.npz",
        "lipsync_face/plugin.py",
    ],
)
def test_the_wheel_holds_what_is_read_at_run_time(wheel_names: list[str], name: str) -> None:
    assert name in wheel_names


def modules_after(code: str) -> set[str]:
    """Run `code` in a fresh interpreter and return the modules it left loaded."""
    tail = "\nimport json, sys\nsys.stderr.write(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code + tail], capture_output=True, text=True, check=True)
    return set(json.loads(done.stderr))


HEAVY = {"numpy", "cv2", "av", "pydantic", "rich", "scenedetect", "torch", "onnxruntime"}
PLUGINS = {"lipsync_audio", "lipsync_face", "lipsync_denoiser", "lipsync_compositor"}


def test_help_loads_no_plugin_and_nothing_heavy() -> None:
    code = "import sys\nfrom lipsync_core.cli import app\ntry:\n    app(['--help'])\nexcept SystemExit:\n    pass"
    loaded = modules_after(code)
    assert not loaded & (HEAVY | PLUGINS)


def test_help_of_a_command_loads_no_plugin() -> None:
    code = (
        "import sys\nfrom lipsync_core.cli import app\ntry:\n    app(['run', '--help'])\nexcept SystemExit:\n    pass"
    )
    assert not modules_after(code) & (HEAVY | PLUGINS) - {"pydantic"}  # typer itself looks at it for typed options


def test_what_a_plugin_imports_is_cheap() -> None:
    assert not modules_after("import lipsync_core") & HEAVY


def test_listing_backends_imports_no_implementation() -> None:
    loaded = modules_after("from lipsync_core.registry import discover\ndiscover()")
    assert not loaded & {"cv2", "av", "torch", "onnxruntime", "scenedetect"}
    assert not [
        name for name in loaded if name.startswith(tuple(PLUGINS)) and name.count(".") and not name.endswith(".plugin")
    ]


def test_no_file_is_longer_than_400_lines() -> None:
    sources = [p for p in ROOT.rglob("*.py") if not any(part.startswith(".") for part in p.relative_to(ROOT).parts)]
    assert sources
    assert [str(p) for p in sources if len(p.read_text().splitlines()) > 400] == []
