"""What every engine promises: requests in, completions out as they finish; questions in, probabilities out.

Two engines keep this promise: `vllm` (continuous batching, production) and `transformers` (one request after another, the
reference it is compared with). Their core is `submit`, `ask` and `step`; `generate` and `classify` stand on it (stream.py).
A request is one prompt with n consecutive rollouts, so that it is prefilled and its clips are encoded once for all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from models.language.label_scores import Scored
from models.language.prompts import CAME_WITH
from models.video.clip import Clip


class EngineDead(RuntimeError):
    """The engine failed in a step and is of no further use: the worker has to exit and the task be tried elsewhere."""


class RequestRefused(ValueError):
    """A request that cannot be run as asked, whatever else runs; it becomes n completions that carry the reason."""


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn. All of it is part of a recipe's identity; what it does not name (top-k, penalties, ...) is
    neutral, whatever the model folder's generation_config.json says.

    stop: strings that end a completion; the string that did stays in the text.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    max_tokens: int = 128
    stop: tuple[str, ...] = ()


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter that requests may name: a folder in peft's layout."""

    name: str
    folder: str
    digest: str = ""  # of the folder's content; "": whatever is there


@dataclass(frozen=True)
class EngineSpec:
    """Where and how a model runs; two equal specs may share one running engine."""

    kind: str  # vllm | transformers, or module:Class of another that keeps the promise
    model: str  # folder in Hugging Face layout
    digest: str = ""  # of the folder's content, see identity.model_digest; "": whatever is there
    dtype: str = "float32"
    max_model_len: int = 1024  # tokens, prompt with clips included
    max_num_seqs: int = 128  # sequences decoded together
    kv_cache_bytes: int | None = None  # None: 1 GiB on a CPU, the engine's own share of the memory on a GPU
    max_clips: int = 1  # in one prompt
    adapters: tuple[Adapter, ...] = ()
    gpus: int = 1  # that hold the model together (tensor parallel)


@dataclass(frozen=True)
class Request:
    """One prompt, n consecutive rollouts: rollout `first_index + j` is drawn with seed `seed + j`.

    prompt: text with the chat template applied (`Engine.chat`), or its tokens with one placeholder a clip, where a request
    goes on from what an earlier one has generated; clips: one for each video placeholder in it, in order; adapter: the name
    of one of the engine's, "" for the model as it is.
    """

    key: str
    prompt: str | tuple[int, ...]
    clips: tuple[Clip, ...]
    first_index: int
    n: int
    seed: int
    adapter: str = ""


@dataclass(frozen=True)
class Completion:
    """One finished rollout.

    text: without the end-of-turn token, every other special token left in; token_ids: all that was generated.
    logprob_sum: natural log, over the generated tokens, of the raw distribution (temperature 1).
    token_logprobs: the same of each token, where they were asked for.
    label_logprobs: by label, of a Choice the natural log of the probability that the answer goes on as only this label
    does, of Checks that of yes against no; None where no answer was begun.
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


@dataclass(frozen=True)
class Question:
    """Questions about one prompt: it is followed by each of `tails` in turn, and the next token is what is asked for."""

    key: str
    prompt: str | tuple[int, ...]
    clips: tuple[Clip, ...]
    tails: tuple[str, ...] = ("",)
    adapter: str = ""


@dataclass(frozen=True)
class Classified:
    """logprobs: float64 [tails, codes], natural log of the raw distribution over the whole vocabulary, NaN behind a tail
    that has no room; None where the question was refused. `error` says why something is not known. cached_tokens: of the
    prompts, those that had not to be computed again."""

    key: str
    logprobs: np.ndarray | None
    prompt_tokens: int
    cached_tokens: int = 0
    error: str | None = None


class Engine(Protocol):
    """A running model. `close` frees the device.

    dead: whether it failed or was closed; changed: whether it was given other weights than its folder's.
    """

    name: str
    version: str
    dead: bool
    changed: bool

    @property
    def unfinished(self) -> int:
        """Sequences that were taken in and are not finished."""
        ...

    def chat(self, user_text: str, clips: int = 1, said: str = "", before: str = CAME_WITH) -> str:
        """The prompt of a request: `prompts.chat` with this model's processor; from any thread."""
        ...

    def submit(self, request: Request, sampling: Sampling, scored: Scored = None, token_logprobs: bool = False) -> None:
        """Take in a request; its completions come out of later steps.

        scored: the labels whose log-probabilities are wanted for every completion. token_logprobs: those of every generated
        token are wanted, too, as reinforcement learning needs them.
        Raises RequestRefused for one that cannot be run (too long, malformed), and EngineDead.
        """
        ...

    def ask(self, question: Question, codes: Sequence[str]) -> None:
        """Take in a question; it comes out of a later step. Raises as `submit`, and ValueError for a code that is not one
        token of this model."""
        ...

    def step(self) -> list[Completion | Classified]:
        """Compute one step for all that was taken in; what is finished by it. Raises EngineDead when it fails."""
        ...

    def generate(
        self, requests: Iterator[Request], sampling: Sampling, scored: Scored = None, token_logprobs: bool = False
    ) -> Iterator[Completion]:
        """Yield the completions of each request in the order they finish; never drains between requests.

        `requests` may be pulled from another thread, never from two at once. Raises EngineDead, and what `requests` raises.
        A request that is refused comes back as n completions with finish_reason `error` instead.
        """
        ...

    def classify(self, questions: Iterator[Question], codes: Sequence[str]) -> Iterator[Classified]:
        """Yield what each question finds, in the order they finish: exact log-probabilities of the codes, any number of
        them, by one step behind each tail; what the tails of a question share is computed once. Raises as `generate`."""
        ...

    def replace_weights(self, tensors: Iterable[tuple[str, Any]]) -> None:
        """Take other weights, all that the model folder names, while nothing runs (reinforcement learning); what the old
        ones computed is forgotten. Raises EngineDead when it fails, and ValueError while something runs."""
        ...

    def close(self) -> None: ...


