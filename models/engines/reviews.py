"""Reviews of traces on one engine: each trace of a video is shown beside its frames, and a label is asked for by its code.

A review is a rollout of one token, and a row like one: its rollout_index is that of the trace which it is about.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from models.engines.asking import Asked, Asking, Task
from models.engines.promise import Classified, Engine, Question
from models.video.clip import Clip


@dataclass(frozen=True, kw_only=True)
class ReviewPlan(Asked):
    """Everything a worker needs to know of reviews.

    text: `review.review_text`; before: the line before what is reviewed; codes: label -> code.
    """

    text: str
    before: str
    codes: dict[str, str]


class Reviews(Asking):
    """See Asking: rows are what the model holds each trace's video for."""

    def __init__(self, plan: ReviewPlan, engine: Engine, on_decoded: Callable[[], None] = lambda: None) -> None:
        super().__init__(plan, engine, on_decoded)
        self._plan = plan

    def _answers(self, shown: Iterator[tuple[str, Task, Clip]]) -> Iterator[Classified]:
        yield from self._engine.classify(self._questions(shown), tuple(self._plan.codes.values()))

    def _questions(self, shown: Iterator[tuple[str, Task, Clip]]) -> Iterator[Question]:
        before = self._plan.before
        for key, task, clip in shown:
            said = [task.said[index] for index in _indices(task)]
            prompts = [self._engine.chat(self._plan.text, 1, each, before) for each in said]
            # All of them are the same up to what is reviewed.
            end = prompts[0].index(before) + len(before) + 1
            yield Question(key, prompts[0][:end], (clip,), tuple(prompt[end:] for prompt in prompts))

    def _rows_of(self, task: Task, answer: Classified, seconds: float) -> Iterator[dict]:
        for place, index in enumerate(_indices(task)):
            row = self._blank(task, index) | {"prompt_tokens": answer.prompt_tokens}
            if answer.logprobs is None or np.isnan(answer.logprobs[place]).any():  # refused, or no room for this trace
                yield row | {"status": "generation_error", "finish_reason": "error", "error": answer.error}
                continue
            found = dict(zip(self._plan.codes, answer.logprobs[place].tolist(), strict=True))
            label = min(found, key=lambda slug: (-found[slug], slug))
            yield row | {
                "status": "ok",
                "text": self._plan.codes[label],
                "answer": self._plan.codes[label],
                "label": label,
                "labels": [label],
                "well_formed": True,
                "logprob_sum": found[label],
                "label_logprobs": found,
                "tokens": 1,
                "finish_reason": "stop",
            }


def _indices(task: Task) -> list[int]:
    return sorted(set(task.missing))
