"""A wave as a whole, held against the past of who made it (see schemas/rates.py).

A share is too large where it surely is: by the lower end of its interval (Clopper and Pearson 1934, 99 %), with videos for
the number of independent trials, as the rollouts of one video say much the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow.compute as pc
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from lake import table
from schemas.label_set import LabelSet
from schemas.quality import QUALITY
from schemas.rates import Mean, Rate, Rates, Severity
from schemas.runs import RUNS
from schemas.table import Table

_DOUBT = 0.01
_WAVES, _DAYS = 20, timedelta(days=90)  # of the past, of which the newest count


@dataclass(frozen=True)
class Seen:
    """part of whole, in rows; units: of what is independent among them."""

    part: int
    whole: int
    units: int

    @property
    def value(self) -> float:
        return self.part / self.whole if self.whole else 0.0


@dataclass(frozen=True)
class Past:
    """value: of all waves together; released: those of waves that a gate had stopped and somebody has released."""

    value: float
    released: tuple[float, ...] = ()


def surely_more(part: int, whole: int, allowed: float) -> bool:
    """Whether more than this share of trials like these comes out so, with 99 % confidence: one of three says little, a
    tenth of five thousand is no chance."""
    if part <= allowed * whole:
        return False
    from scipy.stats import beta  # half a second to import, for waves that have broken rows

    return bool(beta.ppf(_DOUBT, part, whole - part + 1) > allowed)


def results(root: str, wanted: Table, labels: LabelSet, staged: DataFrame, min_rows: int) -> list[dict[str, Any]]:
    """A row of the table quality for each rate of each maker in a wave of staged rows, of min_rows videos or more."""
    asked = wanted.rates(labels)
    if not asked.of_rows:
        return []
    enough = {key: of for key, of in _seen(staged, asked).items() if min(of.units, of.whole) >= min_rows}
    past = _past(root, wanted, {rate.name for _, rate in enough}) if enough else {}
    return [_result(maker, rate, of, past.get((maker, rate.name))) for (maker, rate), of in enough.items()]


def _seen(staged: DataFrame, asked: Rates) -> dict[tuple[str, Rate | Mean], Seen]:
    """By maker and rate."""
    parts = [F.expr(rate.part).alias(f"{rate.name}/part") for rate in asked.of_rows]
    wholes = [F.expr(rate.whole).alias(f"{rate.name}/whole") for rate in asked.of_rows]
    among = {rate.among for rate in asked.of_rows}
    units = [F.expr(f"count(DISTINCT CASE WHEN {rows} THEN {asked.unit} END)").alias(f"units/{rows}") for rows in among]
    made = staged.withColumn("_maker", F.expr(asked.made_by)).where("_maker IS NOT NULL")
    return {
        (row["_maker"], rate): Seen(
            int(row[f"{rate.name}/part"] or 0), int(row[f"{rate.name}/whole"] or 0), int(row[f"units/{rate.among}"])
        )
        for row in made.groupBy("_maker").agg(*units, *parts, *wholes).collect()
        for rate in asked.of_rows
    }


def _past(root: str, wanted: Table, names: set[str]) -> dict[tuple[str, str], Past]:
    """What the newest published waves of each maker came to, by (maker, rate)."""
    since = datetime.now(UTC) - _DAYS
    mine = (
        (pc.field("table") == wanted.name) & pc.field("check").isin(sorted(names)) & (pc.field("checked_at") >= since)
    )
    columns = ["wave_id", "check", "about", "severity", "success", "unexpected", "rows", "checked_at"]
    found = table.open_table(QUALITY, root).to_pyarrow_dataset().to_table(columns=columns, filter=mine).to_pylist()
    if not found:
        return {}
    lately = (pc.field("at") >= since) & pc.starts_with(pc.field("event"), "wave ")
    events = table.open_table(RUNS, root).to_pyarrow_dataset().to_table(columns=["run_id", "event"], filter=lately)
    published = {f"{row['run_id']}.{row['event'].removeprefix('wave ')}" for row in events.to_pylist()}
    by_key: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in sorted(found, key=lambda row: row["checked_at"], reverse=True):
        if row["wave_id"] in published and row["rows"]:
            by_key.setdefault((row["about"], row["check"]), []).append(row)
    return {key: _told(rows[:_WAVES]) for key, rows in by_key.items()}


def _told(rows: list[dict[str, Any]]) -> Past:
    total = sum(row["unexpected"] for row in rows) / sum(row["rows"] for row in rows)
    stopped = [row for row in rows if not row["success"] and row["severity"] == "stop"]  # and published all the same
    return Past(total, tuple(row["unexpected"] / row["rows"] for row in stopped))


def _result(maker: str, rate: Rate | Mean, seen: Seen, past: Past | None) -> dict[str, Any]:
    severity, expected = _mean(rate, seen, past) if isinstance(rate, Mean) else _share(rate, seen, past)
    before = "" if past is None else f" (before, {past.value:.4g})"
    return {
        "check": rate.name,
        "about": maker,
        "severity": severity or rate.severity,
        "success": severity is None,
        "unexpected": seen.part,
        "rows": seen.whole,
        "expected": f"{rate.message}: expected {expected}{before}, found {seen.value:.4g} ({seen.part:,} / {seen.whole:,}"
        + (f" of {seen.units:,} videos)" if seen.units < seen.whole else ")"),
    }


def _share(rate: Rate, seen: Seen, past: Past | None) -> tuple[Severity | None, str]:
    """What is to be done about a share, None where it is not surely beyond a limit; and the limits."""
    trials = min(seen.units, seen.whole)
    # Whoever released waves beyond a limit has said that such are right.
    accepted = max(past.released, default=0.0) if past else 0.0
    most = max(rate.most, accepted)
    usual = max(rate.floor, past.value + rate.rise, accepted) if past else 1.0
    least = past.value - rate.rise if past and rate.both_ways else 0.0
    least = min([least, *past.released]) if past else 0.0
    told = f"at most {min(most, usual):.4g}" if least <= 0 else f"{least:.4g} to {min(most, usual):.4g}"
    high = round(seen.value * trials)
    if surely_more(high, trials, most):
        return rate.severity, told
    few = least > 0 and surely_more(trials - high, trials, 1 - least)
    return (rate.of_past if few or surely_more(high, trials, usual) else None), told


def _mean(rate: Mean, seen: Seen, past: Past | None) -> tuple[Severity | None, str]:
    if not past or not past.value:
        return None, "anything, as nothing is known of before"
    low, high = min([past.value / rate.factor, *past.released]), max([past.value * rate.factor, *past.released])
    return (None if low <= seen.value <= high else rate.severity), f"{low:.4g} to {high:.4g}"
