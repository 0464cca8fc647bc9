"""Figures of an evaluation or a training on their way into the table metrics."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from jobs.runtime.run import Run
from lake.commit import note_once
from schemas.metrics import METRICS

METHODS = ("greedy", "single", "majority", "calibrated")
FIGURES = ("accuracy", "macro_f1", "ece", "nll")


def metric_rows(run: Run, figures: Mapping[str, float], part: str = "all", step: int = 0) -> list[dict[str, Any]]:
    """Figures as rows of the table metrics; part: its column `slice`."""
    now = datetime.now(UTC)
    return [
        {"run_id": run.record.run_id, "name": name, "step": step, "slice": part, "value": float(value), "at": now}
        for name, value in figures.items()
    ]


def note(run: Run, rows: list[dict[str, Any]]) -> None:
    """Put a run's figures into the lake, once."""
    note_once(METRICS, run.lake.root, rows, f"{run.record.run_id}/{METRICS.name}", run.record.note_id)
