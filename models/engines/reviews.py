"""Reviews of many videos on one engine: decode each once, ask about each of its traces, give back what was found.

Knows neither Spark nor Arrow; `udfs/reviewer.py` puts it into a worker.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from operator import attrgetter

import numpy as np

from models.engines.promise import Engine, EngineSpec, Question
from models.video.clip import Clip
from models.video.container import Limits, MediaError
from models.video.frames import FrameSpec
from models.video.pool import DecodePool, DecodeSettings


@dataclass(frozen=True)
class ReviewTask:
    """One video and what reviewers said of it, see `review.said`. key: a number of who asked."""

    key: int
    video_id: str
    uri: str
    said: tuple[str, ...]


@dataclass(frozen=True)
class ReviewPlan:
    """Everything a worker needs to know; picklable.

    text: `review.review_text`; before: the line before what a reviewer said; codes: of the labels, in order; decode: as of
    rollouts.Plan; stall_seconds: silence after which an engine counts as dead.
    """

    engine: EngineSpec
    frames: FrameSpec
    text: str
    before: str
    codes: tuple[str, ...]
    decode: Callable[[str, str, FrameSpec, Limits], Clip]
    limits: Limits = field(default_factory=Limits)
    decoding: DecodeSettings = field(default_factory=DecodeSettings)
    stall_seconds: float = 900.0


Review = np.ndarray | str  # log-probabilities [traces, codes], or why there are none


class Reviews:
    """Runs a plan on an engine. `of(tasks)` yields each task with its review, always, in the order they finish."""

    def __init__(self, plan: ReviewPlan, engine: Engine, on_decoded: Callable[[], None] = lambda: None) -> None:
        self._plan, self._engine, self._on_decoded = plan, engine, on_decoded
        self._waiting: dict[str, ReviewTask] = {}
        self._refused: deque[tuple[ReviewTask, MediaError]] = deque()

    def of(self, tasks: Iterable[ReviewTask]) -> Iterator[tuple[ReviewTask, Review]]:
        """Raises EngineDead, and RuntimeError where a task was lost."""
        asked = done = 0

        def counted() -> Iterator[ReviewTask]:
            nonlocal asked
            for task in tasks:
                asked += 1
                yield task

        work = partial(_decode, self._plan.decode, self._plan.frames, self._plan.limits)
        with DecodePool(work, self._plan.decoding) as pool:
            decoded = pool.map(counted(), argument=attrgetter("uri", "video_id"))
            for found in self._engine.classify(self._questions(decoded), self._plan.codes):
                done += 1
                task = self._waiting.pop(found.key)
                yield task, str(found.error) if found.logprobs is None else found.logprobs
                while self._refused:
                    done += 1
                    yield _undecoded(*self._refused.popleft())
            while self._refused:
                done += 1
                yield _undecoded(*self._refused.popleft())
        if done != asked:
            raise RuntimeError(f"{asked} videos were to be reviewed and {done} came back: none may be lost")

    def _questions(self, decoded: Iterable[tuple[ReviewTask, Clip | MediaError]]) -> Iterator[Question]:
        """Runs in the engine's feeding thread; what cannot be decoded is left in `_refused` for the main one."""
        for number, (task, clip) in enumerate(decoded):
            self._on_decoded()
            if isinstance(clip, MediaError):
                self._refused.append((task, clip))
                continue
            key = f"{number}:{task.video_id}"
            self._waiting[key] = task
            prompts = [self._engine.chat(self._plan.text, 1, said, self._plan.before) for said in task.said]
            # All of them are the same up to what was said.
            before = self._plan.before
            end = prompts[0].index(before) + len(before) + 1
            yield Question(key, prompts[0][:end], (clip,), tuple(prompt[end:] for prompt in prompts))


def _undecoded(task: ReviewTask, error: MediaError) -> tuple[ReviewTask, str]:
    return task, f"{error.reason}: {error}"


def _decode(decode: Callable, frames: FrameSpec, limits: Limits, what: tuple[str, str]) -> Clip:
    uri, video_id = what
    return decode(uri, video_id, frames, limits)
