"""What label scores cost: none, gathered at every step, or seen and looked up. python -m benchmarks.label_cost

Ratios are medians over turns in which every mode runs once, in random order; `none again` shows the noise. Traces are those
of the embedded model on clips of its own kind, with its three labels and with forty, most of which begin alike; long ones
are of the same model, which may not end before LONG tokens and goes on with one trace after another until then.
`only looked up` is what an engine pays that cannot see what passes.
"""

from __future__ import annotations

import random
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from operator import truediv
from pathlib import Path
from typing import Any

from models.engines.promise import EngineSpec, Request, Sampling
from models.engines.vllm import VllmEngine
from models.engines.witness import Witness
from models.handwriting import clips, scenes, tiny
from models.language.label_scores import Choice, Scored
from models.video.container import Limits
from models.video.frames import sample

CHECKPOINT = Path(tiny.__file__).parent / "checkpoint"
THREE = Choice(scenes.LABELS)
FORTY = Choice((*scenes.LABELS, *(f"class_{number}" for number in range(37))))
MODES = ("none", "none again", "gathered at every step", "only looked up", "seen or looked up")
ROLLOUTS, TURNS = 4, 15
LONG = 300  # tokens that a long trace has at least


class Measured(VllmEngine):
    """every_step: tokens gathered with every token that is drawn, as a plain use of vLLM would."""

    every_step: list[int] | None = None

    def __init__(self, spec: EngineSpec, least: int) -> None:
        super().__init__(spec)
        self._least = least

    def _parameters(self, **chosen: Any) -> Any:
        if chosen.get("logprobs") == 0:
            chosen = chosen | {"min_tokens": self._least}
            if self.every_step:
                chosen = chosen | {"logprobs": None, "logprob_token_ids": self.every_step}
        return super()._parameters(**chosen)


def requests(engine: VllmEngine, files: Sequence[Path]) -> Iterator[Request]:
    prompt = engine.chat(tiny.PROMPT)
    for number, path in enumerate(files):
        clip = sample(path.read_bytes(), tiny.FRAMES, Limits())
        yield Request(path.stem, prompt, (clip,), 0, ROLLOUTS, 100 * number)


def throughput(engine: VllmEngine, asked: Sequence[Request], sampling: Sampling, scored: Scored) -> tuple[float, float]:
    """Tokens a second, tokens a trace. Most traces have to have label scores, where they were asked for."""
    began = time.perf_counter()
    done = list(engine.generate(iter(asked), sampling, scored))
    tokens = sum(len(completion.token_ids) for completion in done)
    with_scores = sum(completion.label_logprobs is not None for completion in done)
    if scored and with_scores < 0.9 * len(done):
        raise RuntimeError(f"only {with_scores} of {len(done)} traces have label scores: this measures something else")
    return tokens / (time.perf_counter() - began), tokens / len(done)


def compare(files: Sequence[Path], labels: Choice, sampling: Sampling, least: int = 0) -> str:
    """A row of the table."""
    spec = EngineSpec("vllm", str(CHECKPOINT), max_model_len=2048, max_num_seqs=64, kv_cache_bytes=1 << 29)
    engine = Measured(spec, least)
    asked = list(requests(engine, files))
    seeing, blind = engine._witness, Blind()
    gathered = list(range(100, 100 + 2 * len(labels.labels)))
    throughput(engine, asked, sampling, labels)
    order, speeds = random.Random(0), {mode: list[float]() for mode in MODES}
    for _ in range(TURNS):
        for mode in order.sample(MODES, len(MODES)):
            engine.every_step = gathered if mode == "gathered at every step" else None
            engine._witness = blind if mode == "only looked up" else seeing
            scored = labels if mode in ("only looked up", "seen or looked up") else None
            rate, length = throughput(engine, asked, sampling, scored)
            speeds[mode].append(rate)
    engine.close()
    none = speeds["none"]
    ratios = [statistics.median(map(truediv, speeds[mode], none)) for mode in MODES[1:]]
    cells = [f"{len(labels.labels)}", f"{length:.0f}", f"{statistics.median(none):,.0f}", *(f"{r:.2f}" for r in ratios)]
    return f"| {' | '.join(cells)} |"


class Blind(Witness):
    """Sees nothing, and learns nothing of what it is asked."""

    def _want(self, tail: tuple[int, ...], ids: Sequence[int]) -> None: ...


def main() -> None:
    print(f"| labels | tokens a trace | tokens/s, {' | '.join(MODES)} |")
    print("|---" * (2 + len(MODES)) + "|")
    with tempfile.TemporaryDirectory() as folder:
        files = clips.generate(Path(folder), "test", 64, seed=5)
        for labels in (THREE, FORTY):
            print(compare(files, labels, Sampling(max_tokens=64)), flush=True)
        for labels in (THREE, FORTY):
            print(compare(files[:12], labels, Sampling(max_tokens=640), least=LONG), flush=True)


if __name__ == "__main__":
    main()
