"""Make the checkpoint that travels with the package, from nothing, on two cores in about 15 minutes.

    python -m models.handwriting.make --out models/handwriting/checkpoint --seed 0

Generates the clips, trains `base` and then `align` on them, measures the result on unseen handwriting and writes it down
beside the weights in TRAINING.md. The work folder keeps clips, checkpoints and metrics by seed: a run that was cut short
goes on where it stopped. Delete it after changing the recipe.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
import transformers

from models.alignment import Example
from models.frame_cache import FrameCache
from models.frames import Limits
from models.handwriting import clips, evaluate, teacher, tiny, train

ALIGN_CLIPS, TEST_CLIPS = 1200, 300
_WORKERS = 2
_CACHE_BYTES = 1 << 30


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the checkpoint; what is in it is replaced")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, default=Path("build/handwriting"), help="clips, checkpoints and metrics")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="1 where others use the cores too")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    make(asked.out, asked.seed, asked.work)


def make(out: Path, seed: int, work: Path) -> evaluate.Figures:
    """Everything from clips to TRAINING.md; returns the figures on the test clips."""
    work = work / f"seed-{seed}"
    seconds, last = {}, time.perf_counter()

    def lap(name: str) -> None:
        nonlocal last
        seconds[name], last = round(time.perf_counter() - last), time.perf_counter()
        print(f"{name}: {seconds[name]} s", flush=True)

    aligned = clips.generate(work / "clips", "align", ALIGN_CLIPS, seed, workers=_WORKERS)
    tested = clips.generate(work / "clips", "test", TEST_CLIPS, seed, workers=_WORKERS)
    lap("clips")
    with (work / "metrics.jsonl").open("a", buffering=1) as metrics:

        def on_metric(name: str, step: int, value: float) -> None:
            metrics.write(json.dumps({"name": name, "step": step, "value": value}) + "\n")
            if name.endswith("loss") and step % 50 == 0:
                print(f"{name} at step {step}: {value:.3f}", flush=True)

        kept = work / "checkpoints"
        train.train_base(work / "base", seed, on_metric, train.SIGHT, train.BASE, kept)
        lap("base")
        learned = examples(aligned, seed, work / "frames")
        train.train_aligned(
            work / "base", work / "aligned", learned, seed, on_metric, train.ALIGN, checkpoints=kept / "align"
        )
        lap("align")
    figures = {
        name: evaluate.evaluate(work / name, tested, [clips.scene(seed, "test", n).digits for n in range(TEST_CLIPS)])
        for name in ("base", "aligned")
    }
    lap("evaluation")
    if out.exists():
        shutil.rmtree(out)
    shutil.copytree(work / "aligned", out)
    (out / "TRAINING.md").write_text(_report(out, seed, seconds, figures))
    return figures["aligned"]


def examples(files: Sequence[Path], seed: int, cache: Path) -> list[Example]:
    """Teacher traces for generated clips 0, 1, 2 ... of the align subset, their frames from the real files."""
    frames = FrameCache(cache, tiny.FRAMES, Limits(), _CACHE_BYTES)
    return [
        Example(
            partial(frames.load, path.stem, path.read_bytes),
            tiny.PROMPT,
            teacher.trace(clips.scene(seed, "align", index).digits, index),
        )
        for index, path in enumerate(files)
    ]


def _report(out: Path, seed: int, seconds: dict[str, int], figures: dict[str, evaluate.Figures]) -> str:
    size = sum(path.stat().st_size for path in out.iterdir())
    rows = "\n".join(
        f"| {name} | {of.observation:.3f} | {of.greedy:.3f} | {of.single:.3f} | {of.majority:.3f} | {of.distinct:.2f} |"
        for name, of in figures.items()
    )
    phases = ", ".join(f"{name} {spent} s" for name, spent in seconds.items())
    return f"""# How this checkpoint was made

    python -m models.handwriting.make --out {out} --seed {seed}

A Qwen2.5-VL of {_parameters(out) / 1e6:.1f} million parameters ({size / 1e6:.1f} MB in bfloat16), from nothing: the
vision tower alone ({train.SIGHT.steps} steps), perception ({train.BASE.steps} steps), then teacher traces on \
{ALIGN_CLIPS} real clips ({train.ALIGN.steps} steps), {train.BATCH} clips a step.
Seed {seed}, {torch.get_num_threads()} threads of {platform.machine()}, torch {torch.__version__}, transformers \
{transformers.__version__}. Time: {phases}.

Measured with transformers in float32 on {TEST_CLIPS} clips of unseen handwriting (subset `test`, real H.264 files).
All four digits and the answer greedily; one sample and the majority of 4 samples at temperature 1; share of distinct
texts among the 4. `base` has learned to see and was never asked to answer.

| checkpoint | digits | answer | one sample | majority of 4 | distinct |
|---|---|---|---|---|---|
{rows}

Learned from and measured on: the 8 x 8 digits of scikit-learn's `load_digits` (UCI, "Optical Recognition of Handwritten
Digits", E. Alpaydin and C. Kaynak, CC BY 4.0).
"""


def _parameters(folder: Path) -> int:
    from safetensors import safe_open

    with safe_open(folder / "model.safetensors", "pt") as file:
        return sum(file.get_tensor(name).numel() for name in file.keys())  # noqa: SIM118


if __name__ == "__main__":
    main()
