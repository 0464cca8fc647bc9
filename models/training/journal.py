"""Figures of a training as it goes: a file that outlives a killed run, and lines for people with the time that is left."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

_LINE_S = 10.0
_LAST = "seconds"  # of the figures that trainer.train reports of a step


class Journal:
    """`on_metric` of a training: appends every figure to a file, and now and then says some of them on standard error.

    said: the names of these; `seconds` ends a step. quiet: write, but say nothing. prefix: of names in the file, which other
    phases of the same training may share.
    """

    def __init__(
        self, path: Path, name: str, steps: int, said: Sequence[str], quiet: bool = False, prefix: str = ""
    ) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        torn = path.exists() and not path.read_bytes().endswith(b"\n")
        self._file = path.open("a")
        if torn:  # a killed run was writing: what it began is no part of what comes now
            self._file.write("\n")
        self._name, self._steps, self._said, self._quiet, self._prefix = name, steps, said, quiet, prefix
        self._now: dict[str, float] = {}
        self._first: int | None = None
        self._began = self._last = time.monotonic()

    def __call__(self, name: str, step: int, value: float) -> None:
        self._file.write(json.dumps([self._prefix + name, step, value]) + "\n")
        self._now[name] = value
        if name != _LAST:
            return
        self._file.flush()
        if self._first is None:
            self._first, self._began = step, time.monotonic()  # the first step also starts what is needed
        now = time.monotonic()
        if not self._quiet and (now - self._last >= _LINE_S or step + 1 == self._steps):
            self._last = now
            print(f"[{self._name}] {self._line(step, now)}", file=sys.stderr, flush=True)

    def _line(self, step: int, now: float) -> str:
        figures = ", ".join(f"{name} {self._now[name]:.3g}" for name in self._said if name in self._now)
        done = step - (self._first or 0)
        left = f", about {_clock((now - self._began) / done * (self._steps - step - 1))} left" if done else ""
        return f"step {step + 1} of {self._steps}: {figures}{left}"


def read(path: Path) -> list[tuple[str, int, float]]:
    """(name, step, value) of every figure, by step; of a step that was done twice the last. A line cut short is left out."""
    found: dict[tuple[int, str], float] = {}
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            name, step, value = json.loads(line)
        except ValueError:
            continue
        found[step, name] = value
    return [(name, step, value) for (step, name), value in sorted(found.items())]


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02} min"
