"""Tables of the documentation that are made from the code: what it lists is what there is.

A line `<!-- table: NAME ARGUMENT -->` of a page becomes the table NAME. A table refuses what has no description.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import Enum
from importlib.resources import files
from pathlib import Path
from typing import Any, Final, get_args

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema
from typer.main import get_command

from lipsync_core import errors
from lipsync_core.backends import StageKind
from lipsync_core.cli import EXIT_BAD_INPUT, app
from lipsync_core.hookspecs import LipsyncHooks
from lipsync_core.job_settings import JobSettings
from lipsync_core.models import manifest
from lipsync_core.registry import Entry, State, discover
from lipsync_core.settings import available_profiles
from lipsync_core.testing import CHECKS, pytest_plugin

_MARK: Final = re.compile(r"^<!-- table: ([\w-]+)(?: ([\w-]+))? -->$", re.MULTILINE)
_OWN: Final = "lipsync-core"


class UndescribedError(Exception):
    """Something public says nothing about itself; the text says what and where to write it."""


def fill(text: str) -> str:
    """Return a page with every table mark replaced by its table."""

    def table(mark: re.Match[str]) -> str:
        name, argument = mark.groups()
        if name not in TABLES:
            raise UndescribedError(f"{mark.group()}: there is no such table; there are {', '.join(TABLES)}")
        return TABLES[name](*([argument] if argument else []))

    return _MARK.sub(table, text)


def described(text: str | None, what: str, where: str) -> str:
    """Return a description as one line of a table's cell; raises `UndescribedError` where there is none."""
    line = " ".join((text or "").split())
    if not line:
        raise UndescribedError(f"{what} has no description: write it in {where}, the documentation is made from that.")
    return line.replace("|", "\\|")


