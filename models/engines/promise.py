"""What every engine promises: an iterator of requests in, completions out as they finish.

Two engines keep this promise: `vllm` (continuous batching, production) and `transformers` (one request after another, the
reference it is compared with). A request is one video with n consecutive rollouts, so that the prompt is prefilled and
the frames are encoded once for all of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from models.video.clip import Clip


class EngineDead(RuntimeError):
    """The engine failed in a step and is of no further use: the worker has to exit and the task be tried elsewhere."""


class RequestRefused(ValueError):
    """A request that cannot be run as asked, whatever else runs; it becomes n completions that carry the reason."""


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn. All of it is part of a recipe's identity.

    stop: strings that end a completion; the string that did stays in the text.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    max_tokens: int = 128
    stop: tuple[str, ...] = ()


@dataclass(frozen=True)
class EngineSpec:
    """Where and how a model runs; two equal specs may share one running engine."""

    kind: str  # vllm | transformers, or module:Class of another that keeps the promise
    model: str  # folder in Hugging Face layout
    digest: str = ""  # of the folder's content, see identity.model_digest; "": whatever is there
    dtype: str = "float32"
    max_model_len: int = 1024  # tokens, prompt with video included
    max_num_seqs: int = 128  # sequences decoded together
    kv_cache_bytes: int | None = None  # None: 1 GiB on a CPU, the engine's own share of the memory on a GPU


@dataclass(frozen=True)
class Request:
    """One prompt, n consecutive rollouts: rollout `first_index + j` is drawn with seed `seed + j`.

    prompt: with the chat template applied (`Engine.chat`); clips: one for each video placeholder in it, in order.
    """

    key: str
    prompt: str
    clips: tuple[Clip, ...]
    first_index: int
    n: int
    seed: int


@dataclass(frozen=True)
class Completion:
    """One finished rollout.

    text: without the end-of-turn token, every other special token left in; token_ids: all that was generated.
    logprob_sum: natural log, over the generated tokens, of the raw distribution (temperature 1).
    token_logprobs: the same of each token, where they were asked for.
    label_logprobs: natural log of each label's first token at the answer position; None where no answer was begun.
    prompt_tokens: video tokens included.
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
    token_logprobs: tuple[float, ...] | None = None


class Engine(Protocol):
    """A running model. `generate` never drains between requests; `close` frees the device."""

    name: str
    version: str

    def chat(self, user_text: str) -> str:
        """The prompt of a request: `prompts.chat` with this model's processor."""
        ...

    def generate(
        self, requests: Iterator[Request], sampling: Sampling, labels: tuple[str, ...], token_logprobs: bool = False
    ) -> Iterator[Completion]:
        """Yield the completions of each request in the order they finish.

        `requests` may be pulled from another thread, never from two at once. labels: those whose log-probabilities are
        wanted at the answer position; () for none; two that begin with the same token are a ValueError. token_logprobs:
        those of every generated token are wanted, too, as reinforcement learning needs them.
        Raises EngineDead when a step fails, and what `requests` raises. A request that the engine refuses (too long,
        malformed) comes back as n completions with finish_reason `error` instead.
        """
        ...

    def close(self) -> None: ...


def refused(request: Request, error: str) -> Iterator[Completion]:
    """The n completions of a request that could not be run."""
    for j in range(request.n):
        yield Completion(
            request.key, request.first_index + j, request.seed + j, "", (), 0.0, None, 0, "error", error=error
        )


def check(request: Request, video_token: str) -> None:
    """Raise RequestRefused where a request could not run on any engine."""
    if request.n < 1:
        raise RequestRefused(f"n: expected at least 1 rollout, found {request.n}")
    for clip in request.clips:
        check_clip(clip)
    places = request.prompt.count(video_token)
    if places != len(request.clips):
        raise RequestRefused(
            f"prompt: expected the video placeholder {video_token} once for each of {len(request.clips)} clips, found it "
            f"{places} times"
        )


def check_clip(clip: Clip) -> None:
    """Raise RequestRefused where a clip is none."""
    pixels, times = clip.pixels, list(clip.times)
    if getattr(pixels, "dtype", None) != np.uint8 or pixels.ndim != 4 or pixels.shape[-1] != 3 or not pixels.size:
        found = f"{getattr(pixels, 'dtype', type(pixels).__name__)} {list(getattr(pixels, 'shape', ()))}"
        raise RequestRefused(f"clip: expected pixels as uint8 [T, H, W, 3], found {found}")
    if len(times) != len(pixels) or times != sorted(times) or not 0 <= times[0] <= times[-1] <= clip.duration:
        raise RequestRefused(
            f"clip: expected a time for each of {len(pixels)} pictures, ascending within {clip.duration} s, found {times}"
        )


def check_room(sampling: Sampling, prompt_tokens: int, max_model_len: int) -> None:
    """Raise RequestRefused where the engine's length would cut a completion before the recipe's own limit does.

    The engine's length is not part of a recipe's identity, so it may refuse a trace but never change one.
    """
    if prompt_tokens + sampling.max_tokens > max_model_len:
        raise RequestRefused(
            f"a prompt of {prompt_tokens} tokens and max_tokens={sampling.max_tokens} do not fit into "
            f"max_model_len={max_model_len}: raise max_model_len, or ask for fewer frames or tokens"
        )
