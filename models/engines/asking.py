"""What rollouts and reviews of many videos on one engine have in common: decode each once, ask what is missing, give a row
for everything that was asked, whatever happens.

Knows neither Spark nor Arrow; `udfs/rollout.py` puts it into a worker.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from operator import attrgetter
from typing import Any

from models.engines.promise import Engine, EngineSpec
from models.video.clip import Clip
from models.video.container import PASSING, Limits, MediaError
from models.video.frames import FrameSpec
from models.video.pool import DecodePool, DecodeSettings

COLUMNS: Sequence[str] = (
    "video_id",
    "rollout_index",
    "attempt",
    "seed",
    "status",  # ok | parse_error | too_long | generation_error | decode_error
    "text",
    "observation",
    "think",
    "answer",
    "label",
    "labels",
    "well_formed",
    "logprob_sum",
    "label_logprobs",
    "prompt_tokens",
    "tokens",
    "finish_reason",
    "error",
    "engine",
    "engine_version",
)


def seed_of(seed_base: int, video_id: str, rollout_index: int) -> int:
    """The seed of one rollout: the same for ever, consecutive over a video's rollouts.

    Videos and bases are hashed together, into 48 bits: under another base a video does not draw what another video drew.
    """
    return int(hashlib.sha256(f"{seed_base}:{video_id}".encode()).hexdigest()[:12], 16) + rollout_index


@dataclass(frozen=True)
class Task:
    """The rollouts that one video lacks; said: of reviews, by index what is reviewed, see `review.said`."""

    video_id: str
    uri: str
    missing: tuple[int, ...]
    attempt: int
    text: str | None = None  # beside its pictures
    said: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a worker needs to know, whatever it asks; picklable, and of plain values but for the callables.

    decode(uri, video_id, frames, limits) gives the clip, in a child process. rows_per_batch: rows of an output batch;
    stall_seconds: silence after which an engine counts as dead. on_progress(videos done, tokens done) is called in the
    worker after each video, with totals of this task, on_end after the last; on_engine_start when the worker had to
    construct an engine.
    """

    engine: EngineSpec
    frames: FrameSpec
    decode: Callable[[str, str, FrameSpec, Limits], Clip]
    seed_base: int = 0
    limits: Limits = field(default_factory=Limits)
    decoding: DecodeSettings = field(default_factory=DecodeSettings)
    rows_per_batch: int = 256
    stall_seconds: float = 900.0
    on_progress: Callable[[int, int], None] | None = None
    on_end: Callable[[], None] | None = None
    on_engine_start: Callable[[], None] | None = None

    def __post_init__(self) -> None:
        if self.rows_per_batch < 1:
            raise ValueError(f"rows_per_batch: expected at least 1, found {self.rows_per_batch}")


class Asking(ABC):
    """Runs a plan on an engine. `rows(tasks)` yields one row (a dict of COLUMNS) per missing rollout, always."""

    def __init__(self, plan: Asked, engine: Engine, on_decoded: Callable[[], None] = lambda: None) -> None:
        self._asked, self._engine, self._on_decoded = plan, engine, on_decoded
        self._tasks: dict[
            str, tuple[Task, float, str | None]
        ] = {}  # by key; with seconds of the clip, what was lost of it
        self._refused: deque[tuple[Task, MediaError]] = deque()
        self._videos = self._tokens = 0

    @abstractmethod
    def _answers(self, shown: Iterator[tuple[str, Task, Clip]]) -> Iterator[Any]:
        """The engine's answers about each video, in the order they finish, with the `key` that came with it."""

    @abstractmethod
    def _rows_of(self, task: Task, answer: Any, seconds: float) -> Iterator[dict]:
        """An answer as rows."""

    def rows(self, tasks: Iterable[Task]) -> Iterator[dict]:
        """Rows in the order they finish. Raises EngineDead, and RuntimeError if a row was lost or made twice."""
        plan = self._asked
        open_rows: dict[str, int] = {}
        asked = done = 0

        def noted(tasks: Iterable[Task]) -> Iterator[Task]:
            nonlocal asked
            for task in tasks:
                asked += len(set(task.missing))
                if task.missing:
                    yield task

        work = partial(_decode, plan.decode, plan.frames, plan.limits)
        with DecodePool(work, plan.decoding) as pool:
            decoded = pool.map(noted(tasks), argument=attrgetter("uri", "video_id"))
            for answer in self._answers(self._shown(decoded)):
                task, seconds, lost = self._tasks[answer.key]
                for row in self._rows_of(task, answer, seconds):
                    row["error"] = row["error"] or lost
                    done += 1
                    open_rows[answer.key] = open_rows.get(answer.key, len(set(task.missing))) - 1
                    self._tokens += row["tokens"]
                    yield row
                if open_rows[answer.key] == 0:
                    del open_rows[answer.key], self._tasks[answer.key]
                    self._progress()
                for row in self._undecoded():
                    done += 1
                    yield row
            for row in self._undecoded():
                done += 1
                yield row
        if plan.on_end:
            plan.on_end()
        if done != asked:
            raise RuntimeError(
                f"{asked} rollouts were asked for and {done} came back: no row may be lost or made twice"
            )

    def _shown(self, decoded: Iterable[tuple[Task, Clip | MediaError]]) -> Iterator[tuple[str, Task, Clip]]:
        """Runs in the engine's feeding thread; what cannot be decoded is left in `_refused` for the main one."""
        for number, (task, clip) in enumerate(decoded):
            self._on_decoded()
            if isinstance(clip, MediaError):
                self._refused.append((task, clip))
                continue
            key = f"{number}:{task.video_id}"
            self._tasks[key] = task, clip.duration, _lost(clip)
            yield key, task, clip

    def _undecoded(self) -> Iterator[dict]:
        while self._refused:
            task, error = self._refused.popleft()
            # A later try may have read another name of it, which holds something else by now.
            passing = error.reason in PASSING or (error.reason == "changed" and task.attempt > 0)
            for index in sorted(set(task.missing)):
                status = "generation_error" if passing else "decode_error"
                yield self._blank(task, index) | {"status": status, "error": f"{error.reason}: {error}"}
            self._progress()

    def _blank(self, task: Task, index: int) -> dict:
        """A row without an answer: every column is there, what is unknown is None."""
        return dict.fromkeys(COLUMNS) | {
            "video_id": task.video_id,
            "rollout_index": index,
            "attempt": task.attempt,
            "seed": seed_of(self._asked.seed_base, task.video_id, index),
            "well_formed": False,
            "prompt_tokens": 0,
            "tokens": 0,
            "engine": self._engine.name,
            "engine_version": self._engine.version,
        }

    def _progress(self) -> None:
        self._videos += 1
        if self._asked.on_progress:
            self._asked.on_progress(self._videos, self._tokens)


def _lost(clip: Clip) -> str | None:
    return (
        f"damaged: {clip.lost} of {len(clip.times)} pictures stand for frames that did not decode"
        if clip.lost
        else None
    )


def _decode(decode: Callable, frames: FrameSpec, limits: Limits, what: tuple[str, str]) -> Clip:
    uri, video_id = what
    return decode(uri, video_id, frames, limits)
