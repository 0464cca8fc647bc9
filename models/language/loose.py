"""What other systems' models wrote, read for the one thing that is wanted of it: JSON, JSON in a fence, JSON that is broken,
`key: value` lines, prose. What cannot be found is None; nothing is guessed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

_FENCE = re.compile(r"```[\w-]*\s*(.*?)```", re.DOTALL)
_STEP = re.compile(r"[^.\[\]]+")
_TOLD = r"\"((?:[^\"\\]|\\.)*)\"|'([^'\n]*)'|([^\n,}\]]+)"  # quoted, or up to a line's or a list's end
_AROUND = " \t\r\n.,;:!\"'`*_()[]{}"


@dataclass(frozen=True)
class Where:
    """Where something is. `$.a.b[0]`: at a path of the JSON that a text holds, or behind the last name of the path where it
    holds none that can be read; `/.../`: the first group of the last match of a regular expression, or all of it; anything
    else: a field of the row itself, by a path. Of several places the last counts: models weigh before they conclude.

    Raises ValueError for an expression that is none.
    """

    expression: str

    def __post_init__(self) -> None:
        if self.is_regex:
            try:
                re.compile(self.expression[1:-1])
            except re.error as error:
                raise ValueError(f"{self.expression}: expected a regular expression between slashes: {error}") from None
        elif not _STEP.findall(self.expression.removeprefix("$")):
            raise ValueError(f"{self.expression!r}: expected $.path, /regular expression/ or the name of a field")

    @property
    def is_regex(self) -> bool:
        return len(self.expression) > 1 and self.expression[0] == self.expression[-1] == "/"

    @property
    def in_text(self) -> bool:
        return self.is_regex or self.expression.startswith("$")

    def of(self, row: Mapping[str, Any], text: str | None) -> Any:
        """What is there, None for nothing; row: the fields beside the text."""
        if not self.in_text:
            return at(row, self.expression)
        if not text:
            return None
        if self.is_regex:
            found = list(re.finditer(self.expression[1:-1], text))
            return (found[-1][1] if found[-1].re.groups else found[-1][0]) if found else None
        path, documents = self.expression[1:], list(_documents(text))
        if not documents:
            return _behind(text, _STEP.findall(path)[-1])
        return next((there for value in documents if (there := at(value, path)) is not None), None)


def at(value: Any, path: str) -> Any:
    """What is at a path (`a.b[0]`) of nested values; None where there is nothing. A name with dots in it comes first."""
    if isinstance(value, Mapping) and path in value:
        return value[path]
    for step in _STEP.findall(path):
        if isinstance(value, Mapping):
            value = value.get(step)
        elif isinstance(value, Sequence) and not isinstance(value, str) and step.isdigit() and int(step) < len(value):
            value = value[int(step)]
        else:
            return None
    return value


def _documents(text: str) -> Iterator[Any]:
    """The JSON documents in a text that can be read: all of it, in fences, the last first, between its first and last
    brace."""
    parts = [text, *reversed(_FENCE.findall(text)), text[text.find("{") : text.rfind("}") + 1]]
    for part in parts:
        try:
            found = json.loads(part, strict=False)
        except (ValueError, RecursionError):
            continue
        if isinstance(found, Mapping | list):
            yield found


def _behind(text: str, name: str) -> str | None:
    """What stands behind the last such name and a colon, up to the end of its quotes, its line or its list."""
    named = rf"(?<!\w)[\"'*_`]{{0,3}}{re.escape(name)}[\"'*_`]{{0,3}}\s{{0,9}}[:=][ \t*_`]{{0,9}}"
    found = list(re.finditer(rf"{named}(?:{_TOLD})", text, re.IGNORECASE))
    if not found:
        return None
    return next((group.strip() for group in found[-1].groups() if group is not None), None) or None


@dataclass(frozen=True)
class Names:
    """Reads labels. labels: slugs, in the order of the task; values: other systems' words -> label; several: whether an
    answer names any number of them."""

    labels: tuple[str, ...]
    values: Mapping[str, str] = field(default_factory=dict)
    several: bool = False

    def read(self, value: Any) -> tuple[str, ...] | None:
        """The labels that a value names, in order; None where one of them is no label."""
        if value is None or isinstance(value, Mapping):
            return None
        words = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
        if self.several and isinstance(value, str):
            words = [word for word in re.split(r"[,;\n]", value) if word.strip()]
        known = {plain(label): label for label in self.labels}
        known |= {plain(word): label for word, label in self.values.items()}
        found = {known.get(plain(word)) for word in words}
        if None in found or (not self.several and len(found) != 1):
            return None
        return tuple(label for label in self.labels if label in found)


def plain(word: Any) -> str:
    """A word as it is compared: without case, signs around it, or how its parts are joined."""
    text = json.dumps(word) if isinstance(word, bool) else str(word)
    return re.sub(r"[\s_-]+", " ", text.strip(_AROUND)).casefold()
