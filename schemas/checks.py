"""The vocabulary of contracts: what good rows satisfy, said once, run twice.

Each check is one expectation for Great Expectations (its result becomes a row of the table quality) and one SQL predicate
(rows that fail it go to quarantine with its reason). `lake/audit.py` runs both.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Check:
    """name: what good rows satisfy; sql: the same as a predicate; expectation: the same for Great Expectations."""

    name: str
    sql: str
    expectation: tuple[str, dict[str, Any]]
    message: str


def not_null(column: str) -> Check:
    return Check(
        f"{column}_is_given",
        f"`{column}` IS NOT NULL",
        ("ExpectColumnValuesToNotBeNull", {"column": column}),
        f"{column} is missing",
    )


def one_of(column: str, values: tuple[str, ...]) -> Check:
    """A value out of a closed set; NULL passes (ask for `not_null` beside it where it should not)."""
    listed = ", ".join(f"'{value}'" for value in values)
    return Check(
        f"{column}_is_known",
        f"`{column}` IS NULL OR `{column}` IN ({listed})",
        ("ExpectColumnValuesToBeInSet", {"column": column, "value_set": list(values)}),
        f"{column} is not one of {', '.join(values)}",
    )


def some_of(column: str, values: tuple[str, ...]) -> Check:
    """An array of values out of a closed set, each at most once, in the order of the set; NULL passes."""
    listed = ", ".join(f"'{value}'" for value in values)
    return holds(
        f"{column}_are_known",
        f"`{column}` IS NULL OR `{column}` = filter(array({listed}), value -> array_contains(`{column}`, value))",
        f"{column} are not some of {', '.join(values)}, each once and in this order",
    )


def between(column: str, low: float | None = None, high: float | None = None) -> Check:
    """A number within limits, both included; NULL passes, NaN does not."""
    parts = [f"NOT isnan(`{column}`)"]
    parts += [f"`{column}` >= {low}"] if low is not None else []
    parts += [f"`{column}` <= {high}"] if high is not None else []
    return Check(
        f"{column}_is_in_range",
        f"`{column}` IS NULL OR ({' AND '.join(parts)})",
        # Spark holds NaN for greater than any number: an upper limit, be it infinite, is what refuses it.
        (
            "ExpectColumnValuesToBeBetween",
            {"column": column, "min_value": low, "max_value": math.inf if high is None else high},
        ),
        f"{column} is outside [{low}, {high}]",
    )


def matches(column: str, regex: str) -> Check:
    """A text of this form; NULL passes."""
    quoted = regex.replace("\\", "\\\\")
    return Check(
        f"{column}_is_well_formed",
        f"`{column}` IS NULL OR `{column}` RLIKE '{quoted}'",
        ("ExpectColumnValuesToMatchRegex", {"column": column, "regex": regex}),
        f"{column} does not look like {regex}",
    )


def holds(name: str, sql: str, message: str) -> Check:
    """Any predicate over one row; Great Expectations sees its value as a column of this name."""
    return Check(name, sql, ("ExpectColumnValuesToBeInSet", {"column": name, "value_set": [True]}), message)


# The checks of one table, in the order in which a row that fails several is given its reason.
Contract = tuple[Check, ...]
