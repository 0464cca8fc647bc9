"""demo: one night, end to end, on an embedded lake in a local folder. `make demo` runs it.

    deepintuit demo [--folder build/demo]

History arrives with labels -> rollouts -> calibrate -> promote; then tonight's uploads arrive -> nightly; then their labels
arrive -> evaluate. Every step is the job of that name, run with the settings of conf/handwriting.yaml. Leaves summary.json.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from pyspark.sql import functions as F
from rich.console import Console
from rich.table import Table as Grid

from conf.sections import CONF as SETTINGS
from conf.sections import Lake, Settings
from jobs.runtime import cli
from jobs.runtime.run import Run
from schemas.quarantine import QUARANTINE
from schemas.runs import RUNS
from schemas.traces import TRACES

CONF = str(SETTINGS / "handwriting.yaml")
IS_A_RUN = False  # its jobs are runs of their own
TAKES_BUDGET = False
FIGURES = ("accuracy", "macro_f1", "nll", "ece", "brier")


class Night:
    """Runs jobs one after another on one lake and keeps what each of them counted and how long it took."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.seconds: dict[str, float] = {}
        self.counts: dict[str, int] = {}

    def job(self, stage: str, name: str, **arguments: Any) -> Run:
        print(f"== {stage}", file=sys.stderr, flush=True)
        began = time.monotonic()
        run = cli.perform(name, self._settings, **arguments)
        self.seconds[stage] = round(time.monotonic() - began, 1)
        for key, value in run.record.counts.items():
            self.counts[key] = self.counts.get(key, 0) + value
        return run


def play(folder: Path, settings: Settings, history: int, uploads: int, seed: int) -> dict[str, Any]:
    """The whole night; returns the summary."""
    began = time.monotonic()
    data = folder / "data"
    night = Night(settings)
    print("== demo data: encoding clips", file=sys.stderr, flush=True)
    words = {"history": history, "uploads": uploads, "dev": 0, "align": 0, "refine": 0, "seed": seed}
    cli.module_of("demo-data").run(Run("demo-data", settings), argparse.Namespace(out=data, **words))
    night.seconds["demo data"] = round(time.monotonic() - began, 1)
    night.job("history arrives", "ingest", source=str(data / "history"), labels=str(data / "history/labels.csv"))
    night.job("rollouts", "rollout", split="calibrate")
    night.job("calibrate", "calibrate")
    night.job("promote", "promote")
    tonight = night.job("nightly", "nightly", source=str(data / "uploads"))
    night.job("labels arrive", "ingest", labels=str(data / "uploads-labels.csv"))
    last = night.job("evaluate", "evaluate")
    return summary(night, tonight, last, settings, time.monotonic() - began)


def summary(night: Night, tonight: Run, last: Run, settings: Settings, seconds: float) -> dict[str, Any]:
    """What summary.json holds: counts of the whole night, speed of its model stages, quality on the test split."""
    traces, quarantine = last.lake.read(TRACES), last.lake.read(QUARANTINE)
    by_status = {row["status"]: row["count"] for row in traces.groupBy("status").count().collect()}
    by_reason = {row["reason"]: row["count"] for row in quarantine.groupBy("reason").count().collect()}
    counts = night.counts
    waves = last.lake.read(RUNS).where("event LIKE 'wave %' AND counts['rollouts'] > 0")
    rates = [(F.sum(F.col("counts")[name]) / F.sum("seconds")).alias(name) for name in ("videos", "tokens")]
    speed = waves.agg(*rates).collect()[0]
    return {
        **{name: counts[name] for name in ("files_listed", "unchanged", "duplicates", "videos_new", "collisions")},
        "videos_in_scope": tonight.record.counts["videos_in_scope"],
        "videos_scored": tonight.record.counts["videos_scored"],
        "deferred": tonight.record.counts["videos_deferred"],
        "quarantined": by_reason,
        "traces": sum(by_status.values()),
        "trace_status": by_status,
        "engine": settings.engine.kind,
        "engines": counts["engines"],
        "rollouts_per_video": settings.rollout.n,
        "seconds": {**night.seconds, "total": round(seconds, 1)},
        "videos_per_second": round(speed["videos"], 2),
        "tokens_per_second": round(speed["tokens"], 1),
        "test_videos": last.record.counts["videos"],
        "methods": {
            method: {
                name: {end: value if value is None else round(value, 4) for end, value in of[name].items()}
                for name in FIGURES
                if name in of
            }
            for method, of in last.record.results["methods"].items()
        },
    }


def show(found: dict[str, Any], folder: Path) -> None:
    """The table at the end."""
    console = Console(stderr=True)
    grid = Grid(title="One night", show_header=False, box=None)
    model = sum(found["seconds"][stage] for stage in ("rollouts", "nightly", "evaluate"))
    listed = {"new": found["videos_new"], "duplicate": found["duplicates"], **found["quarantined"]}
    rows = {
        "files": f"{found['files_listed']}: {_counted(listed)}",
        "videos in scope": f"{found['videos_in_scope']}: {found['videos_scored']} scored, {found['deferred']} deferred",
        "traces": f"{found['traces']}: {_counted(found['trace_status'])}",
        "model": f"{found['engine']}, {found['videos_per_second']} videos/s, {found['tokens_per_second']} tokens/s",
        "seconds": f"{found['seconds']['total']:.0f}, of which in jobs that ran the model {model:.0f}",
    }
    for name, text in rows.items():
        grid.add_row(name, text)
    console.print(grid)
    console.print(f"lake: {folder / 'lake'}   figures: {folder / 'summary.json'}", soft_wrap=True)
    console.print(
        f'ask it: deepintuit sql "select * from current_scores" --set lake.root={folder / "lake"}', soft_wrap=True
    )


def _counted(figures: dict[str, Any]) -> str:
    return ", ".join(f"{name} {figure}" for name, figure in figures.items())


def run(run: Run, arguments: argparse.Namespace) -> None:
    folder = arguments.folder
    shutil.rmtree(folder, ignore_errors=True)
    settings = run.settings.model_copy(update={"lake": Lake(root=str(folder / "lake"))})
    found = play(folder, settings, arguments.history, arguments.uploads, arguments.seed)
    (folder / "summary.json").write_text(json.dumps(found, indent=2) + "\n")
    show(found, folder)
    print(json.dumps(found))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--folder", type=Path, default=Path("build/demo"), help="replaced if it is there")
    parser.add_argument("--history", type=int, default=240, metavar="N", help="labelled clips (default 240)")
    parser.add_argument("--uploads", type=int, default=120, metavar="N", help="clips of tonight (default 120)")
    parser.add_argument("--seed", type=int, default=0)


def main() -> int:
    return cli.main(["demo", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
