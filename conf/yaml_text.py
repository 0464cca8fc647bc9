"""YAML as people write it: read as plain values, or refused with a reason in one line."""

from __future__ import annotations

from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

_MOST = 100_000  # values of a document, what it names again by an alias each time
# What PyYAML raises for a date, a number or a tag of a form that it takes for one, and that is none.
_NONE_OF_IT = (ValueError, AttributeError, IndexError, KeyError, TypeError)


def parse(text: str) -> Any:
    """The values of a document, None for an empty one. Raises ValueError for what cannot be read, what is nested without an
    end or too deeply, and what would be larger than any settings are."""
    try:
        loader = yaml.SafeLoader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            # Before anything is made of it: merged keys grow while they are read.
            if (count := _count(node, {})) > _MOST:
                raise ValueError(f"expected at most {_MOST:,} values, found {count:,}, by aliases")
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except (yaml.YAMLError, *_NONE_OF_IT) as error:
        said = " ".join(str(error).replace('in "<unicode string>", ', "in ").split())
        raise ValueError(said or type(error).__name__) from None


def _check_keys(node: MappingNode) -> None:
    """Raises ValueError for a key that is there twice: YAML would take the last one, and drop the other in silence."""
    seen: set[str] = set()
    for key, _ in node.value:
        name = f"{key.tag} {key.value}"
        if isinstance(key, ScalarNode) and name in seen:
            raise ValueError(f"the key {key.value!r} is there twice, again in line {key.start_mark.line + 1}")
        seen.add(name)


def _count(node: Node, known: dict[int, int]) -> int:
    """How many values there are. known: of what has been counted, 0 of what is being counted."""
    if not isinstance(node, (SequenceNode, MappingNode)):
        return 1
    if id(node) not in known:
        known[id(node)] = 0
        if isinstance(node, MappingNode):
            _check_keys(node)
        inner = [value for _, value in node.value] if isinstance(node, MappingNode) else node.value
        known[id(node)] = 1 + sum(_count(each, known) for each in inner)
    elif not known[id(node)]:
        raise ValueError("it holds itself")
    return known[id(node)]
