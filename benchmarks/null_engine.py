"""An engine that answers at once: what a night costs beside its model. Keeps the promise of models/engines/promise.py."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace

from models.engines.promise import Completion, EngineSpec, Request, Sampling
from models.language.grammar import render

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


class NullEngine:
    """Well-formed traces of the grammar `observation`, about 600 characters of observation and reasoning each."""

    name, version, dead = "null", "1", False

    def __init__(self, spec: EngineSpec) -> None:
        self._spec = spec

    def chat(self, user_text: str) -> str:
        return user_text

    def generate(
        self, requests: Iterator[Request], sampling: Sampling, labels: tuple[str, ...], token_logprobs: bool = False
    ) -> Iterator[Completion]:
        for request in requests:
            for j in range(request.n):
                done = _completion(request, j, labels)
                each = done.logprob_sum / len(done.token_ids)
                yield replace(done, token_logprobs=(each,) * len(done.token_ids)) if token_logprobs else done

    def close(self) -> None:
        """Holds nothing."""


def _completion(request: Request, j: int, labels: tuple[str, ...]) -> Completion:
    rng = random.Random(request.seed + j)
    label = rng.choice(labels)
    text = render("observation", prose(rng, 250), prose(rng, 350), label)
    return Completion(
        key=request.key,
        index=request.first_index + j,
        seed=request.seed + j,
        text=text,
        token_ids=tuple(range(150)),
        logprob_sum=-40.0 * rng.random(),
        label_logprobs={name: -0.2 if name == label else -3.0 for name in labels},
        prompt_tokens=400,
        finish_reason="stop",
    )
