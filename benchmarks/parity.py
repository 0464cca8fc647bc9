"""Do the serving engine and the reference engine compute the same? python -m benchmarks.parity

For both model families and clips of many shapes, on tiny untrained checkpoints: greedy completions token by token, and the
log-probability of every token of sampled rollouts, which the reference engine computes with the trainer's positions.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import families
from models.engines.promise import Completion, Engine, EngineSpec, Request, Sampling
from models.engines.transformers import TransformersEngine
from models.engines.vllm import VllmEngine
from models.video.clip import Clip

PROMPT = "Four digits: rising, falling or mixed?"


@dataclass(frozen=True)
class Shape:
    """A clip: frames, and height and width in merged patches (28 pixels of Qwen2.5-VL, 32 of Qwen3-VL)."""

    frames: int
    rows: int
    columns: int


SHAPES = (
    Shape(8, 4, 4),
    Shape(32, 2, 2),  # longer than wide
    Shape(7, 3, 5),  # odd all around
    Shape(1, 4, 3),
    Shape(64, 1, 2),
    Shape(32, 16, 16),  # 448 pixels a side for Qwen2.5-VL, as in conf/prod.yaml
)


@dataclass(frozen=True)
class Found:
    """What came of one shape: prompt_tokens; how many greedy tokens and of those how many agree; the largest difference of
    any log-probability, greedy and sampled, in nats; how many sampled tokens there were."""

    prompt_tokens: int
    greedy_tokens: int
    agreeing: int
    greedy_difference: float
    sampled_tokens: int
    sampled_difference: float


def requests(engine: Engine, family: str, shape: Shape, clips: int, n: int) -> Iterator[Request]:
    """Clips of noise whose pictures come up at odd moments, each with n rollouts."""
    prompt, side = engine.chat(PROMPT), families.PATCH[family] * families.MERGE
    for clip in range(clips):
        pixels = (shape.frames, shape.rows * side, shape.columns * side, 3)
        rng = np.random.default_rng(clip)
        frames = rng.integers(0, 255, pixels, dtype=np.uint8)
        gaps = rng.uniform(0.2, 1.2, shape.frames + 1)  # seconds
        times = np.cumsum(gaps) - gaps[0]
        yield Request(f"clip{clip}", prompt, (Clip(frames, times[:-1].tolist(), float(times[-1])),), 0, n, 1000 * clip)


def compare(
    family: str,
    shape: Shape,
    serving: Engine,
    reference: TransformersEngine,
    clips: int = 2,
    n: int = 4,
    tokens: int = 32,
) -> Found:
    """Greedy completions of both engines, and sampled ones of the serving engine as the reference scores them."""
    greedy = Sampling(temperature=0.0, max_tokens=tokens)
    both = [_run(engine, requests(engine, family, shape, clips, 1), greedy) for engine in (serving, reference)]
    pairs = [(both[0][key], both[1][key]) for key in both[0]]
    sampled = _run(serving, requests(serving, family, shape, clips, n), Sampling(max_tokens=tokens))
    asked = {request.key: request for request in requests(serving, family, shape, clips, n)}
    scored = [(done, reference.score(asked[done.key], done.token_ids)) for done in sampled.values()]
    return Found(
        prompt_tokens=pairs[0][0].prompt_tokens,
        greedy_tokens=sum(max(len(left.token_ids), len(right.token_ids)) for left, right in pairs),
        agreeing=sum(a == b for left, right in pairs for a, b in zip(left.token_ids, right.token_ids, strict=False)),
        greedy_difference=_difference(pairs),
        sampled_tokens=sum(len(done.token_ids) for done in sampled.values()),
        sampled_difference=_difference(scored),
    )


def _run(engine: Engine, asked: Iterator[Request], sampling: Sampling) -> dict[tuple[str, int], Completion]:
    return {(done.key, done.index): done for done in engine.generate(asked, sampling, token_logprobs=True)}


def _difference(pairs: Sequence[tuple[Completion, Completion]]) -> float:
    """The largest one; infinite where one of them was refused."""
    each = [
        abs(a - b)
        for left, right in pairs
        for a, b in zip(left.token_logprobs or (np.inf,), right.token_logprobs or (-np.inf,), strict=False)
    ]
    return max(each)


def engines(folder: Path, **more: Any) -> tuple[VllmEngine, TransformersEngine]:
    """Both of a checkpoint, in float32; more: fields of the spec."""
    spec = EngineSpec("vllm", str(folder), max_model_len=8192, max_num_seqs=16, kv_cache_bytes=1 << 28, **more)
    return VllmEngine(spec), TransformersEngine(replace(spec, kind="transformers"))


def main() -> None:
    print(
        "| family | frames x rows x columns | prompt tokens | greedy tokens alike | difference | sampled | difference |"
    )
    print("|---|---|---|---|---|---|---|")
    for family in families.FAMILIES:
        with tempfile.TemporaryDirectory() as folder:
            serving, reference = engines(families.make(Path(folder), family))
            for shape in SHAPES:
                found = compare(family, shape, serving, reference)
                print(
                    f"| {family} | {shape.frames} x {shape.rows} x {shape.columns} | {found.prompt_tokens} "
                    f"| {found.agreeing} of {found.greedy_tokens} | {found.greedy_difference:.1e} "
                    f"| {found.sampled_tokens} | {found.sampled_difference:.1e} |",
                    flush=True,
                )
            serving.close()
            reference.close()


if __name__ == "__main__":
    main()
