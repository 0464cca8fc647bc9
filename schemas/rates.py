"""The vocabulary of rates: what a wave's rows have to satisfy together, where each of them may be good.

A model that answers nothing but one label, or nothing that can be read, breaks no row's contract. `lake/rates.py` holds a
wave against its maker's own past, and against limits that no past moves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["stop", "warn"]


@dataclass(frozen=True)
class Rate:
    """part, whole: SQL aggregates over the rows of one maker: how many count, out of how many. among: the rows that the
    whole is made of, in SQL, whose videos are what is independent.

    name: what good waves satisfy. most: the share that is not exceeded, unless somebody has released waves that did; rise:
    how far above its past share it may be; floor: the share up to which nothing is said. both_ways: whether it may not fall
    so far either, nor to a tenth. severity: what exceeding `most`, or falling to a tenth, does; of_past: what being further
    from the past than `rise` does. least: videos of a wave below which its share says nothing, not even beside others.
    """

    name: str
    part: str
    whole: str
    message: str
    among: str = "TRUE"
    most: float = 1.0
    rise: float = 1.0
    floor: float = 0.0
    both_ways: bool = False
    severity: Severity = "stop"
    of_past: Severity = "stop"
    least: int = 1


@dataclass(frozen=True)
class Mean:
    """part, whole: SQL aggregates whose ratio is the mean, over the rows `among`. factor: how many times its past mean it
    may be, or that it."""

    name: str
    part: str
    whole: str
    message: str
    among: str = "TRUE"
    factor: float = 2.0
    severity: Severity = "stop"
    least: int = 1


@dataclass(frozen=True)
class Rates:
    """What is asked of a table's waves. made_by: who made a row, in SQL, whose past it is held against; unit: the column of
    what is independent."""

    made_by: str = ""
    of_rows: tuple[Rate | Mean, ...] = ()
    unit: str = "video_id"


def share(
    name: str,
    condition: str,
    message: str,
    among: str = "TRUE",
    *,
    most: float = 1.0,
    rise: float = 1.0,
    floor: float = 0.0,
    both_ways: bool = False,
    severity: Severity = "stop",
    of_past: Severity | None = None,
) -> Rate:
    """Of the rows `among`, those that meet a condition; of_past: as severity where it is not given."""
    counted = f"count_if(({among}) AND ({condition}))"
    whole = f"count_if({among})"
    return Rate(name, counted, whole, message, among, most, rise, floor, both_ways, severity, of_past or severity)
