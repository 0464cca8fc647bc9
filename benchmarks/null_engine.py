"""An engine that answers at once: what a night costs beside its model. Keeps the promise of models/engines/promise.py."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from models.engines.promise import Classified, Completion, EngineSpec, Question, Request, Sampling
from models.engines.stream import Streaming
from models.language.grammar import render
from models.language.label_scores import Choice, Scored

KIND = "benchmarks.null_engine:NullEngine"

_TEXT = """the first digit stands left and is small then a second one comes slowly from above it looks like three or eight
but its upper bow is open so three it is after a pause darker ink shows five clearly larger than before while noise
covers part of paper last seven drifts right"""
_WORDS = _TEXT.split()


def prose(rng: random.Random, characters: int) -> str:
    """Words of about so many characters."""
    words: list[str] = []
    length = 0
    while length < characters:
        words.append(rng.choice(_WORDS))
        length += len(words[-1]) + 1
    return " ".join(words)


class NullEngine(Streaming):
    """Well-formed traces of the grammar `observation`, about 600 characters of observation and reasoning each."""

    name, version, dead = "null", "1", False

    def __init__(self, spec: EngineSpec) -> None:
        self._spec = spec
        self._ready: deque[Completion | Classified] = deque()

    def chat(self, user_text: str, clips: int = 1, said: str = "") -> str:
        return user_text + said

    @property
    def unfinished(self) -> int:
        return len(self._ready)

    @property
    def full(self) -> bool:
        return bool(self._ready)

    def submit(self, request: Request, sampling: Sampling, scored: Scored = None, token_logprobs: bool = False) -> None:
        for j in range(request.n):
            done = _completion(request, j, scored)
            each = (done.logprob_sum / len(done.token_ids),) * len(done.token_ids)
            self._ready.append(replace(done, token_logprobs=each) if token_logprobs else done)

    def ask(self, question: Question, codes: Sequence[str]) -> None:
        even = np.full((len(question.tails), len(codes)), -np.log(len(codes)))
        self._ready.append(Classified(question.key, even, 400))

    def step(self) -> list[Completion | Classified]:
        done = list(self._ready)
        self._ready.clear()
        return done

    def abandon(self) -> None:
        self._ready.clear()

    def replace_weights(self, tensors: Iterable[tuple[str, Any]]) -> None:
        """Has none."""

    def close(self) -> None:
        """Holds nothing."""


def _completion(request: Request, j: int, scored: Scored) -> Completion:
    rng = random.Random(request.seed + j)
    several = not isinstance(scored, Choice)
    labels = scored.labels if scored else ()
    said = [label for label in labels if rng.random() < 0.3] if several else [rng.choice(labels)]
    text = render("observation", prose(rng, 250), prose(rng, 350), ", ".join(said) or "none")
    return Completion(
        key=request.key,
        index=request.first_index + j,
        seed=request.seed + j,
        text=text,
        token_ids=tuple(range(150)),
        logprob_sum=-40.0 * rng.random(),
        label_logprobs={name: -0.2 if name in said else -3.0 for name in labels},
        prompt_tokens=400,
        finish_reason="stop",
    )
