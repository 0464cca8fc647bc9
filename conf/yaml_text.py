"""YAML as people write it: read as plain values, or refused with a reason in one line."""

from __future__ import annotations

from typing import Any

import yaml

_MOST = 100_000  # values of a document, what it names again by an alias each time


def parse(text: str) -> Any:
    """The values of a document, None for an empty one. Raises ValueError for what cannot be read, what is nested without an
    end or too deeply, and what would be larger than any settings are."""
    try:
        value = yaml.safe_load(text)
        count = _count(value, {})
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except (yaml.YAMLError, ValueError) as error:  # a date or a number of the form of one that is none
        raise ValueError(" ".join(str(error).split())) from None
    if count > _MOST:
        raise ValueError(f"expected at most {_MOST:,} values, found {count:,}, by aliases")
    return value


def _count(value: Any, known: dict[int, int]) -> int:
    """How many values there are. known: of what has been counted, 0 of what is being counted."""
    if not isinstance(value, dict | list | set | tuple):
        return 1
    if id(value) not in known:
        known[id(value)] = 0
        inner = value.values() if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(_count(each, known) for each in inner)
    elif not known[id(value)]:
        raise ValueError("it holds itself")
    return known[id(value)]
