"""vLLM in this process, fed one step at a time: the batch is refilled while it runs and never drains between requests.

In process, because an engine process of its own outlives a killed Spark worker and keeps the GPU. One request with n
samples instead of n requests: one prefill and one encoding of the frames for all rollouts of a video.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any

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
from models.engines.vllm_start import prepare_environment, start
from models.engines.weights import whole
from models.engines.witness import NAMED, Testimony, Witness
from models.language.answers import completion_text, encode
from models.language.codes import code_ids
from models.language.label_scores import Found, LabelScores, Look, Looks, reader
from models.language.prompts import CAME_WITH, chat
from models.video.processors import check_processors, presented

_IDS_AT_ONCE = 128  # log-probabilities of so many chosen tokens in one step: vLLM's own bound

engines_built = 0  # in this process; tests look whether an engine was reused


class VllmEngine(Streaming):
    """See `models.engines.promise.Engine`."""

    name = "vllm"

    def __init__(self, spec: EngineSpec) -> None:
        global engines_built
        prepare_environment()
        import vllm
        from transformers import AutoProcessor

        self.version: str = vllm.__version__
        self.dead = False
        self._spec, self._count = spec, 0
        self._running: dict[str, _Running] = {}
        self._processor = AutoProcessor.from_pretrained(spec.model)
        check_processors(spec.model, self._processor)
        self._tokenizer = self._processor.tokenizer
        self._witness = Witness()
        self._engine = start(spec, self._witness)
        self._end_ids = _end_ids(self._engine, self._tokenizer)
        self._scores = lru_cache(maxsize=8)(partial(reader, self._processor, end_ids=self._end_ids))
        engines_built += 1

    def chat(self, user_text: str, clips: int = 1, said: str = "", before: str = CAME_WITH) -> str:
        return chat(self._processor, user_text, clips, said, before)

    @property
    def unfinished(self) -> int:
        return self._engine.get_num_unfinished_requests()

    @property
    def full(self) -> bool:
        weights = [running.weight for running in self._running.values()]
        return bool(weights) and sum(weights) >= self._spec.max_num_seqs + 2 * max(weights)

    def submit(self, request: Request, sampling: Sampling, scored: Scored = None, token_logprobs: bool = False) -> None:
        self._must_live()
        scores = self._scores(scored) if scored else None
        prompt = self._rendered(request)
        check_room(
            sampling.max_tokens + (scores.longest + 1 if scores else 0),
            len(prompt["prompt_token_ids"]),
            self._spec.max_model_len,
        )
        greedy = sampling.temperature == 0
        parameters = self._parameters(
            n=1 if greedy else request.n,  # greedy siblings are copies of one
            temperature=sampling.temperature,
            top_p=1.0 if greedy else sampling.top_p,
            max_tokens=sampling.max_tokens,
            stop=list(sampling.stop) or None,
            include_stop_str_in_output=True,
            seed=None if greedy else request.seed,
            logprobs=0,
            detokenize=bool(sampling.stop),  # only to look for stop strings: the text is made once, at the end
        )
        done = partial(self._completed, request, sampling, scores, token_logprobs, prompt)
        self._add(request, prompt, parameters, request.n, done, watched=scores is not None)

    def ask(self, question: Question, codes: Sequence[str]) -> None:
        self._must_live()
        ids = code_ids(self._tokenizer, codes)
        prompt = self._rendered(question)
        tokens, tails = len(prompt["prompt_token_ids"]), [encode(self._tokenizer, tail) for tail in question.tails]
        kept, error = with_room(tails, tokens, self._spec.max_model_len)

        def done(found: list[Found], cached: int) -> Iterator[Classified]:
            logprobs = spread([[at[token] for token in ids] for at in found], kept, len(tails))
            yield Classified(question.key, logprobs, tokens, cached, error)

        self._look(question, prompt, (), [Look(tails[number], ids) for number in kept], done)

    def step(self) -> list[Completion | Classified]:
        self._must_live()
        try:
            outputs = [output for output in self._engine.step() if output.finished]
        except Exception as error:
            raise self._died("a step", error) from error
        return [result for output in outputs for result in self._running.pop(output.request_id).done(output)]

    def abandon(self) -> None:
        if self._running and not self.dead:
            self._engine.abort_request(list(self._running))
            self._running.clear()
            self._witness.forget_all()
            try:
                while self._engine.has_unfinished_requests():
                    self._engine.step()
            except Exception as error:
                raise self._died("a step", error) from error

    def replace_weights(self, tensors: Iterable[tuple[str, Any]]) -> None:
        """See promise.Engine; forgotten are the prefix cache and the encoded clips."""
        self._must_live()
        if self._running:
            raise ValueError("new weights can be taken while nothing runs: step until nothing is unfinished")
        self.changed = True
        try:
            new = whole(tensors, self._spec.model)
            self._engine.collective_rpc("reload_weights", kwargs={"weights_iterator": new})
            if not self._engine.reset_prefix_cache():
                raise RuntimeError("the prefix cache is in use and holds what the old weights computed")
            self._engine.reset_encoder_cache()
        except Exception as error:
            raise self._died("replacing the weights", error) from error

    def close(self) -> None:
        self.dead = True
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.engine_core.shutdown()

    def _rendered(self, item: Request | Question) -> dict[str, Any]:
        """The prompt in tokens with its clips prepared, once for all that is asked of it."""
        from vllm.exceptions import VLLMClientError
        from vllm.renderers.inputs.preprocess import parse_model_prompt

        check(item, self._processor, self._spec)
        kind = "prompt" if isinstance(item.prompt, str) else "prompt_token_ids"
        prompt: dict[str, Any] = {kind: item.prompt if isinstance(item.prompt, str) else list(item.prompt)}
        if item.clips:
            shown = [presented(clip) for clip in item.clips]
            videos = [
                (frames, clock | {"video_backend": "numpy", "do_sample_frames": False}) for frames, clock in shown
            ]
            prompt["multi_modal_data"] = {"video": videos}
        renderer = self._engine.renderer
        try:
            (rendered,) = renderer.render_cmpl([parse_model_prompt(self._engine.model_config, prompt)])
        except (ValueError, TypeError, VLLMClientError) as error:
            raise RequestRefused(str(error)) from error
        except Exception as error:
            raise self._died(f"preparing the request {item.key!r}", error) from error
        return rendered

    def _parameters(self, **chosen: Any) -> Any:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        # Finished ones alone: else some of the n samples may never come back.
        return SamplingParams(flat_logprobs=True, output_kind=RequestOutputKind.FINAL_ONLY, **chosen)

    def _add(
        self,
        item: Request | Question,
        prompt: dict[str, Any],
        parameters: Any,
        weight: int,
        done: _Done,
        watched: bool = False,
    ) -> None:
        from vllm.exceptions import VLLMClientError

        self._count += 1
        name = f"request-{self._count}"
        if watched:
            parameters.extra_args = {NAMED: name}
        try:
            self._engine.add_request(name, prompt, parameters, lora_request=self._lora(item.adapter))
        except (ValueError, TypeError, VLLMClientError) as error:
            raise RequestRefused(str(error)) from error
        except Exception as error:
            raise self._died(f"taking in the request {item.key!r}", error) from error
        self._running[name] = _Running(weight, done)

    def _look(
        self,
        item: Request | Question,
        prompt: dict[str, Any],
        kept: Sequence[int],
        looks: Sequence[Look],
        finished: Callable[[list[Found], int], Iterator[Completion | Classified]],
    ) -> None:
        """One step behind each tail; `finished` takes what each found, and how many tokens were there already."""
        found: list[dict[int, float]] = [{} for _ in looks]
        passes = [
            (number, look.tail, look.ids[at : at + _IDS_AT_ONCE])
            for number, look in enumerate(looks)
            for at in range(0, len(look.ids), _IDS_AT_ONCE)
        ]
        left, cached = len(passes), 0

        def done(number: int, output: Any) -> Iterator[Completion | Classified]:
            nonlocal left, cached
            found[number] |= _at_once(output.outputs[0])
            left, cached = left - 1, cached + (output.num_cached_tokens or 0)
            if not left:
                yield from finished(list[Found](found), cached)

        for number, tail, ids in passes:
            tokens = [*prompt["prompt_token_ids"], *kept, *tail]
            parameters = self._parameters(temperature=0.0, max_tokens=1, logprob_token_ids=list(ids), detokenize=False)
            # The text, where there is one, is of the prompt alone.
            longer = {name: value for name, value in prompt.items() if name != "prompt"} | {"prompt_token_ids": tokens}
            self._add(item, longer, parameters, 1, partial(done, number))

    def _completed(
        self,
        request: Request,
        sampling: Sampling,
        scores: LabelScores | None,
        each: bool,
        prompt: dict[str, Any],
        output: Any,
    ) -> Iterator[Completion | Classified]:
        """The completions of a request, but for those behind which something is to be asked first."""
        greedy = sampling.temperature == 0
        for j in range(request.n):
            sample = output.outputs[0 if greedy else j]
            ids = tuple(sample.token_ids)
            known = sample.finish_reason in ("stop", "length")
            completion = Completion(
                key=request.key,
                index=request.first_index + j,
                seed=request.seed + j,
                text=completion_text(self._tokenizer, ids, self._end_ids, sampling.stop) if known else "",
                token_ids=ids,
                logprob_sum=float(sample.cumulative_logprob),
                label_logprobs=None,
                prompt_tokens=len(prompt["prompt_token_ids"]),
                finish_reason=sample.finish_reason if known else "error",
                error=None if known else f"vLLM ended the request: {sample.finish_reason}",
                token_logprobs=_token_logprobs(sample) if each else None,
            )
            looks = scores.looks(ids) if scores and completion.finish_reason == "stop" else None
            if looks is None:
                yield completion
            else:
                seen = self._witness.testimony((output.request_id, None if greedy else completion.seed), ids)
                yield from self._scored(request, prompt, completion, looks, seen)
        self._witness.forget(output.request_id)

    def _scored(
        self,
        request: Request,
        prompt: dict[str, Any],
        completion: Completion,
        looks: Looks,
        seen: Testimony,
        found: list[Found] | None = None,
    ) -> Iterator[Completion | Classified]:
        """The completion with its label scores, as soon as they take no further step of the model; else that is asked for.

        found: by the looks of the last round, None before the first.
        """
        try:
            while True:
                wanted = looks.rounds.send(found)  # type: ignore[arg-type]  # None begins
                answers = [seen.find(looks.kept, look) for look in wanted]
                found = [answer for answer in answers if answer is not None]
                if len(found) < len(wanted):
                    break
        except StopIteration as end:
            yield replace(completion, label_logprobs=end.value)
            return
        left = [look for look, answer in zip(wanted, answers, strict=True) if answer is None]

        def done(asked: list[Found], _: int) -> Iterator[Completion | Classified]:
            rest = iter(asked)
            whole = [next(rest) if answer is None else answer for answer in answers]
            yield from self._scored(request, prompt, completion, looks, seen, whole)

        self._look(request, prompt, completion.token_ids[: looks.kept], left, done)

    def _lora(self, name: str) -> Any:
        if not name:
            return None
        from vllm.lora.request import LoRARequest

        numbered = enumerate(self._spec.adapters, start=1)
        number, adapter = next((number, adapter) for number, adapter in numbered if adapter.name == name)
        return LoRARequest(adapter.name, number, adapter.folder)

    def _must_live(self) -> None:
        if self.dead:
            raise EngineDead(f"this engine ({self._spec.model}) has failed or was closed; start a new process")

    def _died(self, doing: str, error: Exception) -> EngineDead:
        self.dead = True  # a further call was seen to hang for ever
        return EngineDead(f"vLLM failed in {doing}: {type(error).__name__}: {error}")


_Done = Callable[[Any], Iterator[Completion | Classified]]


@dataclass(frozen=True)
class _Running:
    """What vLLM has under way: how many sequences, and what is made of its output."""

    weight: int
    done: _Done


def _token_logprobs(sample: Any) -> tuple[float, ...]:
    """Of what was drawn at each position: it comes first there, whatever else was asked for."""
    flat = sample.logprobs
    return tuple(float(flat.logprobs[start]) for start in flat.start_indices)


def _at_once(sample: Any) -> dict[int, float]:
    """Log-probabilities of the tokens that were asked for at the only position."""
    flat = sample.logprobs
    return {int(token): float(value) for token, value in zip(flat.token_ids, flat.logprobs, strict=True)}


def _end_ids(engine: Any, tokenizer: Any) -> frozenset[int]:
    config = engine.model_config.try_get_generation_config()
    ends = config.get("eos_token_id", tokenizer.eos_token_id)
    return frozenset(ends if isinstance(ends, list) else [ends]) | {tokenizer.eos_token_id}
