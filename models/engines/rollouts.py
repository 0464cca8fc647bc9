"""Rollouts of many videos on one engine: ask for the missing ones of each, read what comes back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from models.engines.asking import Asked, Asking, Task, seed_of
from models.engines.promise import Completion, Engine, Request, Sampling
from models.language import grammar
from models.language.label_scores import Checks, Scored
from models.language.prompts import begun
from models.video.clip import Clip


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


@dataclass(frozen=True, kw_only=True)
class Plan(Asked):
    """Everything a worker needs to know of rollouts.

    user_text: `prompts.user_text` already rendered; scored: the labels, and how their probabilities are
    asked for, which says whether an answer may name several; None for open questions; adapter: one of the engine's, "" for
    none.
    """

    sampling: Sampling
    user_text: str
    grammar: str
    scored: Scored
    adapter: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.grammar not in grammar.SEGMENTS:
            raise ValueError(f"unknown grammar {self.grammar!r}; known: {', '.join(grammar.SEGMENTS)}")


class Rollouts(Asking):
    """See Asking: rows are what the model wrote."""

    def __init__(self, plan: Plan, engine: Engine, on_decoded: Callable[[], None] = lambda: None) -> None:
        super().__init__(plan, engine, on_decoded)
        self._plan, self._begun = plan, ""

    def _answers(self, shown: Iterator[tuple[str, Task, Clip]]) -> Iterator[Completion]:
        self._begun = begun(self._engine.chat(self._plan.user_text))
        yield from self._engine.generate(self._requests(shown), self._plan.sampling, self._plan.scored)

    def _requests(self, shown: Iterator[tuple[str, Task, Clip]]) -> Iterator[Request]:
        for key, task, clip in shown:
            clips = () if self._plan.frames.show == "none" else (clip,)
            prompt = self._engine.chat(self._plan.user_text, len(clips), task.text or "")
            for first, n in consecutive(task.missing):
                seed = seed_of(self._plan.seed_base, task.video_id, first)
                yield Request(key, prompt, clips, first, n, seed, self._plan.adapter)

    def _rows_of(self, task: Task, answer: Completion, seconds: float) -> Iterator[dict]:
        row = self._blank(task, answer.index) | {
            "prompt_tokens": answer.prompt_tokens,
            "finish_reason": answer.finish_reason,
            "error": answer.error,
        }
        if answer.finish_reason == "error":
            yield row | {"status": "generation_error"}
            return
        parsed = grammar.parse(
            answer.text,
            self._plan.grammar,
            self._plan.scored.labels if self._plan.scored else None,
            answer.finish_reason,
            seconds=seconds,
            several=isinstance(self._plan.scored, Checks),
            begun=self._begun,
        )
        yield row | {
            "status": parsed.status,
            "text": answer.text,
            "observation": parsed.observation,
            "think": parsed.think,
            "answer": parsed.answer,
            "label": parsed.label,
            "labels": parsed.labels,
            "well_formed": parsed.well_formed,
            "logprob_sum": answer.logprob_sum,
            "label_logprobs": answer.label_logprobs,
            "tokens": len(answer.token_ids),
        }
