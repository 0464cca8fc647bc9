"""Column types in the JSON form that Spark and Delta share, so that a table is described once for every engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

STRING, INT, LONG, DOUBLE = "string", "integer", "long", "double"
BOOLEAN, DATE, TIMESTAMP = "boolean", "date", "timestamp"


def array(element: Any) -> dict[str, Any]:
    """An array without NULL elements."""
    return {"type": "array", "elementType": element, "containsNull": False}


def mapping(key: Any, value: Any) -> dict[str, Any]:
    """A map without NULL values."""
    return {"type": "map", "keyType": key, "valueType": value, "valueContainsNull": False}


@dataclass(frozen=True)
class Column:
    """One column: name, type, and what it means, with its unit."""

    name: str
    type: Any
    comment: str

    def json(self) -> dict[str, Any]:
        """The field as Delta's schema has it. Whether it may be NULL is for the contract to say."""
        return {"name": self.name, "type": self.type, "nullable": True, "metadata": {"comment": self.comment}}
