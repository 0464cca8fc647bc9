"""The reference engine: transformers' own generate, one request after another. Slow and short; vLLM is held against it."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import transformers
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
)

from models.engines.promise import (
    Completion,
    EngineDead,
    EngineSpec,
    Request,
    RequestRefused,
    Sampling,
    check,
    check_room,
    refused,
)
from models.language.answers import LabelTokens, completion_text, find_answer
from models.language.positions import use_serving_positions
from models.language.prompts import chat
from models.video.processors import check_processors, processor_inputs


class TransformersEngine:
    """See `models.engines.promise.Engine`.

    In float32 greedy completions agree with vLLM's token for token; sampled ones are reproducible, but drawn by another
    generator than vLLM's: compare those through `score`.
    """

    name = "transformers"
    version = transformers.__version__

    def __init__(self, spec: EngineSpec) -> None:
        self.dead = False
        self._spec, self._lock = spec, threading.Lock()
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._processor = AutoProcessor.from_pretrained(spec.model)
        check_processors(spec.model, self._processor)
        self._tokenizer = self._processor.tokenizer
        model = AutoModelForImageTextToText.from_pretrained(spec.model, dtype=getattr(torch, spec.dtype))
        use_serving_positions(model)
        self._model = model.to(self._device).eval()
        ends = model.generation_config.eos_token_id
        self._end_ids = frozenset(ends if isinstance(ends, list) else [ends]) | {self._tokenizer.eos_token_id}
        # The folder's own sampling defaults (penalties, top_k) are no part of a recipe: only ours count.
        model.generation_config = GenerationConfig(
            eos_token_id=sorted(self._end_ids), pad_token_id=self._tokenizer.pad_token_id, do_sample=False
        )

    def chat(self, user_text: str) -> str:
        return chat(self._processor, user_text)

    def generate(
        self, requests: Iterator[Request], sampling: Sampling, labels: tuple[str, ...], token_logprobs: bool = False
    ) -> Iterator[Completion]:
        if self.dead:
            raise EngineDead(f"this engine ({self._spec.model}) has failed or was closed; start a new process")
        wanted = LabelTokens.of(self._tokenizer, labels) if labels else None
        for request in requests:
            try:
                check(request, self._processor.video_token)
                inputs = self._inputs(request, 1 if sampling.temperature == 0 else request.n)
                check_room(sampling, inputs["input_ids"].shape[1], self._spec.max_model_len)
            except (RequestRefused, ValueError, TypeError) as error:
                yield from refused(request, str(error))
                continue
            try:
                completions = self._run(request, inputs, sampling, wanted, token_logprobs)
            except Exception as error:
                self.dead = True
                raise EngineDead(f"transformers failed in a step: {type(error).__name__}: {error}") from error
            yield from completions

    def score(self, request: Request, token_ids: Sequence[int], labels: tuple[str, ...] = ()) -> Completion:
        """The completion that consists of these tokens: teacher forcing, their log-probabilities without sampling."""
        inputs = self._inputs(request, 1)
        prompt = inputs["input_ids"].shape[1]
        answer = torch.tensor([list(token_ids)], device=self._device)
        with (
            torch.inference_mode()
        ):  # in two passes: a completion may hold a stray video token that stands for no video
            begun = self._model(**inputs, use_cache=True)
            positions = torch.arange(answer.shape[1], device=self._device) + prompt + begun.rope_deltas
            rest = self._model(
                input_ids=answer, position_ids=positions.expand(3, 1, -1), past_key_values=begun.past_key_values
            )
            logits = torch.cat([begun.logits[0, -1:], rest.logits[0, :-1]]).float()
        wanted = LabelTokens.of(self._tokenizer, labels) if labels else None
        return self._completion(request, 0, tuple(token_ids), logits.log_softmax(-1), prompt, "stop", (), wanted, True)

    def close(self) -> None:
        self.dead = True
        self._model = None
        if self._device == "cuda":
            torch.cuda.empty_cache()

    def _inputs(self, request: Request, copies: int) -> dict[str, Any]:
        inputs = self._processor(
            text=[request.prompt] * copies,
            **processor_inputs(list(request.clips) * copies),
            return_tensors="pt",
        )
        return dict(inputs.to(self._device))

    def _run(
        self, request: Request, inputs: dict[str, Any], sampling: Sampling, wanted: LabelTokens | None, each: bool
    ) -> list[Completion]:
        prompt = inputs["input_ids"].shape[1]
        draw = _Draw(sampling, [request.seed + j for j in range(len(inputs["input_ids"]))], self._device)
        stop = [_StopStrings(self._tokenizer, prompt, self._end_ids, sampling.stop)] if sampling.stop else []
        with torch.inference_mode():
            rows = self._model.generate(
                **inputs,
                max_new_tokens=sampling.max_tokens,
                logits_processor=LogitsProcessorList([draw]),
                stopping_criteria=StoppingCriteriaList(stop),
            )[:, prompt:].tolist()
        made = []
        for j in range(request.n):
            row = 0 if sampling.temperature == 0 else j
            ids, reason = self._cut(rows[row], sampling.stop)
            logprobs = torch.stack([step[row] for step in draw.raw[: len(ids)]])
            made.append(self._completion(request, j, ids, logprobs, prompt, reason, sampling.stop, wanted, each))
        return made

    def _cut(self, ids: list[int], stop: Sequence[str]) -> tuple[tuple[int, ...], str]:
        """The tokens of one row up to where it ended, for a batch goes on until its last row ends."""
        for at, token in enumerate(ids):
            if token in self._end_ids:
                return tuple(ids[: at + 1]), "stop"
            if stop and any(s in completion_text(self._tokenizer, ids[: at + 1], self._end_ids, ()) for s in stop):
                return tuple(ids[: at + 1]), "stop"
        return tuple(ids), "length"

    def _completion(self, request, j, ids, logprobs, prompt_tokens, reason, stop, wanted, each) -> Completion:
        """logprobs: float32 [tokens, vocabulary], the raw distribution at each generated token."""
        drawn = logprobs.gather(1, torch.tensor(ids, device=logprobs.device)[:, None])[:, 0].double()
        place = find_answer(self._tokenizer, ids) if wanted else None
        return Completion(
            key=request.key,
            index=request.first_index + j,
            seed=request.seed + j,
            text=completion_text(self._tokenizer, ids, self._end_ids, stop),
            token_ids=ids,
            logprob_sum=float(drawn.sum()),
            label_logprobs=None
            if place is None
            else {label: float(logprobs[place.position, t]) for label, t in wanted.at(place).items()},
            prompt_tokens=prompt_tokens,
            finish_reason=reason,
            token_logprobs=tuple(drawn.tolist()) if each else None,
        )


class _Draw(LogitsProcessor):
    """Keeps the raw log-probabilities of each step and draws the token, one generator per row.

    Drawing by argmax(log p - log q) with q exponential is exact sampling from p, and leaves `generate` greedy: what a
    row gets depends on its own seed alone.
    """

    def __init__(self, sampling: Sampling, seeds: list[int], device: str) -> None:
        self.raw: list[torch.Tensor] = []
        self._sampling = sampling
        self._generators = [torch.Generator(device).manual_seed(seed) for seed in seeds]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        self.raw.append(scores.float().log_softmax(-1))
        if self._sampling.temperature == 0:
            return scores
        logits = scores.float() / self._sampling.temperature
        if self._sampling.top_p < 1:
            ordered, order = logits.sort(-1)
            outside = ordered.softmax(-1).cumsum(-1) <= 1 - self._sampling.top_p
            outside[:, -1] = False
            logits = logits.masked_fill(outside.scatter(1, order, outside), -torch.inf)
        noise = torch.stack(
            [torch.empty_like(row).exponential_(generator=g) for row, g in zip(logits, self._generators, strict=True)]
        )
        return logits.log_softmax(-1) - noise.log()


class _StopStrings(StoppingCriteria):
    """A row is done once its text holds a stop string."""

    def __init__(self, tokenizer: Any, prompt: int, end_ids: frozenset[int], stop: Sequence[str]) -> None:
        self._read = lambda ids: completion_text(tokenizer, ids, end_ids, ())
        self._prompt, self._stop = prompt, stop

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        texts = [self._read(row) for row in input_ids[:, self._prompt :].tolist()]
        return torch.tensor([any(s in text for s in self._stop) for text in texts], device=input_ids.device)
