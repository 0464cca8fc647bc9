"""Methods side by side on the same labelled videos: their figures with intervals, for people, for programs, for the lake."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isnan
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table as Grid

from jobs.runtime.run import Run
from jobs.steps.metrics import metric_rows
from models.evaluation.figures import Predictions
from models.evaluation.intervals import Interval, Report, report
from models.evaluation.methods import Case, Methods, Statements

COLUMNS = ("accuracy", "macro_f1", "nll", "ece", "ece_debiased", "brier", "aurc", "auroc", "answered")
PAIRED = ("accuracy", "macro_f1", "nll")
_BARE = ("accuracy", "answered")  # what is told of a row that is no method to decide by
_SLICED = 2  # methods whose figures are told by slice: the first ones
_SLICE_DRAWS = 400
_FEW = 10  # clusters
_WIDE = 0.05  # half an interval of accuracy from which on it is said aloud


@dataclass
class Comparison:
    """Rows of a table in the making; the first one is held against all others that decide.

    versions: method -> the recipe, or the scorer, that it is; bare: rows that tell something of the model and are no method
    to decide by.
    """

    methods: Methods
    split: str
    cases: list[Case]
    rows: dict[str, Predictions] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    bare: set[str] = field(default_factory=set)

    def add(
        self, name: str, statements: Statements, version: str, temperature: float = 1.0, bare: bool = False
    ) -> None:
        self.rows[name] = self.methods.predictions(statements, self.cases, temperature)
        self.versions[name] = version
        self.bare |= {name} if bare else set()

    @property
    def clusters(self) -> int:
        """How many groups of videos there are that are evidence on their own."""
        return len({case.cluster for case in self.cases})

    def result(self) -> Result:
        return Result(self, report(self.rows), self._slices())

    def _slices(self) -> dict[str, tuple[int, Report]]:
        """facet=value -> how many videos, and the figures of the first methods on them."""
        found = {}
        for name, value in sorted({pair for case in self.cases for pair in case.slices}):
            chosen = np.array([(name, value) in case.slices for case in self.cases])
            first = {method: rows.of(chosen[rows.case]) for method, rows in list(self.rows.items())[:_SLICED]}
            found[f"{name}={value}"] = int(chosen.sum()), report(first, draws=_SLICE_DRAWS)
        return found


@dataclass(frozen=True)
class Result:
    """What came of a comparison. whole: on all videos; slices: facet=value -> how many, and the figures of the first methods
    on them."""

    comparison: Comparison
    whole: Report
    slices: dict[str, tuple[int, Report]]

    @property
    def first(self) -> str:
        return next(iter(self.comparison.rows))

    def figures(self, method: str) -> Mapping[str, Interval]:
        """The figures that a method has."""
        names = self.whole.figures[method]
        return {name: names[name] for name in _BARE} if method in self.comparison.bare else names

    def differences(self) -> dict[str, dict[str, Interval]]:
        """The first method minus each other one."""
        return {
            method: {name: names[name] for name in PAIRED}
            for method, names in self.whole.differences.items()
            if method not in self.comparison.bare
        }

    def metrics(self, run: Run) -> list[dict[str, Any]]:
        """Rows of the table metrics."""
        versions = self.comparison.versions
        known: dict[str, Any] = {"split": self.comparison.split, "videos": len(self.comparison.cases)}
        rows: list[dict[str, Any]] = []
        for method, version in versions.items():
            rows += metric_rows(run, self.figures(method), method, version=version, **known)
        for method, names in self.differences().items():
            version = versions[self.first]
            rows += metric_rows(run, names, self.first, version=version, minus=method, **known)
        for part, (count, found) in self.slices.items():
            for method, names in found.figures.items():
                of_part = known | {"part": part, "videos": count}
                rows += metric_rows(run, names, method, version=versions[method], **of_part)
        return rows

    def document(self) -> dict[str, Any]:
        """The same for programs."""

        def plain(names: Mapping[str, Interval]) -> dict[str, Any]:
            return {name: interval.json() for name, interval in names.items()}

        return {
            "split": self.comparison.split,
            "methods": {method: plain(self.figures(method)) for method in self.comparison.rows},
            "differences": {method: plain(names) for method, names in self.differences().items()},
            "chance_ece": {method: {"mean": mean, "p95": p95} for method, (mean, p95) in self.whole.chance.items()},
            "slices": {
                part: {"videos": count, "methods": {method: plain(names) for method, names in found.figures.items()}}
                for part, (count, found) in self.slices.items()
            },
        }

    def show(self, run: Run) -> None:
        """Tables for people, on standard error: standard output is for programs."""
        videos, clusters = len(self.comparison.cases), self.comparison.clusters
        console = Console(stderr=True, width=150)
        grid = _grid(
            f"{videos} videos of {clusters} sources" if clusters < videos else f"{videos} videos",
            ["method", *COLUMNS],
            caption="between brackets: 95 % intervals by the bootstrap; nll, ece, brier, aurc: smaller is better",
        )
        for method in self.comparison.rows:
            names = self.figures(method)
            grid.add_row(method, *(escape(_cell(name, names[name])) if name in names else "" for name in COLUMNS))
        console.print(grid)
        grid = _grid(f"{self.first} minus each other one, paired", ["method", *PAIRED])
        for method, names in self.differences().items():
            grid.add_row(method, *[escape(str(names[name])) for name in PAIRED])
        console.print(grid)
        if self.slices:
            methods = list(self.comparison.rows)[:_SLICED]
            grid = _grid("accuracy by slice", ["slice", "videos", *methods])
            for part, (count, found) in self.slices.items():
                cells = [escape(str(found.figures[method]["accuracy"])) for method in methods]
                grid.add_row(part, str(count), *cells)
            console.print(grid)
        self._say_what_is_small(run)

    def _say_what_is_small(self, run: Run) -> None:
        videos, clusters, names = len(self.comparison.cases), self.comparison.clusters, self.figures(self.first)
        half = (names["accuracy"].high - names["accuracy"].low) / 2
        if half > _WIDE:
            run.record.say(f"{videos} videos: the accuracy of {self.first} is known to +-{half:.2f} only")
        if clusters < _FEW:
            run.record.say(
                f"the videos are of {clusters} sources only: intervals of so few tell little, most are too narrow"
            )
        _, chance = self.whole.chance[self.first]
        if self.first not in self.comparison.bare and names["ece"].value <= chance:
            run.record.say(
                f"ece of {self.first}: {names['ece'].value:.3f}; with so few videos chance alone shows up to {chance:.3f}"
            )


def _cell(name: str, found: Interval) -> str:
    return str(found) if name in PAIRED else "" if isnan(found.value) else f"{found.value:.3f}"


def _grid(title: str, names: list[str], caption: str | None = None) -> Grid:
    grid = Grid(title=title, caption=caption, box=None)
    for number, name in enumerate(names):
        grid.add_column(name.replace("ece_debiased", "debiased"), justify="left" if number == 0 else "right")
    return grid
