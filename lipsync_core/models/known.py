"""Known models: folders of files from the hub, found where the user put them or where `lipsync models pull` did.

A model is looked for in the folder of its name inside LIPSYNC_MODELS, then in the cache. Files are hashed when they
are downloaded and by `lipsync models verify`, not at every use: that costs seconds for 5 GB.

Two more names are known: `auto`, the best model that is whole, and `tiny`, which is made at its first use.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from importlib.resources import files
from pathlib import Path

from lipsync_core.errors import WeightsError
from lipsync_core.models import manifest
from lipsync_core.models.folder import MODEL_FILE, ModelConfig, ModelFolder, read_config
from lipsync_core.models.manifest import HubFile, KnownModel
from lipsync_core.models.store import MODELS_VARIABLE, cache_folder, sha256
from lipsync_core.paths import existing

AUTO = "auto"
TINY = "tiny"
_TINY_DESCRIPTION = "tiny.json"

_logger = logging.getLogger(__name__)


class Verdict(StrEnum):
    """What is known of one file."""

    GOOD = "good"
    DAMAGED = "damaged"
    MISSING = "missing"
    UNKNOWN = "there, no hash known"


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """One model: `folder` is where it is whole, None where it is not; `size` in bytes, of what is there or to come."""

    model: KnownModel
    folder: Path | None
    size: int


def cached_folder(model: KnownModel) -> Path:
    """Return where `pull` puts a model; it may not exist yet."""
    return cache_folder() / model.name


def open_model(text: str) -> ModelFolder:
    """Open the model an option names: `auto`, a known name, or the path of a model folder.

    Raises: `WeightsError` where it is none of these, not whole, or its `model.json` is wrong.
    """
    if text == AUTO:
        return ModelFolder.open(folder_of(best()))
    if text == TINY:
        return ModelFolder.open(_tiny())
    if text in manifest.models():
        return ModelFolder.open(folder_of(text))
    path = _own_folder(text)
    if path is None:
        raise WeightsError(
            f"{text[:200]!r} is neither a known model nor a folder.",
            f"Give a model folder or one of: {', '.join([AUTO, *_described(), TINY])}.",
        )
    return ModelFolder.open(path)


def described_folders(text: str) -> list[Path]:
    """Return the folders with a `model.json` that an option may mean, the best first; their weights may be absent."""
    if text == AUTO:
        roots = [place for name in _described() for place in _places(manifest.find_model(name))]
    elif text == TINY:
        roots = [cache_folder() / TINY]
    elif text in manifest.models():
        roots = _places(manifest.find_model(text))
    else:
        own = _own_folder(text)
        roots = [own] if own is not None else []
    return [root for root in roots if (root / MODEL_FILE).is_file()]


def _own_folder(text: str) -> Path | None:
    path = existing(text)
    return path if path is not None and path.is_dir() else None


def _described() -> list[str]:
    """Return the names of those known models that are model folders, the best first."""
    return [name for name, model in manifest.models().items() if model.description or model.packaged]


def describe(text: str) -> ModelConfig:
    """Return the description of the model an option names, whose weights may be absent; not for `auto`.

    Raises: `WeightsError` where there is no such model.
    """
    roots = described_folders(text)
    if roots:
        return ModelFolder.open(roots[0]).config
    if text == TINY:
        return read_config(files(__package__).joinpath(_TINY_DESCRIPTION))
    description = manifest.models()[text].description if text in manifest.models() else None
    if description is None:
        return open_model(text).config  # says what is wrong
    return read_config(files(__package__).joinpath(description))


def best(fits: Callable[[Path], bool] | None = None) -> str:
    """Return the name of the best model that is whole, or of whose folders one fits.

    Raises: `WeightsError` where there is none.
    """
    for name in _described():
        model = manifest.find_model(name)
        if any(fits(place) if fits else not _missing(model, place) for place in _places(model)):
            return name
    names = _described()
    raise WeightsError(
        f"No model is here: neither {' nor '.join(names)}.",
        f"{_cure(manifest.find_model(names[0]))} `--model {TINY}` tries the machinery with random weights.",
    )


def preview_note(config: ModelConfig | None) -> str | None:
    """Return what to say of a model that is a stand-in, None for any other."""
    if config is None or not config.preview:
        return None
    full = next(name for name in _described() if not describe(name).preview)
    here = any(not _missing(manifest.find_model(full), place) for place in _places(manifest.find_model(full)))
    cure = f"`--model {full}` is the full one" if here else f"`lipsync models pull {full}` brings the full one"
    return f"preview model, {config.resolution} px; {cure}"


def _tiny() -> Path:
    root = cache_folder() / TINY
    if not (root / MODEL_FILE).is_file():
        try:
            from lipsync_core.models.tiny import write_tiny  # noqa: PLC0415 - needs torch, which its users have
        except ImportError as error:
            raise WeightsError(
                f"Making the model {TINY} needs torch and safetensors.", 'Run `pip install "lipsync-core[torch]"`.'
            ) from error
        write_tiny(root)
    return root


def folder_of(name: str) -> Path:
    """Return the folder where a known model is whole; says once if its licence forbids commercial use.

    Files put there by hand get their `model.json`. Raises: `WeightsError` naming what is missing, the command that
    brings it and the place it may be put.
    """
    model = manifest.find_model(name)
    for root in _places(model):
        if not _missing(model, root):
            _describe(model, root)
            _remind(model)
            return root
    absent = _missing(model, _places(model)[-1])
    more = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
    raise WeightsError(f"The model {name} is not here: it lacks {absent[0]}{more}.", _cure(model))


def pull(name: str) -> Path:
    """Bring every file of a known model into the cache and return its folder; what is there and good stays.

    A damaged file is deleted and fetched again. Raises: `WeightsError` where it cannot be brought.
    """
    model = manifest.find_model(name)
    if model.packaged:
        return folder_of(name)
    root = cached_folder(model)
    _remind(model)
    for file, source in _wanted(model, root):
        verdict = _verdict(root / file, source)
        if verdict is Verdict.DAMAGED:
            _logger.warning("%s is damaged (another SHA-256) and is deleted", root / file)
            (root / file).unlink()
        elif verdict is not Verdict.MISSING:
            continue
        if source is None:
            raise WeightsError(
                f"{root / file}, which {MODEL_FILE} names, is missing and not on the hub.",
                f"Put it back, or delete {root / MODEL_FILE} and pull again.",
            )
        _fetch(source, root / file, _cure(model))
    _describe(model, root)
    return root


def verify(name: str) -> Iterator[tuple[str, Verdict]]:
    """Yield each file of a known model and whether its hash is right; deletes nothing."""
    model = manifest.find_model(name)
    root = next((place for place in _places(model) if not _missing(model, place)), cached_folder(model))
    for file, source in _wanted(model, root):
        yield file, _verdict(root / file, source)


def status() -> list[ModelStatus]:
    """Return every known model and where it is now; hashes and downloads nothing."""
    rows = []
    for model in manifest.models().values():
        root = next((place for place in _places(model) if not _missing(model, place)), None)
        if root is None:
            size = sum(file.size or 0 for file in model.files)
        else:
            size = sum((root / file).stat().st_size for file, _ in _wanted(model, root))
        rows.append(ModelStatus(model, root, size))
    return rows


def _places(model: KnownModel) -> list[Path]:
    own = os.environ.get(MODELS_VARIABLE)
    # A packaged model can be replaced as any other, but needs no place in the cache.
    home = Path(str(files(__package__))) / model.packaged if model.packaged else cached_folder(model)
    return [*([Path(own, model.name)] if own else []), home]


def _wanted(model: KnownModel, root: Path) -> list[tuple[str, HubFile | None]]:
    """Return the files that make the model whole there and their origin, None for one that was converted."""
    wanted: dict[str, HubFile | None] = {file.file: file for file in model.files}
    if model.packaged:
        wanted[MODEL_FILE] = None
    if (model.description or model.packaged) and (root / MODEL_FILE).is_file():
        config = ModelFolder.open(root).config
        for weights in config.weights:
            if weights not in wanted:
                # Converted: it stands for the pickle of the same stem, which may be gone.
                stem = Path(weights).with_suffix("")
                wanted = {file: source for file, source in wanted.items() if Path(file).with_suffix("") != stem}
                wanted[weights] = None
    return list(wanted.items())


def _missing(model: KnownModel, root: Path) -> list[str]:
    return [file for file, _ in _wanted(model, root) if not (root / file).is_file()]


def _verdict(path: Path, source: HubFile | None) -> Verdict:
    if not path.is_file():
        return Verdict.MISSING
    if source is None:
        return Verdict.UNKNOWN
    if source.size is not None and path.stat().st_size != source.size:
        return Verdict.DAMAGED
    if source.sha256 is None:
        return Verdict.UNKNOWN
    return Verdict.GOOD if sha256(path) == source.sha256 else Verdict.DAMAGED


def _describe(model: KnownModel, root: Path) -> None:
    """Write the packaged `model.json` beside files that have none."""
    if model.description is None or (root / MODEL_FILE).is_file():
        return
    text = files(__package__).joinpath(model.description).read_text(encoding="utf-8")
    try:
        (root / MODEL_FILE).write_text(text, encoding="utf-8")
    except OSError as error:
        raise WeightsError(
            f"{root} lacks {MODEL_FILE} and it cannot be written: {error.strerror}.", "Make that folder writable once."
        ) from error


def _cure(model: KnownModel) -> str:
    if model.packaged:
        return "It comes with lipsync-core: reinstall that."
    return (
        f"Run `lipsync models pull {model.name}` while online, or put its files into {cached_folder(model)} "
        f"or into {model.name} in the folder named by {MODELS_VARIABLE}."
    )


def _fetch(source: HubFile, target: Path, cure: str) -> None:
    try:
        from lipsync_core.models import hub  # noqa: PLC0415 - only a download needs huggingface_hub
    except ImportError as error:
        raise WeightsError(
            "Downloading needs huggingface_hub.", f"Run `pip install huggingface_hub`. {cure}"
        ) from error
    hub.fetch(source, target, cure)


def _remind(model: KnownModel) -> None:
    if model.non_commercial:
        _warn_once(f"{model.title}: its licence allows {model.licence}")


@cache
def _warn_once(text: str) -> None:
    _logger.warning("%s", text)
