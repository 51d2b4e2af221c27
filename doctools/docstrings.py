"""Docstrings as pages show them: `name: what it is` becomes an item of a list, where `name` is a parameter or field."""

from __future__ import annotations

import re
from typing import Any

import griffe


def with_lists(text: str, names: list[str]) -> str:
    """Return a docstring whose explanations of `names`, at the start of a line or a sentence, are list items."""
    if not names:
        return text
    one = "|".join(map(re.escape, sorted(names, key=len, reverse=True)))
    explained = re.compile(rf"(?:(?<=^)|(?<=\n)|(?<=\. )|(?<=; ))((?:{one})(?:, (?:{one}))*): ")
    return explained.sub(lambda found: "\n\n- " + ", ".join(f"`{n}`" for n in found[1].split(", ")) + ": ", text)


class NamedLists(griffe.Extension):
    """Applies `with_lists` to every docstring that mkdocstrings shows."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Change the docstring of a function or a class."""
        if obj.docstring is None:
            return
        names: list[str] = []
        if isinstance(obj, griffe.Function):
            names = [parameter.name for parameter in obj.parameters if parameter.name != "self"]
        elif isinstance(obj, griffe.Class):
            names = [name for name, member in obj.members.items() if member.is_attribute and not name.startswith("_")]
        obj.docstring.value = with_lists(obj.docstring.value, names)
