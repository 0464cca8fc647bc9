"""What a calibrator that watches the video costs beside the rollouts that it reviews, on one engine: no Spark, no lake.

    python -m benchmarks.throughput [--clips 200] [--model FOLDER] [--tokens 64]

The embedded model writes K = 4 traces of each clip and then reviews them, as `calibrate.kind: vlm` would; decoding is part
of both, the start of decoders is not. The share holds for traces of the length that is printed: longer ones make rollouts
dearer by every token, and reviews by what reading them takes. --tokens has all traces be so long: an end that comes earlier
is not taken for one, as vLLM's own benchmarks do with `ignore_eos`.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from transformers import AutoTokenizer

from conf.sections import CONF, Settings
from conf.settings import load
from jobs.steps import recipes
from models.engines.asking import Task
from models.engines.process import open_engine
from models.engines.promise import EngineSpec, Request, Sampling, Scored
from models.engines.reviews import ReviewPlan, Reviews
from models.engines.rollouts import Rollouts
from models.engines.vllm import VllmEngine
from models.handwriting import clips
from models.language.codes import choose
from models.language.review import BEFORE, DEFAULT_TEMPLATE, review_text, said

K, SEED, WARM = 4, 7, 8


def review_plan(settings: Settings, folder: str) -> ReviewPlan:
    """Reviews by the model in a folder, as it would be asked in production."""
    labels = settings.labels.labels
    codes = choose(AutoTokenizer.from_pretrained(folder, local_files_only=True), len(labels))
    plan = recipes.plan(recipes.of_settings(settings), settings)
    return ReviewPlan(
        engine=recipes.engine_of(settings, folder, ""),
        frames=plan.frames,
        text=review_text(settings.labels.review or DEFAULT_TEMPLATE, labels, codes),
        before=BEFORE,
        codes=dict(zip(labels, codes, strict=True)),
        decode=plan.decode,
        limits=plan.limits,
        decoding=plan.decoding,
    )


class Lengthy(VllmEngine):
    """Draws `tokens` tokens of every rollout, whatever the model says of its end."""

    def __init__(self, spec: EngineSpec, tokens: int) -> None:
        super().__init__(spec)
        self._tokens = tokens

    def submit(self, request: Request, sampling: Sampling, scored: Scored = None, token_logprobs: bool = False) -> None:
        super().submit(request, replace(sampling, max_tokens=self._tokens, stop=()), scored, token_logprobs)

    def _parameters(self, **chosen: Any) -> Any:
        return super()._parameters(**chosen, ignore_eos=True)


def timed(work: Callable[[Callable[[], None]], Any]) -> tuple[Any, float]:
    """What it gives, and its seconds from the first decoded clip on: how long decoders take to start is no part of it."""
    began: list[float] = []
    made = work(lambda: began.append(time.monotonic()))
    return made, time.monotonic() - began[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=200)
    parser.add_argument("--model", metavar="FOLDER", help="another model than the embedded one, of the same task")
    parser.add_argument(
        "--tokens", type=int, metavar="N", help="of every trace; without it they end where the model says"
    )
    asked = parser.parse_args()
    settings = load(str(CONF / "handwriting.yaml"), [f"model.path={asked.model}"] if asked.model else [])
    plan = recipes.plan(recipes.of_settings(settings), settings)
    reviewing = review_plan(settings, settings.model.path)
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        clips.generate(data, "calibrate", asked.clips + WARM, SEED, workers=2)
        with (data / "labels.csv").open(newline="") as file:
            paths = [str(data / row["file"]) for row in csv.DictReader(file)]
        engine = Lengthy(plan.engine, asked.tokens) if asked.tokens else open_engine(plan.engine)

        def rollouts(some: list[str], begin: Callable[[], None]) -> dict[str, list[dict]]:
            found: dict[str, list[dict]] = {path: [] for path in some}
            for row in Rollouts(plan, engine, begin).rows(Task(path, path, tuple(range(K)), 0) for path in some):
                found[row["video_id"]].append(row)
            return found

        def reviews(traces: dict[str, list[dict]], begin: Callable[[], None]) -> int:
            tasks = (
                Task(path, path, tuple(range(K)), 0, said={trace["rollout_index"]: said(trace) for trace in own})
                for path, own in traces.items()
            )
            return sum(row["status"] == "ok" for row in Reviews(reviewing, engine, begin).rows(tasks))

        reviews(rollouts(paths[:WARM], lambda: None), lambda: None)
        traces, rolling = timed(lambda begin: rollouts(paths[WARM:], begin))
        ok, looking = timed(lambda begin: reviews(traces, begin))
    engine.close()
    number, made = K * asked.clips, [trace for own in traces.values() for trace in own]
    prompt, tokens = (np.mean([trace[name] for trace in made]) for name in ("prompt_tokens", "tokens"))
    if ok != number:
        raise RuntimeError(f"{number} reviews were asked for, {ok} came")
    print(
        f"{asked.clips} clips, K = {K}, {prompt:.0f} tokens a prompt, {tokens:.0f} a trace\n"
        f"rollouts: {rolling:.1f} s, {number / rolling:.1f}/s\n"
        f"reviews:  {looking:.1f} s, {number / looking:.1f}/s: {looking / rolling:.0%} of the rollouts' time"
    )


if __name__ == "__main__":
    main()
