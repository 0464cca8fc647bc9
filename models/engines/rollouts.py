"""Rollouts of many videos on one engine: decode each once, ask for the missing ones, read what comes back.

Knows neither Spark nor Arrow; `udfs/rollout.py` puts it into a worker.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from operator import attrgetter

from models.engines.promise import Completion, Engine, EngineSpec, Request, Sampling
from models.language import grammar
from models.language.label_scores import Checks, Scored
from models.language.prompts import begun
from models.video.clip import Clip
from models.video.container import PASSING, Limits, MediaError
from models.video.frames import FrameSpec
from models.video.pool import DecodePool, DecodeSettings


def seed_of(seed_base: int, video_id: str, rollout_index: int) -> int:
    """The seed of one rollout: the same for ever, consecutive over a video's rollouts.

    Videos and bases are hashed together, into 48 bits: under another base a video does not draw what another video drew.
    """
    return int(hashlib.sha256(f"{seed_base}:{video_id}".encode()).hexdigest()[:12], 16) + rollout_index


def consecutive(indices: Iterable[int]) -> Iterator[tuple[int, int]]:
    """(first, how many) of each run of consecutive indices, ascending; duplicates count once."""
    run: list[int] = []
    for index in sorted(set(indices)):
        if run and index != run[-1] + 1:
            yield run[0], len(run)
            run = []
        run.append(index)
    if run:
        yield run[0], len(run)


@dataclass(frozen=True)
class Task:
    """The rollouts that one video lacks."""

    video_id: str
    uri: str
    missing: tuple[int, ...]
    attempt: int
    text: str | None = None  # beside its pictures


@dataclass(frozen=True)
class Plan:
    """Everything a worker needs to know; picklable, and of plain values but for the callables.

    user_text: `prompts.user_text` already rendered; scored: the labels, and how their probabilities are
    asked for, which says whether an answer may name several; None for open questions; adapter: one of the engine's, "" for
    none. decode(uri, video_id, frames, limits) gives the clip, in a child process. rows_per_batch: rows of an output batch;
    stall_seconds: silence after which an engine counts as dead. on_progress(videos done, tokens done) is called in the
    worker after each video, with totals of this task, on_end after the last; on_engine_start when the worker had to
    construct an engine.
    """

    engine: EngineSpec
    sampling: Sampling
    frames: FrameSpec
    user_text: str
    grammar: str
    scored: Scored
    decode: Callable[[str, str, FrameSpec, Limits], Clip]
    adapter: str = ""
    seed_base: int = 0
    limits: Limits = field(default_factory=Limits)
    decoding: DecodeSettings = field(default_factory=DecodeSettings)
    rows_per_batch: int = 256
    stall_seconds: float = 900.0
    on_progress: Callable[[int, int], None] | None = None
    on_end: Callable[[], None] | None = None
    on_engine_start: Callable[[], None] | None = None

    def __post_init__(self) -> None:
        if self.grammar not in grammar.SEGMENTS:
            raise ValueError(f"unknown grammar {self.grammar!r}; known: {', '.join(grammar.SEGMENTS)}")
        if self.rows_per_batch < 1:
            raise ValueError(f"rows_per_batch: expected at least 1, found {self.rows_per_batch}")


class Rollouts:
    """Runs a plan on an engine. `rows(tasks)` yields one row (a dict of COLUMNS) per missing rollout, always."""

    def __init__(self, plan: Plan, engine: Engine, on_decoded: Callable[[], None] = lambda: None) -> None:
        self._plan, self._engine, self._on_decoded = plan, engine, on_decoded
        self._tasks: dict[str, Task] = {}
        self._seconds: dict[str, float] = {}
        self._begun = ""
        self._refused: deque[tuple[Task, MediaError]] = deque()
        self._videos = self._tokens = 0

    def rows(self, tasks: Iterable[Task]) -> Iterator[dict]:
        """Rows in the order they finish. Raises EngineDead, and RuntimeError if a row was lost or made twice."""
        plan = self._plan
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
            self._begun = begun(self._engine.chat(plan.user_text))
            for completion in self._engine.generate(self._requests(decoded), plan.sampling, plan.scored):
                task = self._tasks[completion.key]
                row = self._row(task, completion, self._seconds[completion.key])
                done += 1
                yield row
                left = open_rows.get(completion.key, len(set(task.missing))) - 1
                open_rows[completion.key] = left
                if left == 0:
                    del open_rows[completion.key], self._tasks[completion.key], self._seconds[completion.key]
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

    def _requests(self, decoded: Iterable[tuple[Task, Clip | MediaError]]) -> Iterator[Request]:
        """Runs in the engine's feeding thread; what cannot be decoded is left in `_refused` for the main one."""
        for number, (task, clip) in enumerate(decoded):
            self._on_decoded()
            if isinstance(clip, MediaError):
                self._refused.append((task, clip))
                continue
            key = f"{number}:{task.video_id}"
            self._tasks[key], self._seconds[key] = task, clip.duration
            shown = () if self._plan.frames.show == "none" else (clip,)
            prompt = self._engine.chat(self._plan.user_text, len(shown), task.text or "")
            for first, n in consecutive(task.missing):
                seed = seed_of(self._plan.seed_base, task.video_id, first)
                yield Request(key, prompt, shown, first, n, seed, self._plan.adapter)

    def _undecoded(self) -> Iterator[dict]:
        while self._refused:
            task, error = self._refused.popleft()
            for index in sorted(set(task.missing)):
                status = "generation_error" if error.reason in PASSING else "decode_error"
                yield self._blank(task, index) | {"status": status, "error": f"{error.reason}: {error}"}
            self._progress()

    def _row(self, task: Task, completion: Completion, seconds: float) -> dict:
        row = self._blank(task, completion.index) | {
            "prompt_tokens": completion.prompt_tokens,
            "finish_reason": completion.finish_reason,
            "error": completion.error,
        }
        if completion.finish_reason == "error":
            return row | {"status": "generation_error"}
        self._tokens += len(completion.token_ids)
        parsed = grammar.parse(
            completion.text,
            self._plan.grammar,
            self._plan.scored.labels if self._plan.scored else None,
            completion.finish_reason,
            seconds=seconds,
            several=isinstance(self._plan.scored, Checks),
            begun=self._begun,
        )
        return row | {
            "status": parsed.status,
            "text": completion.text,
            "observation": parsed.observation,
            "think": parsed.think,
            "answer": parsed.answer,
            "label": parsed.label,
            "labels": parsed.labels,
            "well_formed": parsed.well_formed,
            "logprob_sum": completion.logprob_sum,
            "label_logprobs": completion.label_logprobs,
            "tokens": len(completion.token_ids),
        }

    def _blank(self, task: Task, index: int) -> dict:
        """A row without a completion: every column is there, what is unknown is None."""
        return dict.fromkeys(COLUMNS) | {
            "video_id": task.video_id,
            "rollout_index": index,
            "attempt": task.attempt,
            "seed": seed_of(self._plan.seed_base, task.video_id, index),
            "well_formed": False,
            "prompt_tokens": 0,
            "tokens": 0,
            "engine": self._engine.name,
            "engine_version": self._engine.version,
        }

    def _progress(self) -> None:
        self._videos += 1
        if self._plan.on_progress:
            self._plan.on_progress(self._videos, self._tokens)


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


def _decode(decode: Callable, frames: FrameSpec, limits: Limits, what: tuple[str, str]) -> Clip:
    uri, video_id = what
    return decode(uri, video_id, frames, limits)
