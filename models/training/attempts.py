"""Rounds whose drawing ends the process each time: an engine that dies, or stands still, over one of their videos.

What a round draws follows from seeds, so the next run would die of the same. After a third time the videos of that round
are left out of the training; which of them it was nobody knows, and what they would teach is little.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_TIMES = 3  # once or twice may be the machine, or whoever stopped the run


class Attempts:
    """path: the training's own file, by which the next run knows; None: this process alone does."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._held: dict[str, Any] = {"step": None, "times": 0, "videos": [], "left_out": []}
        if path and path.exists():
            self._held = json.loads(path.read_text())

    def begin(self, step: int) -> list[str]:
        """The drawing of a step begins. Returns the ids of all videos that are left out."""
        held = self._held
        if held["step"] != step:
            self._keep(step=step, times=0, videos=[])
        elif held["times"] >= _TIMES and held["videos"]:
            print(
                f"left out of the training, as drawing step {step} ended the process {held['times']} times: "
                f"{', '.join(held['videos'])}",
                file=sys.stderr,
                flush=True,
            )
            self._keep(times=0, videos=[], left_out=[*held["left_out"], *held["videos"]])
        return self._held["left_out"]

    def ask(self, videos: Sequence[str]) -> None:
        """The engine is asked about these videos now."""
        self._keep(times=self._held["times"] + 1, videos=list(videos))

    def end(self) -> None:
        """It is done."""
        self._keep(step=None, times=0, videos=[])

    def _keep(self, **changed: Any) -> None:
        self._held |= changed
        if self._path:
            aside = self._path.with_suffix(".part")
            aside.write_text(json.dumps(self._held))
            aside.replace(self._path)
