"""The public surface as text, one line for each name that others may rely on (docs/stability.md).

`python -m doctools.surface` writes docs/public_surface.txt, which a test compares with the code. It reads the source
with griffe and imports no backend, so that it says the same with and without torch.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import griffe
from typer.main import get_command

from lipsync_core.cli import app
from lipsync_core.registry import discover
from lipsync_core.settings import available_profiles

ROOT: Final = Path(__file__).resolve().parent.parent
SNAPSHOT: Final = ROOT / "docs" / "public_surface.txt"
RENEW: Final = "python -m doctools.surface"

MODULES: Final = (
    "lipsync_core",
    "lipsync_core.api",
    "lipsync_core.backends",
    "lipsync_core.errors",
    "lipsync_core.hookspecs",
    "lipsync_core.landmarks",
    "lipsync_core.progress",
    "lipsync_core.stages",
    "lipsync_core.testing",
    "lipsync_core.testing.pytest_plugin",
    "lipsync_core.testing.samples",
    "lipsync_core.types",
)
_PLUGINS: Final = ("audio", "face", "denoiser", "compositor")
_OWN: Final = "lipsync-core"


def surface() -> list[str]:
    """Return every line of the public surface, sorted within each part."""
    loader = griffe.GriffeLoader(search_paths=[ROOT, *(ROOT / "plugins" / name for name in _PLUGINS)])
    for package in ("lipsync_core", *(f"lipsync_{name}" for name in _PLUGINS)):
        loader.load(package)
    loader.resolve_aliases(implicit=True)
    collection = loader.modules_collection
    python = sorted({line for module in MODULES for line in _module(collection[module])})
    return [*python, *sorted(_commands()), *_settings(collection)]


def _module(module: griffe.Module) -> Iterator[str]:
    for name, member in module.members.items():
        if _is_public(module, name, member):
            yield from _object(f"{module.path}.{name}", member.final_target if member.is_alias else member)


def _is_public(module: griffe.Module, name: str, member: griffe.Object | griffe.Alias) -> bool:
    if module.exports is not None:
        return name in module.exports
    # What a module imports is not its own, and a submodule is public where MODULES names it.
    return not (name.startswith("_") or member.is_alias or member.is_module)


def _object(path: str, item: Any) -> Iterator[str]:
    if item.is_function:
        yield f"{path}{_signature(item)}"
    elif item.is_class:
        bases = ", ".join(str(base) for base in item.bases)
        yield f"class {path}({bases})" if bases else f"class {path}"
        for name, member in item.all_members.items():
            target = member.final_target if member.is_alias else member
            if name == "__init__" and target.is_function:
                yield f"{path}{_signature(target, skip=1)}"
            elif not name.startswith("_"):
                yield from _object(f"{path}.{name}", target)
    else:
        yield f"{path}{_annotated(item)}"


def _signature(function: Any, skip: int = 0) -> str:
    shown, star = [], False
    for parameter in list(function.parameters)[skip:]:
        kind = parameter.kind
        mark = {griffe.ParameterKind.var_positional: "*", griffe.ParameterKind.var_keyword: "**"}.get(kind, "")
        if kind is griffe.ParameterKind.keyword_only and not star:
            shown.append("*")
        star = star or mark == "*" or kind is griffe.ParameterKind.keyword_only
        text = f"{mark}{parameter.name}"
        text += f": {parameter.annotation}" if parameter.annotation is not None else ""
        text += f" = {parameter.default}" if parameter.default is not None and not mark else ""
        shown.append(text)
    returns = f" -> {function.returns}" if function.returns is not None else ""
    return f"({', '.join(shown)}){returns}"


def _annotated(attribute: Any) -> str:
    """Return an attribute's annotation and, where it is short, its value: members of an enum are relied on too."""
    annotation = f": {attribute.annotation}" if attribute.annotation is not None else ""
    value = attribute.value
    plain = value is not None and len(str(value)) < 60 and attribute.name != "__version__"
    plain = plain and str(value) != attribute.name  # `self.cause = cause` says nothing
    return f"{annotation} = {value}" if plain else annotation


def _commands() -> Iterator[str]:
    yield from _command(get_command(app), "lipsync")


def _command(command: Any, path: str) -> Iterator[str]:
    yield f"$ {path}"
    for parameter in command.params:
        if parameter.param_type_name == "argument":
            yield f"$ {path} {parameter.name.upper()}"
        elif parameter.name != "help":
            yield f"$ {path} {'/'.join([*parameter.opts, *parameter.secondary_opts])}"
    for name, inner in getattr(command, "commands", {}).items():
        yield from _command(inner, f"{path} {name}")


def _settings(collection: Any) -> Iterator[str]:
    registry = discover()
    for name, profile in sorted(available_profiles(registry).items()):
        if "packaged" in profile.layer.name:
            yield f"profile {name}"
    for name, field in _fields(collection["lipsync_core.settings.JobSettings"]):
        yield f"job.{name}{field}"
    for entry in registry.entries:
        if entry.origin.distribution != _OWN:
            continue
        yield f"{entry.spec.kind} {entry.spec.name}"
        for name, field in _fields(collection[entry.spec.options.replace(":", ".")]):
            yield f"{entry.spec.kind} {entry.spec.name} options.{name}{field}"


def _fields(model: Any) -> Iterator[tuple[str, str]]:
    """Yield the fields of a pydantic model and their annotations, those it inherits included."""
    model = model.final_target if model.is_alias else model
    for name, member in sorted(model.all_members.items()):
        target = member.final_target if member.is_alias else member
        if target.is_attribute and target.annotation is not None and not name.startswith(("_", "model_")):
            yield name, f": {target.annotation}"


def main() -> None:
    """Write the snapshot."""
    SNAPSHOT.write_text("\n".join(surface()) + "\n", encoding="utf-8")
    sys.stdout.write(f"{SNAPSHOT.relative_to(ROOT)} is written: look at its diff before you commit it.\n")


if __name__ == "__main__":
    main()
