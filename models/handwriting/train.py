"""The phase before stage 1: `base` learns to read, to see, and to say what it sees.

It stands in for a pretrained VLM: it quotes text, orders digits and says which it sees, and has never reasoned from what it
sees to a label. Everything after it is the job `align`, on real files of another subset of the handwriting.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models.handwriting import teacher, tiny
from models.handwriting.reading import Reading, ReadingMicro, reading_batch, reading_loss, text
from models.handwriting.scenes import Scene, scene
from models.handwriting.sight import Sight, SightMicro, sampled, sight_batch, sight_loss
from models.training import alignment
from models.training.ahead import Ahead
from models.training.alignment import Example
from models.training.model import load
from models.training.trainer import OnMetric, TrainSpec, train

READING_BATCH, READING_LENGTH = 32, 64  # texts a step of first reading, and their tokens
SIGHT_BATCH, BATCH = 16, 24  # clips a step: of first sight, and of the whole model
_READ_ON = 4  # of which so many go with a text that has nothing to do with them, so that reading is not forgotten
_PROMPT, _LENGTH = "Go on.", 24  # of such a text, in characters

READING = TrainSpec(steps=800, learning_rate=2e-3, warmup=50)
SIGHT = TrainSpec(steps=900, learning_rate=2e-3, warmup=30)
BASE = TrainSpec(steps=850, learning_rate=1.5e-3, warmup=30)

_EASY_STEPS, _FULL_AT_STEP = 50, 300  # first sight begins on large, clean digits and ends on the full variation


def train_base(
    out: Path,
    seed: int,
    on_metric: Callable[[str, int], OnMetric],
    reading: TrainSpec,
    sight: TrainSpec,
    base: TrainSpec,
    checkpoints: Path | None = None,
) -> None:
    """Write the `base` checkpoint: no reasoning, on texts and clips made in memory (none comes twice).

    First the language model alone learns to read and the vision tower alone to see, then the whole model learns to say what
    it sees. on_metric: of a phase (reading, sight, saying) that takes so many steps.
    """
    blank, seeing = (out.with_name(f"{out.name}-{name}") for name in ("untrained", "seeing"))
    tiny.make(blank, seed)
    model, processor = load(blank)
    torch.manual_seed(seed)
    _read(model, processor, seed, reading, checkpoints and checkpoints / "reading", on_metric("reading", reading.steps))
    _see(model, processor, seed, sight, checkpoints and checkpoints / "sight", on_metric("sight", sight.steps))
    model.save_pretrained(seeing)
    processor.save_pretrained(seeing)

    def examples(step: int) -> list[Example]:
        scenes = _scenes(seed, sight.steps * SIGHT_BATCH + step * BATCH, BATCH, 1.0)
        said = [(tiny.PROMPT, teacher.observation(drawn.digits)) for drawn in scenes]
        said[:_READ_ON] = [(_PROMPT, text((seed, step, n), _LENGTH)) for n in range(len(scenes[:_READ_ON]))]
        return [Example(sampled(drawn), *both) for drawn, both in zip(scenes, said, strict=True)]

    kept = checkpoints and checkpoints / "base"
    alignment.align(seeing, out, examples, base, BATCH, kept, on_metric("saying", base.steps), {"seed": seed})


def _read(
    model: Any, processor: Any, seed: int, spec: TrainSpec, checkpoints: Path | None, on_metric: OnMetric
) -> None:
    def batches(step: int) -> list[ReadingMicro]:
        seeds = [(seed, index) for index in range(step * READING_BATCH, (step + 1) * READING_BATCH)]
        return [reading_batch(processor.tokenizer, seeds, READING_LENGTH)]

    with Ahead(batches, spec.steps) as ahead:
        train(Reading(model), ahead, reading_loss, spec, checkpoints, on_metric, {"seed": seed})


def _see(model: Any, processor: Any, seed: int, spec: TrainSpec, checkpoints: Path | None, on_metric: OnMetric) -> None:
    def batches(step: int) -> list[SightMicro]:
        difficulty = float(np.clip((step - _EASY_STEPS) / (_FULL_AT_STEP - _EASY_STEPS), 0.0, 1.0))
        scenes = _scenes(seed, step * SIGHT_BATCH, SIGHT_BATCH, difficulty)
        return [sight_batch(processor, scenes, [sampled(drawn) for drawn in scenes])]

    with Ahead(batches, spec.steps) as ahead:
        train(Sight(model), ahead, sight_loss, spec, checkpoints, on_metric, {"seed": seed})


def _scenes(seed: int, first: int, count: int, difficulty: float) -> list[Scene]:
    return [scene(seed, "base", index, difficulty) for index in range(first, first + count)]
