"""A new plugin from the templates in `lipsync_core/templates/plugin`."""

from __future__ import annotations

import keyword
import re
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Final

from lipsync_core.backends import StageKind
from lipsync_core.errors import OutputError, SettingsError

_NAME: Final = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_CONTRACTS: Final = {
    StageKind.AUDIO: "AudioEncoderContract",
    StageKind.ALIGNER: "FaceAlignerContract",
    StageKind.MASKER: "MaskerContract",
    StageKind.DENOISER: "DenoiserContract",
    StageKind.COMPOSITOR: "CompositorContract",
}
_SUMMARIES: Final = {
    StageKind.AUDIO: "opens the mouth where the sound is loud",
    StageKind.ALIGNER: "the largest patch of skin",
    StageKind.MASKER: "an oval in the lower half of the crop",
    StageKind.DENOISER: "reddens the mouth",
    StageKind.COMPOSITOR: "blends crops in by their masks",
}


def write_plugin(name: str, stage: StageKind, folder: Path) -> Path:
    """Write a distribution with one backend called `name` into `folder`, and return that.

    Raises `SettingsError` for a name that cannot be one, `OutputError` where `folder` holds something already.
    """
    module = name.replace("-", "_")
    if not _NAME.fullmatch(name) or keyword.iskeyword(module):
        raise SettingsError(
            f"{name!r} cannot be the name of a backend.", "Use lower case letters, digits and dashes, such as my-mouth."
        )
    package = f"lipsync_{module}"
    values = {
        "name": name,
        "stage": str(stage),
        "kind": stage.name,
        "distribution": f"lipsync-{name}",
        "package": package,
        "module": module,
        "class_name": "".join(part.capitalize() for part in name.split("-")),
        "contract": _CONTRACTS[stage],
        "summary": _SUMMARIES[stage],
    }
    targets = {
        "pyproject.toml.txt": "pyproject.toml",
        "README.md.txt": "README.md",
        "gitignore.txt": ".gitignore",
        "ci.yml.txt": ".github/workflows/tests.yml",
        "init.py.txt": f"{package}/__init__.py",
        "plugin.py.txt": f"{package}/plugin.py",
        f"{stage}.py.txt": f"{package}/{module}.py",
        "test.py.txt": f"tests/test_{module}.py",
    }
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise OutputError(f"{folder} is there already.", "Name an empty or a new folder with -o.")
    templates = files("lipsync_core") / "templates" / "plugin"
    try:
        for source, target in targets.items():
            path = folder / target
            path.parent.mkdir(parents=True, exist_ok=True)
            text = Template((templates / source).read_text(encoding="utf-8")).substitute(values)
            path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{folder} cannot be written: {error.strerror}.", "Name another folder with -o.") from error
    return folder
