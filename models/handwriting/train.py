"""The phase before stage 1: `base` learns to see.

It stands in for a pretrained VLM: it can say which digits it sees and nothing else. Everything after it is the job
`align`, on real files of another subset of the handwriting.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from models.handwriting import teacher, tiny
from models.handwriting.scenes import Scene, scene
from models.handwriting.sight import Sight, SightMicro, sampled, sight_batch, sight_loss
from models.training import alignment
from models.training.ahead import Ahead
from models.training.alignment import Example
from models.training.model import load
from models.training.trainer import OnMetric, TrainSpec, train

SIGHT_BATCH, BATCH = 16, 24  # clips a step: of first sight, and of the whole model

SIGHT = TrainSpec(steps=900, learning_rate=2e-3, warmup=30)
BASE = TrainSpec(steps=350, learning_rate=1.5e-3, warmup=30)

_EASY_STEPS, _FULL_AT_STEP = 50, 300  # first sight begins on large, clean digits and ends on the full variation


def train_base(
    out: Path,
    seed: int,
    on_metric: OnMetric,
    sight: TrainSpec,
    base: TrainSpec,
    checkpoints: Path | None = None,
) -> None:
    """Write the `base` checkpoint: perception only, on clips rendered in memory (no clip is seen twice).

    First the vision tower alone learns the digits (metrics `sight/...`), then the whole model learns to say them.
    """
    blank, seeing = (out.with_name(f"{out.name}-{name}") for name in ("untrained", "seeing"))
    tiny.make(blank, seed)
    model, processor = load(blank)
    torch.manual_seed(seed)

    def batches(step: int) -> list[SightMicro]:
        difficulty = float(np.clip((step - _EASY_STEPS) / (_FULL_AT_STEP - _EASY_STEPS), 0.0, 1.0))
        scenes = _scenes(seed, step * SIGHT_BATCH, SIGHT_BATCH, difficulty)
        return [sight_batch(processor, scenes, [sampled(drawn) for drawn in scenes])]

    def first_sight(name: str, step: int, value: float) -> None:
        on_metric(f"sight/{name}", step, value)

    kept = checkpoints and checkpoints / "sight"
    with Ahead(batches, sight.steps) as ahead:
        train(Sight(model), ahead, sight_loss, sight, kept, first_sight, {"seed": seed})
    model.save_pretrained(seeing)
    processor.save_pretrained(seeing)

    def examples(step: int) -> list[Example]:
        scenes = _scenes(seed, sight.steps * SIGHT_BATCH + step * BATCH, BATCH, 1.0)
        return [Example(sampled(drawn), tiny.PROMPT, teacher.observation(drawn.digits)) for drawn in scenes]

    kept = checkpoints and checkpoints / "base"
    alignment.align(seeing, out, examples, base, BATCH, kept, on_metric, {"seed": seed})


def _scenes(seed: int, first: int, count: int, difficulty: float) -> list[Scene]:
    return [scene(seed, "base", index, difficulty) for index in range(first, first + count)]
