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
    so far either, nor to a tenth. severity, of_past: what exceeding `most`, and what being unlike the past, does.
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
) -> Rate:
    """Of the rows `among`, those that meet a condition; what exceeding either limit does is the same."""
    counted = f"count_if(({among}) AND ({condition}))"
    return Rate(
        name, counted, f"count_if({among})", message, among, most, rise, floor, both_ways, severity, of_past=severity
    )
