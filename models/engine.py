"""What every engine promises: an iterator of requests in, completions out as they finish.

Two engines keep this promise: `engine_vllm` (continuous batching, production) and `engine_transformers` (one request after
another, the reference it is compared with). A request is one video with n consecutive rollouts, so that the prompt is
prefilled and the frames are encoded once for all of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np


class EngineDead(RuntimeError):
    """The engine failed in a step and must not be used again: the worker has to exit and the task be tried elsewhere."""


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn. All of it is part of a recipe's identity."""

    temperature: float = 1.0
    top_p: float = 1.0
    max_tokens: int = 128
    stop: tuple[str, ...] = ()


@dataclass(frozen=True)
class EngineSpec:
    """Where and how a model runs; two equal specs may share one running engine."""

    kind: str  # vllm | transformers
    model: str  # folder in Hugging Face layout
    dtype: str = "float32"
    max_model_len: int = 1024  # tokens, prompt with video included
    max_num_seqs: int = 128  # sequences decoded together
    kv_cache_bytes: int | None = None  # None: the engine's own default (on a GPU: a share of its memory)


@dataclass(frozen=True)
class Request:
    """One video, n consecutive rollouts: rollout `first_index + j` is drawn with seed `seed + j`.

    frames: uint8 [T, H, W, 3]; fps: the rate at which the frames are presented to the model, frames per second.
    """

    key: str
    prompt: str
    frames: np.ndarray
    fps: float
    first_index: int
    n: int
    seed: int


@dataclass(frozen=True)
class Completion:
    """One finished rollout.

    logprob_sum: natural log, over the generated tokens, of the raw distribution (temperature 1).
    label_logprobs: natural log of each label's first token at the answer position; None where no answer was begun.
    finish_reason: stop | length | error (then `error` says why and the text is empty).
    """

    key: str
    index: int
    seed: int
    text: str
    token_ids: tuple[int, ...]
    logprob_sum: float
    label_logprobs: dict[str, float] | None
    prompt_tokens: int
    finish_reason: str
    error: str | None = None


class Engine(Protocol):
    """A running model. `generate` never drains between requests; `close` frees the device."""

    name: str
    version: str

    def generate(self, requests: Iterator[Request], sampling: Sampling, labels: tuple[str, ...]) -> Iterator[Completion]:
        """Yield the completions of each request in the order they finish.

        Raises EngineDead when a step fails. A request that the engine refuses (too long, malformed) comes back as n
        completions with finish_reason `error` instead.
        """
        ...

    def close(self) -> None: ...
