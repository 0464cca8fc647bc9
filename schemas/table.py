"""How a table is declared: everything that is true of it, in one value."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from schemas.checks import Contract
from schemas.columns import Column
from schemas.label_set import LabelSet
from schemas.rates import Rates


@dataclass(frozen=True)
class Reference:
    """Columns of a row whose values are found together in one of these tables."""

    columns: tuple[str, ...]
    tables: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """What a row is, its columns, its key, how it is cut into folders, and what good rows satisfy.

    partition_by: columns whose values name the folders, outermost first. `contract` and `rates`, what a wave's rows satisfy
    together, take the task's label set. references: to rows of other tables, which a wave cannot be held against.
    key_is_local: whether all rows of one key lie in one folder, so that a key is looked for there and nowhere else.
    """

    name: str
    grain: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    contract: Callable[[LabelSet], Contract]
    partition_by: tuple[str, ...] = ()
    key_is_local: bool = True
    rates: Callable[[LabelSet], Rates] = lambda labels: Rates()
    references: tuple[Reference, ...] = ()

    def json(self) -> dict[str, Any]:
        """The schema in the JSON form that Spark and Delta share."""
        return {"type": "struct", "fields": [column.json() for column in self.columns]}
