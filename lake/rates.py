"""A wave as a whole, held against the past of who made it (see schemas/rates.py).

A share is too large where it surely is: by the lower end of its interval (Clopper and Pearson 1934, 99 %), with videos for
the number of independent trials, as the rollouts of one video say much the same. Waves of few videos are judged together.
"""

from __future__ import annotations

import math
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
    """What the published waves of one maker came to. waves: each, the newest first. newest: the last ones together; first:
    those with which it began, or began again when one was released that a gate had stopped; released: what such came to,
    and what they were judged by. The value of either is None where they say too little."""

    waves: tuple[Seen, ...] = ()
    newest: float | None = None
    first: float | None = None
    released: tuple[float, ...] = ()

    @property
    def known(self) -> list[float]:
        return [value for value in (self.newest, self.first) if value is not None]

    def with_the_last(self, own: Seen, enough: int) -> Seen:
        """A wave, where it has too few trials with the last ones before it that have too few as well, until there are
        enough; what larger ones came to is known."""
        total = own
        for wave in self.waves:
            if total.trials >= enough:
                break
            total += wave if wave.trials < enough else NOTHING
        return total


def surely_more(part: int, whole: int, allowed: float) -> bool:
    """Whether more than this share of trials like these comes out so, with 99 % confidence: one of three says little, a
    tenth of five thousand is no chance."""
    if part <= allowed * whole:
        return False
    from scipy.stats import beta  # half a second to import, for waves that have broken rows

    return bool(beta.ppf(_DOUBT, part, whole - part + 1) > allowed)


def results(root: str, wanted: Table, labels: LabelSet, staged: DataFrame, min_rows: int) -> list[dict[str, Any]]:
    """A row of the table quality for each rate of each maker in a wave of staged rows.

    min_rows: videos that it takes to judge; a wave of fewer is judged together with the last ones before it.
    """
    asked = wanted.rates(labels)
    if not asked.of_rows:
        return []
    seen = {key: of for key, of in _seen(staged, asked).items() if of.trials >= key[1].least}
    rows = _rows_before(root, wanted, {maker for maker, _ in seen}) if seen else {}
    return [
        _result(maker, rate, of, _past_of(rows.get((maker, rate.name), []), rate, min_rows), min_rows)
        for (maker, rate), of in seen.items()
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


def _rows_before(root: str, wanted: Table, makers: set[str]) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """What was noted of the published waves of these makers, the newest first, by (maker, rate)."""
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
    return by_key


def _past_of(rows: list[dict[str, Any]], rate: Rate | Mean, min_rows: int) -> Past:
    """rows: of one rate, the newest first."""
    all_waves = [(Seen(row["unexpected"], row["rows"], row["units"]), row) for row in rows]
    counted = [(seen, row) for seen, row in all_waves if seen.trials >= rate.least]
    waves = tuple(seen for seen, _ in counted)
    stopped = [n for n, (_, row) in enumerate(counted) if not row["success"] and row["severity"] == "stop"]
    began = waves[: stopped[0] + 1] if stopped else waves
    released: list[float] = []
    for n in {*stopped[:1], *(n for n in stopped if n < _WAVES)}:
        released += [waves[n].value, Past(waves[n + 1 :]).with_the_last(waves[n], min_rows).value]
    return Past(waves, _together(waves, min_rows), _together(began[::-1], min_rows), tuple(sorted(released)))


def _together(waves: tuple[Seen, ...], min_rows: int) -> float | None:
    """The value of the first _WAVES of them, and of as many more as it takes to say anything; None where they do not."""
    total = NOTHING
    for count, wave in enumerate(waves):
        if count >= _WAVES and total.trials >= min_rows:
            break
        total += wave
    return total.value if total.trials >= min_rows else None


def _result(maker: str, rate: Rate | Mean, own: Seen, past: Past, min_rows: int) -> dict[str, Any]:
    found = _mean(rate, own, past, min_rows) if isinstance(rate, Mean) else _share(rate, own, past, min_rows)
    judged = found.judged
    before = [f"before, {past.newest:.4g}"] if past.newest is not None else []
    before += [f"at first, {past.first:.4g}"] if past.first not in (None, past.newest) else []
    then = f" ({'; '.join(before)})" if before else ""
    of_videos = f" of {judged.units:,} videos" if judged.units < judged.whole else ""
    together = ", with the small waves before it" if judged != own else ""
    return {
        "check": rate.name,
        "about": maker,
        "severity": found.severity or rate.severity,
        "success": found.severity is None,
        "unexpected": own.part,
        "rows": own.whole,
        "units": own.units,
        "expected": f"{rate.message}: expected {found.limits}{then}, found {judged.value:.4g} "
        f"({judged.part:,} / {judged.whole:,}{of_videos}{together})",
    }


@dataclass(frozen=True)
class Verdict:
    """severity: what is to be done, None for nothing; limits: in words; judged: by what."""

    severity: Severity | None
    limits: str
    judged: Seen


def _share(rate: Rate, own: Seen, past: Past, min_rows: int) -> Verdict:
    """A wave that is within a limit by itself does not answer for those before it."""
    accepted = max(past.released, default=0.0)  # whoever released it has said that such waves are right
    most = max(rate.most, accepted)
    usual = max(rate.floor, min(past.known) + rate.rise, accepted) if past.known else 1.0
    less, none = 0.0, 0.0
    if past.known and rate.both_ways:
        less = min(max(past.known) - rate.rise, *past.known, *past.released)
        none = min(max(past.known) / _VANISHED, *past.known, *past.released)
    high, low = min(most, usual), max(less, none)
    limits = f"at most {high:.4g}" if low <= 0 else f"{low:.4g} to {high:.4g}"
    of_each: list[tuple[float, bool, Severity]] = [
        (most, True, rate.severity),
        (none, False, rate.severity),
        (usual, True, rate.of_past),
        (less, False, rate.of_past),
    ]
    for limit, above, severity in of_each:
        if judged := _beyond(limit, above, own, past, min_rows):
            return Verdict(severity, limits, judged)
    return Verdict(None, limits, past.with_the_last(own, min_rows))


def _beyond(limit: float, above: bool, own: Seen, past: Past, min_rows: int) -> Seen | None:
    """What shows that a wave's share is surely above a limit, or below it; None where nothing does."""
    allowed = limit if above else 1 - limit
    if not 0 <= allowed < 1 or (own.value <= limit if above else own.value >= limit):
        return None
    # Fewer say nothing, even if all of them are beyond it.
    enough = max(min_rows, math.ceil(math.log(_DOUBT) / math.log(allowed)) if allowed else 1)
    judged = past.with_the_last(own, enough)
    part = round(judged.value * judged.trials)
    surely = surely_more(part if above else judged.trials - part, judged.trials, allowed)
    return judged if judged.trials >= min_rows and surely else None


def _mean(rate: Mean, own: Seen, past: Past, min_rows: int) -> Verdict:
    judged, known = past.with_the_last(own, min_rows), [value for value in past.known if value]
    if not known:
        return Verdict(None, "anything, as nothing is known of before", judged)
    low = min(max(known) / rate.factor, *known, *past.released)
    high = max(min(known) * rate.factor, *known, *past.released)
    usual = judged.trials < min_rows or any(low <= seen.value <= high for seen in (own, judged))
    return Verdict(None if usual else rate.severity, f"{low:.4g} to {high:.4g}", judged)
