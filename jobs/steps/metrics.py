"""Figures of an evaluation or a training on their way into the table metrics."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from jobs.runtime.run import Run
from lake.commit import note_once
from models.evaluation.intervals import Interval
from schemas.metrics import METRICS


def metric_rows(
    run: Run,
    figures: Mapping[str, float | Interval],
    method: str,
    *,
    version: str | None = None,
    minus: str = "",
    step: int = 0,
    part: str = "all",
    videos: int | None = None,
    split: str | None = None,
) -> list[dict[str, Any]]:
    """Figures as rows of the table metrics, but for those that are not defined; part: its column `slice`."""
    known = {
        "run_id": run.record.run_id,
        "method": method,
        "minus": minus,
        "version": version,
        "split": split,
        "step": step,
        "slice": part,
        "videos": videos,
        "at": datetime.now(UTC),
    }
    rows = []
    for name, figure in figures.items():
        ends = figure.json() if isinstance(figure, Interval) else {"value": float(figure), "low": None, "high": None}
        if ends["value"] is not None and ends["value"] == ends["value"]:  # NaN is not
            rows.append(known | {"name": name} | ends)
    return rows


def write_once(run: Run, rows: list[dict[str, Any]], of: str | None = None) -> None:
    """Put all figures of something into the lake: a second time is without effect. of: what they are of; None: the run."""
    note_once(METRICS, run.lake.root, rows, f"{of or run.record.run_id}/{METRICS.name}", run.record.note_id)