def refused(item: Request | Question, error: str) -> Iterator[Completion | Classified]:
    """What comes of a request or question that could not be run."""
    if isinstance(item, Question):
        yield Classified(item.key, None, 0, error=error)
        return
    for j in range(item.n):
        yield Completion(item.key, item.first_index + j, item.seed + j, "", (), 0.0, None, 0, "error", error=error)


def check(item: Request | Question, processor: Any, spec: EngineSpec) -> None:
    """Raise RequestRefused where a request or question could not run on any engine of this spec.

    processor: the model's, which knows the placeholder of a clip and the side of one token's picture.
    """
    video = processor.video_processor
    cell = video.patch_size * video.merge_size
    if isinstance(item, Request) and item.n < 1:
        raise RequestRefused(f"n: expected at least 1 rollout, found {item.n}")
    if item.adapter and item.adapter not in {adapter.name for adapter in spec.adapters}:
        known = ", ".join(adapter.name for adapter in spec.adapters) or "none"
        raise RequestRefused(
            f"adapter: expected one that this engine was opened with ({known}), found {item.adapter!r}"
        )
    for clip in item.clips:
        _check_clip(clip, cell)
    placeholder: Any = processor.video_token if isinstance(item.prompt, str) else processor.video_token_id
    places = item.prompt.count(placeholder)
    if places != len(item.clips):
        raise RequestRefused(
            f"prompt: expected the video placeholder {processor.video_token} once for each clip, {len(item.clips)} in all, "
            f"found it {places} times"
        )
    if places > spec.max_clips:
        raise RequestRefused(f"clips: expected at most max_clips={spec.max_clips} in a prompt, found {places}")


def _check_clip(clip: Clip, cell: int) -> None:
    pixels, times = clip.pixels, list(clip.times)
    if getattr(pixels, "dtype", None) != np.uint8 or pixels.ndim != 4 or pixels.shape[-1] != 3 or not pixels.size:
        found = f"{getattr(pixels, 'dtype', type(pixels).__name__)} {list(getattr(pixels, 'shape', ()))}"
        raise RequestRefused(f"clip: expected pixels as uint8 [T, H, W, 3], found {found}")
    height, width = pixels.shape[1:3]
    if height % cell or width % cell:
        raise RequestRefused(f"clip: expected sides of whole tokens, {cell} pixels each, found {height} x {width}")
    if len(times) != len(pixels) or times != sorted(times) or not 0 <= times[0] <= times[-1] <= clip.duration:
        raise RequestRefused(
            f"clip: expected a time for each of {len(pixels)} pictures, ascending within {clip.duration} s, found {times}"
        )


def with_room(tails: Sequence[Sequence[int]], prompt_tokens: int, max_model_len: int) -> tuple[list[int], str | None]:
    """Which tails of a question have room, and why others have none. Raises RequestRefused where none has."""
    lacking = [_lack(len(tail) + 1, prompt_tokens, max_model_len) for tail in tails]
    kept = [number for number, lack in enumerate(lacking) if lack is None]
    error = next((lack for lack in lacking if lack), None)
    if error and not kept:
        raise RequestRefused(error)
    return kept, error


def spread(found: Sequence[Sequence[float]], kept: Sequence[int], tails: int) -> np.ndarray:
    """Log-probabilities [tails, codes] from those behind the kept tails; NaN behind the others."""
    logprobs = np.full((tails, len(found[0])), np.nan)
    logprobs[list(kept)] = found
    return logprobs


def check_room(new_tokens: int, prompt_tokens: int, max_model_len: int) -> None:
    """Raise RequestRefused where the engine's length would cut a completion before the recipe's own limit does.

    new_tokens: of the completion and of what is asked behind it, at most. The engine's length is not part of a recipe's
    identity, so it may refuse a trace but never change one.
    """
    if lack := _lack(new_tokens, prompt_tokens, max_model_len):
        raise RequestRefused(lack)


def _lack(new_tokens: int, prompt_tokens: int, max_model_len: int) -> str | None:
    if prompt_tokens + new_tokens <= max_model_len:
        return None
    return (
        f"a prompt of {prompt_tokens} tokens and up to {new_tokens} more do not fit into "
        f"max_model_len={max_model_len}: raise max_model_len, or ask for fewer frames or tokens"
    )
