"""A wave as a whole, held against the past of who made it (see schemas/rates.py).

A share is too large where it surely is: by the lower end of its interval (Clopper and Pearson 1934, 99 %), with videos for
the number of independent trials, as the rollouts of one video say much the same. Waves of few videos are judged together.
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
_WAVES, _DAYS = 20, timedelta(days=90)  # of the past, of which the newest count, and the first ones
_VANISHED = 10  # a share that may not fall either is gone at so small a part of what it was


@dataclass(frozen=True)
class Seen:
    """part of whole, in rows; units: of what is independent among them."""

    part: int
    whole: int
    units: int

    @property
    def value(self) -> float:
        return self.part / self.whole if self.whole else 0.0

    @property
    def trials(self) -> int:
        return min(self.units, self.whole)

    def __add__(self, other: Seen) -> Seen:
        return Seen(self.part + other.part, self.whole + other.whole, self.units + other.units)


NOTHING = Seen(0, 0, 0)


@dataclass(frozen=True)
class Past:
    """What the published waves of one maker came to. newest: the last ones together; released: those among them that a gate
    had stopped. first: those with which it began, or began again when such a one was released; None as long as that is among
    the newest. few: the last ones together, as far as they were too small to be judged by themselves."""

    newest: float | None = None
    first: float | None = None
    released: tuple[float, ...] = ()
    few: Seen = NOTHING


def surely_more(part: int, whole: int, allowed: float) -> bool:
    """Whether more than this share of trials like these comes out so, with 99 % confidence: one of three says little, a
    tenth of five thousand is no chance."""
    if part <= allowed * whole:
        return False
    from scipy.stats import beta  # half a second to import, for waves that have broken rows

    return bool(beta.ppf(_DOUBT, part, whole - part + 1) > allowed)


def results(root: str, wanted: Table, labels: LabelSet, staged: DataFrame, min_rows: int) -> list[dict[str, Any]]:
    """A row of the table quality for each rate of each maker in a wave of staged rows.

    min_rows: videos that it takes to judge; a wave of fewer is judged together with those right before it.
    """
    asked = wanted.rates(labels)
    if not asked.of_rows:
        return []
    seen = _seen(staged, asked)
    past = _past(root, wanted, {maker for maker, _ in seen}, min_rows)
    return [
        _result(maker, rate, of, past.get((maker, rate.name), Past()), min_rows)
        for (maker, rate), of in seen.items()
        if of.whole
    ]


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


def _past(root: str, wanted: Table, makers: set[str], min_rows: int) -> dict[tuple[str, str], Past]:
    """What the published waves of these makers came to, by (maker, rate)."""
    since = datetime.now(UTC) - _DAYS
    mine = (
        (pc.field("table") == wanted.name) & pc.field("about").isin(sorted(makers)) & (pc.field("checked_at") >= since)
    )
    columns = ["wave_id", "check", "about", "severity", "success", "unexpected", "rows", "units", "checked_at"]
    found = table.open_table(QUALITY, root).to_pyarrow_dataset().to_table(columns=columns, filter=mine).to_pylist()
    if not found:
        return {}
    lately = (pc.field("at") >= since) & pc.starts_with(pc.field("event"), "wave ")
    events = table.open_table(RUNS, root).to_pyarrow_dataset().to_table(columns=["run_id", "event"], filter=lately)
    published = {f"{row['run_id']}.{row['event'].removeprefix('wave ')}" for row in events.to_pylist()}
    by_key: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in sorted(found, key=lambda row: row["checked_at"], reverse=True):
        if row["wave_id"] in published:
            by_key.setdefault((row["about"], row["check"]), []).append(row)
    return {key: _told(rows, min_rows) for key, rows in by_key.items()}


def _told(rows: list[dict[str, Any]], min_rows: int) -> Past:
    """rows: of one rate, the newest first."""
    seen = [Seen(row["unexpected"], row["rows"], row["units"]) for row in rows]
    stopped = [place for place, row in enumerate(rows) if not row["success"] and row["severity"] == "stop"]
    lately = [place for place in stopped if place < _WAVES]
    since = seen[: stopped[0] + 1] if stopped else seen
    return Past(
        newest=_enough(seen, min_rows),
        first=None if lately else _enough(since[::-1], min_rows),
        released=tuple(_judged(seen[place], _few(seen[place + 1 :], min_rows), min_rows).value for place in lately),
        few=_few(seen, min_rows),
    )


def _enough(seen: list[Seen], min_rows: int) -> float | None:
    """The value of the first _WAVES waves, and of as many more as it takes to say anything; None where they do not."""
    total = NOTHING
    for count, one in enumerate(seen):
        if count >= _WAVES and total.trials >= min_rows:
            break
        total += one
    return total.value if total.trials >= min_rows else None


def _judged(own: Seen, few: Seen, min_rows: int) -> Seen:
    """What a wave is judged by: its own rows, or where those say too little those of the small ones before it, too."""
    return own if own.trials >= min_rows else own + few


def _few(seen: list[Seen], min_rows: int) -> Seen:
    """The first waves that are too small to be judged by themselves, together, as far as it takes."""
    total = NOTHING
    for one in seen:
        if one.trials >= min_rows or total.trials >= min_rows:
            break
        total += one
    return total


def _result(maker: str, rate: Rate | Mean, own: Seen, past: Past, min_rows: int) -> dict[str, Any]:
    judged = _judged(own, past.few, min_rows)
    severity, expected = None, f"nothing yet of fewer than {min_rows} videos"
    if judged.trials >= min_rows:
        severity, expected = (
            _mean(rate, own, judged, past) if isinstance(rate, Mean) else _share(rate, own, judged, past)
        )
    before = "" if past.newest is None else f" (before, {past.newest:.4g})"
    of_videos = f" of {judged.units:,} videos" if judged.units < judged.whole else ""
    together = ", with the small waves before it" if judged is not own else ""
    return {
        "check": rate.name,
        "about": maker,
        "severity": severity or rate.severity,
        "success": severity is None,
        "unexpected": own.part,
        "rows": own.whole,
        "units": own.units,
        "expected": f"{rate.message}: expected {expected}{before}, found {judged.value:.4g} "
        f"({judged.part:,} / {judged.whole:,}{of_videos}{together})",
    }


def _share(rate: Rate, own: Seen, judged: Seen, past: Past) -> tuple[Severity | None, str]:
    """What is to be done about a share, None where it is not surely beyond a limit; and the limits.

    A small wave that is within them by itself does not answer for those before it.
    """
    known = [value for value in (past.newest, past.first) if value is not None]
    # Whoever released waves beyond a limit has said that such are right.
    accepted = max(past.released, default=0.0)
    most = max(rate.most, accepted)
    usual = max(rate.floor, min(known) + rate.rise, accepted) if known else 1.0
    least = 0.0
    if known and rate.both_ways:
        least = min(max(max(known) - rate.rise, max(known) / _VANISHED), *known, *past.released)
    trials, part = judged.trials, round(judged.value * judged.trials)

    def above(limit: float) -> bool:
        return own.value > limit and surely_more(part, trials, limit)

    told = f"at most {min(most, usual):.4g}" if least <= 0 else f"{least:.4g} to {min(most, usual):.4g}"
    if above(most):
        return rate.severity, told
    below = own.value < least and surely_more(trials - part, trials, 1 - least)
    return (rate.of_past if below or above(usual) else None), told


def _mean(rate: Mean, own: Seen, judged: Seen, past: Past) -> tuple[Severity | None, str]:
    known = [value for value in (past.newest, past.first) if value]
    if not known:
        return None, "anything, as nothing is known of before"
    low = min(max(known) / rate.factor, *known, *past.released)
    high = max(min(known) * rate.factor, *known, *past.released)
    usual = any(low <= seen.value <= high for seen in (own, judged))
    return (None if usual else rate.severity), f"{low:.4g} to {high:.4g}"
