"""The reference engine: transformers' own generate, one request after another. Slow and short; vLLM is held against it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache, partial
from typing import Any

import torch
import transformers
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    BatchFeature,
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
)

from models.engines.promise import (
    Classified,
    Completion,
    EngineDead,
    EngineSpec,
    Question,
    Request,
    RequestRefused,
    Sampling,
    Scored,
    check,
    check_room,
    spread,
    with_room,
)
from models.engines.stream import Streaming
from models.engines.weights import whole
from models.language.answers import completion_text, decode, encode
from models.language.codes import code_ids
from models.language.label_scores import Found, LabelScores, Look, Looks, reader
from models.language.positions import use_serving_positions
from models.language.prompts import CAME_WITH, chat
from models.video.clip import Clip
from models.video.processors import check_processors, processor_inputs


class TransformersEngine(Streaming):
    """See `models.engines.promise.Engine`.

    In float32 greedy completions agree with vLLM's token for token; sampled ones are reproducible, but drawn by another
    generator than vLLM's: compare those through `score`.
    """

    name = "transformers"
    version = transformers.__version__

    def __init__(self, spec: EngineSpec) -> None:
        self.dead = False
        self._spec = spec
        self._waiting: deque[Callable[[], list[Completion | Classified]]] = deque()
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._processor = AutoProcessor.from_pretrained(spec.model)
        check_processors(spec.model, self._processor)
        self._tokenizer = self._processor.tokenizer
        model = AutoModelForImageTextToText.from_pretrained(spec.model, dtype=getattr(torch, spec.dtype))
        ends = model.generation_config.eos_token_id
        self._end_ids = frozenset(ends if isinstance(ends, list) else [ends]) | {self._tokenizer.eos_token_id}
        self._scores = lru_cache(maxsize=8)(partial(reader, self._processor, end_ids=self._end_ids))
        self._model = self._ready(model)

    def _ready(self, model: Any) -> Any:
        use_serving_positions(model)
        # The folder's own sampling defaults (penalties, top_k) are no part of a recipe: only ours count.
        model.generation_config = GenerationConfig(
            eos_token_id=sorted(self._end_ids), pad_token_id=self._tokenizer.pad_token_id, do_sample=False
        )
        for adapter in self._spec.adapters:
            model.load_adapter(adapter.folder, adapter_name=adapter.name)
        return model.to(self._device).eval()

    def chat(self, user_text: str, clips: int = 1, said: str = "", before: str = CAME_WITH) -> str:
        return chat(self._processor, user_text, clips, said, before)

    @property
    def unfinished(self) -> int:
        return len(self._waiting)

    @property
    def full(self) -> bool:
        return bool(self._waiting)

    def submit(self, request: Request, sampling: Sampling, scored: Scored = None, token_logprobs: bool = False) -> None:
        self._must_live()
        scores = self._scores(scored) if scored else None
        inputs = self._inputs(request, 1 if sampling.temperature == 0 else request.n)
        behind = scores.longest + 1 if scores else 0
        check_room(sampling.max_tokens + behind, inputs["input_ids"].shape[1], self._spec.max_model_len)
        self._waiting.append(partial(self._run, request, inputs, sampling, scores, token_logprobs))

    def ask(self, question: Question, codes: Sequence[str]) -> None:
        self._must_live()
        ids = code_ids(self._tokenizer, codes)
        inputs = self._inputs(question, 1)
        tails = [encode(self._tokenizer, tail) for tail in question.tails]
        kept, error = with_room(tails, inputs["input_ids"].shape[1], self._spec.max_model_len)
        self._waiting.append(partial(self._answer, question, inputs, tails, kept, error, ids))

    def step(self) -> list[Completion | Classified]:
        self._must_live()
        try:
            return self._waiting.popleft()()
        except Exception as error:
            self.dead = True
            raise EngineDead(f"transformers failed in a step: {type(error).__name__}: {error}") from error

    def abandon(self) -> None:
        self._waiting.clear()

    def score(self, request: Request, token_ids: Sequence[int], scored: Scored = None) -> Completion:
        """The completion that consists of these tokens: teacher forcing, their log-probabilities without sampling."""
        self._must_live()
        self._use(request.adapter)
        inputs = self._inputs(request, 1)
        logprobs = self._forced(inputs, token_ids)[:-1]
        scores = self._scores(scored) if scored else None
        return self._completion(request, inputs, 0, tuple(token_ids), logprobs, "stop", (), scores, True)

    def replace_weights(self, tensors: Iterable[tuple[str, Any]]) -> None:
        self._must_live()
        if self._waiting:
            raise ValueError("new weights can be taken while nothing runs: step until nothing is unfinished")
        self.changed = True
        try:
            kind, dtype = type(self._model), getattr(torch, self._spec.dtype)
            # Of the class itself: beside peft, AutoModel looks for adapters in the folder, and here is none.
            model = kind.from_pretrained(
                None, config=self._model.config, state_dict=dict(whole(tensors, self._spec.model)), dtype=dtype
            )
            self._model = self._ready(model)
        except Exception as error:
            self.dead = True
            raise EngineDead(
                f"transformers failed in replacing the weights: {type(error).__name__}: {error}"
            ) from error

    def close(self) -> None:
        self.dead = True
        self._model = None
        if self._device == "cuda":
            torch.cuda.empty_cache()

    def _inputs(self, item: Request | Question, copies: int) -> dict[str, Any]:
        """The prompt as the model takes it, so many times. Raises RequestRefused."""
        check(item, self._processor, self._spec)
        try:
            if isinstance(item.prompt, str):
                inputs = self._processor(
                    text=[item.prompt] * copies, **processor_inputs(list(item.clips) * copies), return_tensors="pt"
                )
            else:
                inputs = self._from_tokens(item.prompt, item.clips, copies)
        except (ValueError, TypeError) as error:
            raise RequestRefused(str(error)) from error
        return dict(inputs.to(self._device))

    def _from_tokens(self, prompt: Sequence[int], clips: Sequence[Clip], copies: int) -> BatchFeature:
        """The same for a prompt in tokens, which must not be tokenized anew: only its placeholders are filled in."""
        left, ids, kinds = list(prompt), list[int](), list[int]()
        for clip in clips:
            at = left.index(self._processor.video_token_id)
            placeholder = decode(self._tokenizer, left[at - 1 : at + 2])  # with the tokens that begin and end a clip
            filled = self._processor(text=[placeholder], **processor_inputs([clip]))
            ids += [*left[: at - 1], *filled["input_ids"][0]]
            kinds += [0] * (at - 1) + list(filled["mm_token_type_ids"][0])
            left = left[at + 2 :]
        ids, kinds = ids + left, kinds + [0] * len(left)
        pixels: dict[str, Any] = {}
        if clips:
            placeholders = "".join([self._tokenizer.decode([self._processor.video_token_id])] * len(clips) * copies)
            pixels = dict(
                self._processor(text=[placeholders], **processor_inputs(list(clips) * copies), return_tensors="pt")
            )
        tokens = torch.tensor([ids] * copies)
        text = {
            "input_ids": tokens,
            "attention_mask": torch.ones_like(tokens),
            "mm_token_type_ids": torch.tensor([kinds] * copies),
        }
        return BatchFeature(pixels | text)

    def _forced(self, inputs: dict[str, Any], token_ids: Sequence[int]) -> torch.Tensor:
        """Log-probabilities [len(token_ids) + 1, vocabulary] of what comes at and behind each of these tokens."""
        self._forget()
        with torch.inference_mode():
            begun = self._model(**inputs, use_cache=True)
            if not len(token_ids):
                return begun.logits[0, -1:].float().log_softmax(-1)
            # In two passes: a completion may hold a stray video token that stands for no video.
            ids = torch.tensor([list(token_ids)], device=self._device)
            ahead = 0 if begun.rope_deltas is None else begun.rope_deltas  # of text alone it is None
            places = torch.arange(ids.shape[1], device=self._device) + inputs["input_ids"].shape[1] + ahead
            rest = self._model(
                input_ids=ids, position_ids=places.expand(3, 1, -1), past_key_values=begun.past_key_values
            )
            return torch.cat([begun.logits[0, -1:], rest.logits[0]]).float().log_softmax(-1)

    def _answer(
        self,
        question: Question,
        inputs: dict[str, Any],
        tails: Sequence[Sequence[int]],
        kept: Sequence[int],
        error: str | None,
        ids: Sequence[int],
    ) -> list[Completion | Classified]:
        self._use(question.adapter)
        found = [self._forced(inputs, tails[number])[-1, list(ids)].tolist() for number in kept]
        logprobs = spread(found, kept, len(tails))
        return [Classified(question.key, logprobs, inputs["input_ids"].shape[1], error=error)]

    def _run(
        self, request: Request, inputs: dict[str, Any], sampling: Sampling, scores: LabelScores | None, each: bool
    ) -> list[Completion | Classified]:
        self._use(request.adapter)
        self._forget()
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
        made: list[Completion | Classified] = []
        one = self._inputs(request, 1) if scores else inputs
        for j in range(request.n):
            row = 0 if sampling.temperature == 0 else j
            ids, reason = self._cut(rows[row], sampling.stop)
            logprobs = torch.stack([step[row] for step in draw.raw[: len(ids)]])
            made.append(self._completion(request, one, j, ids, logprobs, reason, sampling.stop, scores, each))
        return made

    def _cut(self, ids: list[int], stop: Sequence[str]) -> tuple[tuple[int, ...], str]:
        """The tokens of one row up to where it ended, for a batch goes on until its last row ends."""
        for at, token in enumerate(ids):
            if token in self._end_ids:
                return tuple(ids[: at + 1]), "stop"
            if stop and any(s in completion_text(self._tokenizer, ids[: at + 1], self._end_ids, ()) for s in stop):
                return tuple(ids[: at + 1]), "stop"
        return tuple(ids), "length"

    def _completion(self, request, inputs, j, ids, logprobs, reason, stop, scores, each) -> Completion:
        """logprobs: float32 [tokens, vocabulary], the raw distribution at each generated token."""
        drawn = logprobs.gather(1, torch.tensor(ids, device=logprobs.device)[:, None])[:, 0].double()
        looks = scores.looks(ids) if scores and reason == "stop" else None
        return Completion(
            key=request.key,
            index=request.first_index + j,
            seed=request.seed + j,
            text=completion_text(self._tokenizer, ids, self._end_ids, stop),
            token_ids=ids,
            logprob_sum=float(drawn.sum()),
            label_logprobs=None if looks is None else self._label_logprobs(inputs, ids, looks),
            prompt_tokens=inputs["input_ids"].shape[1],
            finish_reason=reason,
            token_logprobs=tuple(drawn.tolist()) if each else None,
        )

    def _label_logprobs(self, inputs: dict[str, Any], ids: Sequence[int], looks: Looks) -> dict[str, float]:
        def find(look: Look) -> Found:
            last = self._forced(inputs, [*ids[: looks.kept], *look.tail])[-1]
            return {token: float(last[token]) for token in look.ids}

        return looks.all(find)

    def _use(self, adapter: str) -> None:
        if not self._spec.adapters:
            return
        if adapter:
            self._model.enable_adapters()
            self._model.set_adapter(adapter)
        else:
            self._model.disable_adapters()

    def _forget(self) -> None:
        """The model keeps how far text was off after its last clip, and would put a prompt without one there, too."""
        self._model.model.rope_deltas = None

    def _must_live(self) -> None:
        if self.dead:
            raise EngineDead(f"this engine ({self._spec.model}) has failed or was closed; start a new process")


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
