"""The manifest: which model files there are, what they must be, and where they may come from."""

from __future__ import annotations

import importlib.util
import tomllib
from functools import cache
from importlib.resources import files
from pathlib import Path, PurePosixPath
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, HttpUrl, model_validator

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
    optional: bool = Field(default=False, description="only a setting off by default needs it")
    url: HttpUrl | None = Field(default=None, description="where it may be downloaded")
    wheel: WheelSource | None = Field(default=None, description="an installed package that carries it")


class HubFile(BaseModel):
    """One file of a model folder and the place on the Hugging Face hub it comes from."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: RelativePath = Field(description="its place in the model's folder")
    repository: str = Field(pattern=r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$", description="owner/name on the hub")
    path: RelativePath = Field(description="its path in the repository")
    revision: str = Field(pattern=r"^[A-Za-z0-9][\w.-]*$", description="commit, tag or branch")
    size: int | None = Field(default=None, gt=0, description="bytes; left out where it is not known")
    sha256: str | None = Field(
        default=None, pattern=r"^[0-9a-f]{64}$", description="hash of the whole file; left out where it is not known"
    )


class KnownModel(BaseModel):
    """A folder of files that belong together."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]*$", description="how commands and profiles call it; its folder")
    title: str = Field(description="what it is, for people")
    licence: str = Field(description="SPDX identifiers or a phrase")
    non_commercial: bool = Field(default=False, description="its licence forbids commercial use: said at first use")
    description: RelativePath | None = Field(
        default=None, description="packaged model.json; left out where the files are no model folder"
    )
    packaged: RelativePath | None = Field(
        default=None, description="model folder in this package that holds it; left out where it has to be brought"
    )
    files: tuple[HubFile, ...] = Field(default=(), description="all of its files on the hub")

    @model_validator(mode="after")
    def _comes_from_somewhere(self) -> KnownModel:
        if bool(self.files) == bool(self.packaged):
            raise ValueError("a model is either packaged or has files on the hub")
        return self


class Manifest(BaseModel):
    """All weights and models."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    weights: tuple[Weight, ...]
    models: tuple[KnownModel, ...] = ()


@cache
def _packaged() -> Manifest:
    text = files(__package__).joinpath("manifest.toml").read_text(encoding="utf-8")
    return Manifest.model_validate(tomllib.loads(text))


@cache
def load() -> dict[str, Weight]:
    """Return the single files of the packaged manifest by name."""
    return {weight.name: weight for weight in _packaged().weights}


@cache
def models() -> dict[str, KnownModel]:
    """Return the models of the packaged manifest by name."""
    return {model.name: model for model in _packaged().models}


def find(name: str) -> Weight:
    """Return a single file's entry; raises `WeightsError` where there is none of that name."""
    weights = load()
    if name not in weights:
        raise WeightsError(f"No model file is called {name!r}.", f"Known are: {', '.join(sorted(weights))}.")
    return weights[name]


def find_model(name: str) -> KnownModel:
    """Return a model's entry; raises `WeightsError` where there is none of that name."""
    known = models()
    if name not in known:
        raise WeightsError(f"No model is called {name!r}.", f"Known are: {', '.join(known)}.")
    return known[name]
