"""What label scores cost: none, gathered at every step, or looked up behind the completion. python -m benchmarks.label_cost

Turns alternate, ratios are of median throughputs. Short traces are those of the embedded model on clips of its own kind,
with its three labels and with forty, most of which begin alike. Long ones are drawn by an untrained model, which has no
answers: there the looks of the forty are taken behind its last token.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from models.engines.promise import EngineSpec, Request, Sampling
from models.engines.vllm import VllmEngine
from models.handwriting import clips, tiny
from models.language.answers import encode
from models.language.label_scores import Choice, Looks, OfChoice, Scored
from models.video.container import Limits
from models.video.frames import sample

CHECKPOINT = Path(tiny.__file__).parent / "checkpoint"
THREE = Choice(clips.LABELS)
FORTY = Choice((*clips.LABELS, *(f"class_{number}" for number in range(37))))
ROLLOUTS, TURNS = 4, 5
LONG = 500  # tokens that a long trace has at least


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

    def __init__(self, spec: EngineSpec, long: bool) -> None:
        super().__init__(spec)
        self._long = long
        if long:
            self._scores = lru_cache(partial(_BehindAll, self._tokenizer))

    def _parameters(self, **chosen: Any) -> Any:
        if chosen.get("logprobs") == 0:
            chosen = chosen | ({"min_tokens": LONG} if self._long else {})
            if self.every_step:
                chosen = chosen | {"logprobs": None, "logprob_token_ids": self.every_step}
        return super()._parameters(**chosen)


def requests(engine: VllmEngine, files: Sequence[Path]) -> Iterator[Request]:
    prompt = engine.chat(tiny.PROMPT)
    for number, path in enumerate(files):
        clip = sample(path.read_bytes(), tiny.FRAMES, Limits())
        yield Request(path.stem, prompt, (clip,), 0, ROLLOUTS, 100 * number)


def throughput(
    engine: VllmEngine, asked: Sequence[Request], sampling: Sampling, scored: Scored
) -> tuple[float, float, float]:
    """Tokens a second, tokens a trace, share of traces with label scores."""
    began = time.perf_counter()
    done = list(engine.generate(iter(asked), sampling, scored))
    tokens = sum(len(completion.token_ids) for completion in done)
    scored_share = sum(completion.label_logprobs is not None for completion in done) / len(done)
    return tokens / (time.perf_counter() - began), tokens / len(done), scored_share


def compare(model: Path, files: Sequence[Path], labels: Choice, sampling: Sampling, long: bool = False) -> str:
    """A row of the table."""
    spec = EngineSpec("vllm", str(model), max_model_len=2048, max_num_seqs=64, kv_cache_bytes=1 << 29)
    engine = Measured(spec, long)
    asked = list(requests(engine, files))
    ids = list(range(100, 100 + 2 * len(labels.labels)))
    speeds: dict[str, list[float]] = {"none": [], "every step": [], "behind": []}
    throughput(engine, asked, sampling, None)
    for _ in range(TURNS):
        for name, rates in speeds.items():
            engine.every_step = ids if name == "every step" else None
            rate, length, share = throughput(engine, asked, sampling, labels if name == "behind" else None)
            rates.append(rate)
    engine.close()
    none, *others = (statistics.median(rates) for rates in speeds.values())
    ratios = " | ".join(f"{rate / none:.2f}" for rate in others)
    return f"| {len(labels.labels)} | {length:.0f} | {share:.2f} | {none:,.0f} | {ratios} |"


def main() -> None:
    print(
        "| labels | tokens a trace | with scores | tokens/s without | gathered at every step | behind the completion |"
    )
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        files = clips.generate(Path(folder), "test", 64, seed=5)
        for labels in (THREE, FORTY):
            print(compare(CHECKPOINT, files, labels, Sampling(max_tokens=64)), flush=True)
        untrained = Path(folder, "untrained")
        tiny.make(untrained, seed=0)
        print(compare(untrained, files[:8], FORTY, Sampling(max_tokens=1024), long=True), flush=True)


if __name__ == "__main__":
    main()
