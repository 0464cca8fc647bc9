"""What label scores cost: none, gathered at every step, or looked up behind the completion. python -m benchmarks.label_cost

Turns alternate, ratios are of median throughputs. Short traces are those of the embedded model; long ones are drawn by an
untrained model, which ends anywhere and has no answers, so there the same looks are taken behind its last token.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from models.engines.promise import EngineSpec, Request, Sampling
from models.engines.vllm import VllmEngine
from models.handwriting import clips, tiny
from models.language.answers import encode
from models.language.label_scores import Choice, Looks, OfChoice, Scored
from models.video.clip import Clip

CHECKPOINT = Path(tiny.__file__).parent / "checkpoint"
LABELS = Choice((*clips.LABELS, *(f"class_{number}" for number in range(37))))
VIDEOS, ROLLOUTS, TURNS = 64, 4, 5


class _BehindAll:
    """The tree of the labels behind any completion, as if an answer began there."""

    def __init__(self, tokenizer: Any, scored: Choice) -> None:
        tag = encode(tokenizer, "<answer>")
        answered = OfChoice(tokenizer, scored.labels, frozenset())
        self.longest = answered.longest
        found = answered.looks((*tag, *encode(tokenizer, f"{scored.labels[0]}</answer>")))
        assert found is not None
        self._looks, self._read = found.looks, found.read

    def looks(self, token_ids: Sequence[int]) -> Looks:
        return Looks(len(token_ids), self._looks, self._read)


class Measured(VllmEngine):
    """every_step: tokens gathered with every token that is drawn, as a plain use of vLLM would."""

    every_step: list[int] | None = None

    def __init__(self, spec: EngineSpec, answers: bool) -> None:
        super().__init__(spec)
        if not answers:
            self._scores = lru_cache(partial(_BehindAll, self._tokenizer))

    def _parameters(self, **chosen: Any) -> Any:
        if self.every_step and chosen.get("logprobs") == 0:
            chosen = chosen | {"logprobs": None, "logprob_token_ids": self.every_step}
        return super()._parameters(**chosen)


def requests(engine: VllmEngine) -> Iterator[Request]:
    """Clips of noise."""
    prompt = engine.chat(tiny.PROMPT)
    for number in range(VIDEOS):
        pixels = np.random.default_rng(number).integers(0, 255, (8, 56, 56, 3), dtype=np.uint8)
        yield Request(f"clip{number}", prompt, (Clip.even(pixels, 4.0),), 0, ROLLOUTS, 100 * number)


def throughput(engine: VllmEngine, sampling: Sampling, scored: Scored) -> tuple[float, float, float]:
    """Tokens a second, tokens a trace, share of traces with label scores."""
    began = time.perf_counter()
    done = list(engine.generate(requests(engine), sampling, scored))
    tokens = sum(len(completion.token_ids) for completion in done)
    scored_share = sum(completion.label_logprobs is not None for completion in done) / len(done)
    return tokens / (time.perf_counter() - began), tokens / len(done), scored_share


def compare(model: Path, sampling: Sampling, answers: bool) -> str:
    """A row of the table. answers: whether the model's traces have any."""
    spec = EngineSpec("vllm", str(model), max_model_len=2048, max_num_seqs=64, kv_cache_bytes=1 << 29)
    engine = Measured(spec, answers)
    ids = list(range(100, 100 + 2 * len(LABELS.labels)))
    speeds: dict[str, list[float]] = {"none": [], "every step": [], "behind": []}
    throughput(engine, sampling, None)
    for _ in range(TURNS):
        for name, rates in speeds.items():
            engine.every_step = ids if name == "every step" else None
            rate, length, share = throughput(engine, sampling, LABELS if name == "behind" else None)
            rates.append(rate)
    engine.close()
    none, *others = (statistics.median(rates) for rates in speeds.values())
    ratios = " | ".join(f"{rate / none:.2f}" for rate in others)
    return f"| {length:.0f} | {share:.2f} | {none:,.0f} | {ratios} |"


def main() -> None:
    print("| tokens a trace | with scores | tokens/s without | gathered at every step | behind the completion |")
    print("|---|---|---|---|---|")
    print(compare(CHECKPOINT, Sampling(max_tokens=64), answers=True), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        tiny.make(Path(folder), seed=0)
        print(compare(Path(folder), Sampling(max_tokens=1024), answers=False), flush=True)


if __name__ == "__main__":
    main()