def _rows(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _code(value: object) -> str:
    return f"`{value}`".replace("|", "\\|")


def backends(kind: str | None = None) -> str:
    """The packaged backends, of one stage or of all."""
    rows = []
    for entry in own_backends(kind):
        spec = entry.spec
        needs = _code(spec.install) if set(spec.requires) - {"cv2"} else "nothing more"
        rows.append((str(spec.kind), _code(spec.name), described(spec.summary, spec.name, "its BackendSpec"), needs))
    return _rows(("stage", "backend", "what it does", "needs"), rows)


def own_backends(kind: str | None = None) -> list[Entry]:
    """Return the backends of this distribution."""
    entries = [entry for entry in discover().entries if entry.origin.distribution == _OWN]
    return [entry for entry in entries if kind in (None, entry.spec.kind)]


def options(kind: str) -> str:
    """Every option of every packaged backend of a stage, under a heading for each."""
    parts = []
    for entry in own_backends(kind):
        model = discover().options_model(entry)
        name = entry.spec.name
        table = _fields(model, f"{entry.spec.kind}.options.", entry.spec.options)
        state = f"\n\nNeeds `{entry.spec.install}`." if entry.state is State.MISSING else ""
        parts.append(f"### {name}\n\n{described(entry.spec.summary, name, 'its BackendSpec')}.{state}\n\n{table}")
    return "\n\n".join(parts)


def job() -> str:
    """The settings of the table `[job]`."""
    return _fields(JobSettings, "job.", "lipsync_core.job_settings:JobSettings")


class _Lenient(GenerateJsonSchema):
    """A fraction has no JSON type; its description says what may be given."""

    def handle_invalid_for_json_schema(self, schema: Any, error_info: str) -> dict[str, Any]:
        return {"type": "string"}


def _fields(model: type[BaseModel], prefix: str, where: str) -> str:
    known = model.model_json_schema(schema_generator=_Lenient)["properties"] if model.model_fields else {}
    rows = []
    for name, field in model.model_fields.items():
        text = described(field.description, f"The option {prefix}{name}", where)
        default = field.get_default(call_default_factory=True)
        rows.append((_code(prefix + name), _allowed(known[name]), _code(_plain(default)), text[0].upper() + text[1:]))
    return _rows(("setting", "values", "default", "meaning"), rows) if rows else "It has no options."


def _plain(value: object) -> str:
    if value is None:
        return "none"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _allowed(schema: Mapping[str, Any]) -> str:
    """Return the values of a JSON schema in words: choices, a range, or the type."""
    if "anyOf" in schema:
        return ", or ".join(_allowed(part) for part in schema["anyOf"])
    if "enum" in schema:
        return ", ".join(_code(value) for value in schema["enum"])
    if "const" in schema:
        return _code(schema["const"])
    kind = {"integer": "whole number", "number": "number", "boolean": "`true`, `false`", "null": "none"}
    name = {"path": "path"}.get(schema.get("format", ""), kind.get(schema.get("type", ""), schema.get("type", "any")))
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    bounds = [f"{sign} {schema[key]:g}" for key, sign in signs.items() if key in schema and schema[key] < 2**62]
    if "multipleOf" in schema:
        bounds.append(f"a multiple of {schema['multipleOf']:g}")
    return f"{name} {', '.join(bounds)}".strip()


def profiles() -> str:
    """The packaged profiles and the backend each picks for every stage."""
    packaged = {name: p for name, p in available_profiles(discover()).items() if "packaged" in p.layer.name}
    rows = []
    for name, profile in packaged.items():
        base = f"; builds on `{profile.extends}`" if profile.extends else ""
        rows.append((_code(name), described(profile.summary, name, "its TOML file") + base))
    return _rows(("profile", "what it is"), rows)


def command(path: str) -> str:
    """Usage, arguments and flags of one command, or of each command of a group; `-` joins the words."""
    found: Any = get_command(app)
    words = [word for word in path.split("-") if word]
    for word in words:
        found = found.commands[word]
    return "\n\n".join(_command(found, " ".join(["lipsync", *words])))


def commands() -> str:
    """Every command."""
    return "\n\n".join(_command(get_command(app), "lipsync"))


def _command(found: Any, path: str) -> Iterator[str]:
    text = described(found.help, f"The command {path}", "the docstring of its function")
    rows = []
    usage = [path]
    for parameter in found.params:
        if parameter.name == "help":
            continue
        what = f"{path} {parameter.name}"
        help_ = described(getattr(parameter, "help", None), what, "its typer.Option or typer.Argument")
        if parameter.param_type_name == "argument":
            name = parameter.name.upper()
            usage.append(name if parameter.required else f"[{name}]")
            rows.append((_code(name), help_))
        else:
            names = [*parameter.opts, *parameter.secondary_opts]
            value = "" if parameter.is_flag else f" {parameter.metavar or _value(parameter)}"
            rows.append((", ".join(_code(name + value) for name in names), help_ + _default(parameter)))
    inner = dict(sorted(getattr(found, "commands", {}).items()))
    if inner:
        usage.append("COMMAND")
    table = "\n\n" + _rows(("argument or flag", "meaning"), rows) if rows else ""
    yield f"### {path}\n\n{text}\n\n    {' '.join(usage)}{' [FLAGS]' if rows else ''}{table}"
    for name, sub in inner.items():
        yield from _command(sub, f"{path} {name}")


def _value(parameter: Any) -> str:
    """Return what stands for the value of a flag: its choices, or its type in capitals."""
    types = [parameter.type_descriptor.annotation]
    while args := [inner for t in types for inner in get_args(t) if inner is not type(None)]:
        types = args
    (kind,) = types
    if isinstance(kind, type) and issubclass(kind, Enum):
        return "|".join(str(member.value) for member in kind)
    return {int: "N", float: "X", Path: "PATH"}.get(kind, "TEXT")


def _default(parameter: Any) -> str:
    value = parameter.default
    if parameter.is_flag or value is None or callable(value) or value == []:
        return ""
    return f" Default: {_code(getattr(value, 'value', value))}."


def hooks() -> str:
    """The hooks a plugin may implement."""
    rows = []
    for name, function in inspect.getmembers(LipsyncHooks, inspect.isfunction):
        if name.startswith("lipsync_"):
            returns = inspect.signature(function).return_annotation
            rows.append((_code(name), _code(returns), described(function.__doc__, name, "hookspecs.py")))
    return _rows(("hook", "returns", "what it is for"), rows)


def error_classes() -> list[type[errors.LipsyncError]]:
    """Return the classes of errors, the base first."""
    found = [c for _, c in inspect.getmembers(errors, inspect.isclass) if issubclass(c, errors.LipsyncError)]
    return sorted(found, key=lambda c: (len(c.__mro__), c.__name__))


def error_table() -> str:
    """The classes of errors."""
    rows = []
    for found in error_classes():
        base = found.__mro__[1].__name__
        rows.append((_code(found.__name__), _code(base), described(found.__doc__, found.__name__, "errors.py")))
    return (
        _rows(("class", "kind of", "when"), rows)
        + f"\n\nOn the command line each ends with exit code {EXIT_BAD_INPUT}."
    )


def checks(kind: str) -> str:
    """What the conformance kit asks of a backend of a stage."""
    rows = []
    for check in CHECKS[StageKind(kind)]:
        first = (check.__doc__ or "").strip().splitlines()
        rows.append((_code(check.__name__), described(first[0] if first else "", check.__name__, "testing/checks.py")))
    return _rows(("check", "what it asks"), rows)


def fixtures() -> str:
    """The fixtures that the pytest plugin gives."""
    rows = []
    for name in sorted(vars(pytest_plugin)):
        if name.startswith("lipsync_"):
            text = getattr(pytest_plugin, name).__doc__
            rows.append((_code(name), described(text, name, "testing/pytest_plugin.py")))
    return _rows(("fixture", "what it gives"), rows)


def models() -> str:
    """The models and model files that can be pulled."""
    rows = []
    for model in manifest.models().values():
        size = sum(file.size or 0 for file in model.files)
        rows.append(
            (_code(model.name), described(model.title, model.name, "manifest.toml"), _size(size), model.licence)
        )
    for weight in manifest.load().values():
        text = described(weight.title, weight.name, "manifest.toml")
        rows.append((_code(weight.name), text, _size(weight.size), weight.licence))
    return _rows(("name", "what it is", "size", "licence"), rows)


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def profile_file(name: str) -> str:
    """A packaged profile as it stands."""
    text = (files("lipsync_core") / "profiles" / f"{name}.toml").read_text(encoding="utf-8")
    return f"```toml\n{text.strip()}\n```"


TABLES: Final[Mapping[str, Callable[..., str]]] = {
    "backends": backends,
    "options": options,
    "job": job,
    "profiles": profiles,
    "profile-file": profile_file,
    "command": command,
    "commands": commands,
    "hooks": hooks,
    "errors": error_table,
    "checks": checks,
    "fixtures": fixtures,
    "models": models,
}
