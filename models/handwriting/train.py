"""The two phases that make the benchmark's checkpoints: `base` learns to see, `align` learns to reason from traces.

`base` stands in for a pretrained VLM: it can say which digits it sees and nothing else. `align` is DeepIntuit's stage 1
on real files. Each phase draws from its own subset of the handwriting.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from models import alignment
from models.alignment import Example
from models.frames import on_screen_indices, sample_array
from models.handwriting import clips, teacher, tiny
from models.trainer import OnMetric, TrainSpec

BATCH = 24  # clips a step

BASE = TrainSpec(steps=900, learning_rate=1.5e-3, warmup=50)
ALIGN = TrainSpec(steps=300, learning_rate=7e-4, warmup=20)

# The perception phase starts on large, clean digits: on full variation from the start it learns nothing visual at all.
_EASY_STEPS, _FULL_AT_STEP = 100, 400


def train_base(out: Path, seed: int, on_metric: OnMetric, spec: TrainSpec = BASE, checkpoints: Path | None = None):
    """Write the `base` checkpoint: perception only, on clips rendered in memory (no clip is seen twice)."""
    blank = out.with_name(f"{out.name}-untrained")
    tiny.make(blank, seed)
    alignment.align(blank, out, partial(base_examples, seed), spec, tiny.FRAMES.fps, BATCH, checkpoints, on_metric)


def base_examples(seed: int, step: int) -> list[Example]:
    """The perception examples of one step: the target is the observation alone."""
    difficulty = float(np.clip((step - _EASY_STEPS) / (_FULL_AT_STEP - _EASY_STEPS), 0.0, 1.0))
    scenes = [clips.scene(seed, "base", step * BATCH + i, difficulty) for i in range(BATCH)]
    return [Example(partial(_sampled, scene), tiny.PROMPT, teacher.observation(scene.digits)) for scene in scenes]


def _sampled(scene: clips.Scene) -> np.ndarray:
    """What `frames.sample` would give of the scene's file, but for the codec; renders only the frames that are kept."""
    chosen = on_screen_indices(scene.frames, tiny.FRAMES.count)
    return sample_array(clips.render(scene, chosen), tiny.FRAMES)


def train_aligned(
    base: Path,
    out: Path,
    examples: Sequence[Example],
    seed: int,
    on_metric: OnMetric,
    spec: TrainSpec = ALIGN,
    checkpoints: Path | None = None,
) -> None:
    """Write the `align` checkpoint: cold start on teacher traces."""
    batches: Callable[[int], list[Example]] = alignment.epochs(examples, BATCH, seed)
    alignment.align(base, out, batches, spec, tiny.FRAMES.fps, BATCH, checkpoints, on_metric)
