"""A wave as a whole, held against the past of who made it (see schemas/rates.py).

A share is too large where it surely is: by the lower end of its interval (Clopper and Pearson 1934, 99 %), with videos for
the number of independent trials, as the rollouts of one video say much the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow.compute as pc
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from lake import table
from lake.staging import Staged
from schemas.label_set import LabelSet
from schemas.quality import QUALITY
from schemas.rates import Mean, Rate
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


def surely_more(part: int, whole: int, allowed: float) -> bool:
    """Whether more than this share of trials like these comes out so, with 99 % confidence: one of three says little, a
    tenth of five thousand is no chance."""
    if part <= allowed * whole:
        return False
    from scipy.stats import beta  # half a second to import, for waves that have broken rows

    return bool(beta.ppf(_DOUBT, part, whole - part + 1) > allowed)


def results(
    root: str, wanted: Table, labels: LabelSet, staged: DataFrame | None, output: Staged, min_rows: int
) -> list[dict[str, Any]]:
    """A row of the table quality for each rate of each maker in a wave that has as many videos as min_rows, or more.

    staged: the wave's rows; None where it has none.
    """
    asked = wanted.rates(labels)
    seen: dict[tuple[str, Rate | Mean], Seen] = {}
    if asked.of_rows and staged is not None:
        seen |= _of_rows(staged, asked.made_by, asked.of_rows)
    if asked.refused:
        seen["", asked.refused] = Seen(sum(output.reasons.values()), output.rows, output.rows)
    enough = {key: of for key, of in seen.items() if min(of.units, of.whole) >= min_rows}
    past = _past(root, wanted, {rate.name for _, rate in enough}) if enough else {}
    return [_result(maker, rate, of, past.get((maker, rate.name))) for (maker, rate), of in enough.items()]


def _of_rows(staged: DataFrame, made_by: str, rates: Iterable[Rate | Mean]) -> dict[tuple[str, Rate | Mean], Seen]:
    parts = [F.expr(rate.part).alias(f"{rate.name}/part") for rate in rates]
    wholes = [F.expr(rate.whole).alias(f"{rate.name}/whole") for rate in rates]
    videos = F.count_distinct("video_id").alias("videos")
    made = staged.withColumn("_maker", F.expr(made_by)).where("_maker IS NOT NULL")
    rows = made.groupBy("_maker").agg(videos, *parts, *wholes).collect()
    return {
        (row["_maker"], rate): Seen(
            int(row[f"{rate.name}/part"] or 0), int(row[f"{rate.name}/whole"] or 0), int(row["videos"])
        )
        for row in rows
        for rate in rates
    }


def _past(root: str, wanted: Table, names: set[str]) -> dict[tuple[str, str], Seen]:
    """What the newest published waves of each maker came to, together, by (maker, rate)."""
    since = datetime.now(UTC) - _DAYS
    mine = (
        (pc.field("table") == wanted.name) & pc.field("check").isin(sorted(names)) & (pc.field("checked_at") >= since)
    )
    columns = ["wave_id", "check", "about", "unexpected", "rows", "checked_at"]
    found = table.open_table(QUALITY, root).to_pyarrow_dataset().to_table(columns=columns, filter=mine).to_pylist()
    if not found:
        return {}
    lately = (pc.field("at") >= since) & pc.starts_with(pc.field("event"), "wave ")
    events = table.open_table(RUNS, root).to_pyarrow_dataset().to_table(columns=["run_id", "event"], filter=lately)
    published = {f"{row['run_id']}.{row['event'].removeprefix('wave ')}" for row in events.to_pylist()}
    past: dict[tuple[str, str], list[Seen]] = {}
    for row in sorted(found, key=lambda row: row["checked_at"], reverse=True):
        if row["wave_id"] in published:
            past.setdefault((row["about"], row["check"]), []).append(Seen(row["unexpected"], row["rows"], 0))
    return {
        key: Seen(sum(of.part for of in seen[:_WAVES]), sum(of.whole for of in seen[:_WAVES]), 0)
        for key, seen in past.items()
    }


def _result(maker: str, rate: Rate | Mean, seen: Seen, past: Seen | None) -> dict[str, Any]:
    holds, expected = _mean(rate, seen, past) if isinstance(rate, Mean) else _share(rate, seen, past)
    return {
        "check": rate.name,
        "about": maker,
        "severity": rate.severity,
        "success": holds,
        "unexpected": seen.part,
        "rows": seen.whole,
        "expected": f"{rate.message}: {expected}, found {seen.value:.3g}",
    }


def _share(rate: Rate, seen: Seen, past: Seen | None) -> tuple[bool, str]:
    """Whether the share is not surely beyond its limits, and these."""
    trials = min(seen.units, seen.whole)
    most, least = rate.most, 0.0
    if past and past.whole:
        grown = max(rate.floor, past.value + rate.rise)
        # Whoever released waves beyond the limit has said that such are right.
        most = grown if past.value > rate.most else min(rate.most, grown)
        least = past.value - rate.rise if rate.both_ways else 0.0
    few = surely_more(round((1 - seen.value) * trials), trials, 1 - least) if least > 0 else False
    told = f"at most {most:.3g}" if least <= 0 else f"{least:.3g} to {most:.3g}"
    before = f" (before, {past.value:.3g})" if past and past.whole else ""
    return not few and not surely_more(round(seen.value * trials), trials, most), f"expected {told}{before}"


def _mean(rate: Mean, seen: Seen, past: Seen | None) -> tuple[bool, str]:
    if not past or not past.value:
        return True, "nothing known of before"
    low, high = past.value / rate.factor, past.value * rate.factor
    return low <= seen.value <= high, f"expected {low:.3g} to {high:.3g} (before, {past.value:.3g})"
