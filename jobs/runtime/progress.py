"""What people see while a stage runs: videos done of all, videos/s, tokens/s, time left.

One bar that redraws on a terminal, a line now and then elsewhere.
"""

from __future__ import annotations

import sys
import threading
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from jobs.runtime.record import Record
from udfs.progress import engines, total

_LOOK_S = 1.0
_LINE_S = 10.0  # between two lines where there is no terminal to redraw
_SILENT = 3  # so many times longer where no video was done since: an engine that starts takes a minute


class Watch:
    """Follows a folder of task progress files while a Spark stage runs; a context manager around the stage.

    `before` and `all_videos` place this stage in the whole run: videos done earlier, and all of them. starting: what is
    waited for until the first video is done.
    """

    def __init__(self, record: Record, folder: str, before: int, all_videos: int, starting: str) -> None:
        self._job, self._quiet, self._starting = record.job, record.quiet, starting
        self._folder, self._before, self._all = folder, before, all_videos
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="progress")
        self._entered = self._began = self._moved = time.monotonic()
        self._sums = {"videos": 0, "tokens": 0}

    def __enter__(self) -> Watch:
        if not self._quiet:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if not self._quiet:
            self._thread.join()

    def _run(self) -> None:
        (self._redraw if sys.stderr.isatty() else self._lines)()

    def _redraw(self) -> None:
        columns = (
            TextColumn("[{task.description}]"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rates]}"),
        )
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(self._job, total=self._all, rates="")
            while not self._stop.wait(_LOOK_S):
                done, rates = self._look()
                bar.update(task, completed=done, rates=rates)

    def _lines(self) -> None:
        said, looks = -1, 0
        while not self._stop.wait(_LINE_S):
            done, rates = self._look()
            looks += 1
            if done != said or looks == _SILENT:
                print(f"[{self._job}] {done:,}/{self._all:,} videos  {rates}", file=sys.stderr, flush=True)
                said, looks = done, 0

    def _look(self) -> tuple[int, str]:
        sums, now = total(self._folder), time.monotonic()
        if not sums["videos"]:  # that says nothing of the time left
            self._began = now
            waited_for = "engines have started, no video is done yet" if engines(self._folder) else self._starting
            return self._before, f"{waited_for}, {clock(now - self._entered)}"
        if sums["videos"] != self._sums["videos"]:
            self._sums, self._moved = sums, now
        if now - self._moved > _SILENT * _LINE_S:  # the rest waits for something; a rate would promise too much
            return self._before + sums["videos"], f"none done for {clock(now - self._moved)}"
        left = self._all - self._before - sums["videos"]
        seconds = self._moved - self._began  # the pause since then tells nothing of the rate
        return self._before + sums["videos"], describe(sums["videos"], sums["tokens"], left, seconds)


def describe(videos: int, tokens: int, videos_left: int, seconds: float) -> str:
    """Rates so far and the time that the rest would take at them."""
    rate = videos / max(seconds, 1e-3)
    parts = [f"{rate:.1f} videos/s"] + ([f"{tokens / max(seconds, 1e-3):,.0f} tokens/s"] if tokens else [])
    return "  ".join([*parts, f"{clock(videos_left / rate)} left"])


def clock(seconds: float) -> str:
    """Seconds as h:mm:ss or m:ss."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
