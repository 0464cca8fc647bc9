"""Make the model that travels with the package: make tiny

    python -m benchmarks.embed [--folder build/ablation] [--out models/handwriting/checkpoint]

It is the ablation's row 4, seed 0: base, cold start, refinement. What is not in the ablation's folder is trained there, half
an hour for all of it. Models are then measured on the split dev, and the refined one replaces the checkpoint, with a note of
how it was made and how good it is beside the weights (TRAINING.md).
"""

from __future__ import annotations

import argparse
import csv
import os
import platform
import shutil
import sys
from collections.abc import Mapping
from math import isnan
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file

import models.handwriting
from benchmarks.ablation import ALIGN, PROJECT, REFINE, SEED, Bench
from conf.sections import Settings
from jobs import demo_data
from models.handwriting import evaluate, train

DEV = 300
NAMES = ("base", "direct", "cold", "refined")


def embed(bench: Bench, out: Path) -> str:
    """The text of TRAINING.md for the refined model of seed 0, which replaces the folder `out`."""
    made = {name: bench.model(name, 0) for name in NAMES}
    clips, digits = _dev(bench.folder / "data")
    figures = {name: evaluate.evaluate(folder, clips, digits) for name, (folder, _) in made.items()}
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(made["refined"][0], out)
    text = describe(out, bench.settings, {name: took["seconds"] for name, (_, took) in made.items()}, figures)
    (out / "TRAINING.md").write_text(text)
    return text


def describe(
    folder: Path, settings: Settings, seconds: Mapping[str, float], figures: Mapping[str, evaluate.Figures]
) -> str:
    """How the checkpoint in `folder` was made and what it can do, in Markdown. seconds: of each model, its start's too."""
    size = sum(path.stat().st_size for path in folder.iterdir())
    align, refine, took = settings.align, settings.refine, {name: f"{of:.0f} s" for name, of in seconds.items()}
    alone = f"{seconds['refined'] - seconds['cold']:.0f} s"
    rows = "\n".join(
        f"| {name} | {of.observation:.3f} | {of.greedy:.3f} | {of.single:.3f} | {of.majority:.3f} | "
        f"{'' if isnan(of.contradicts) else format(of.contradicts, '.3f')} | {of.distinct:.2f} |"
        for name, of in figures.items()
    )
    return f"""# How this checkpoint was made

    make tiny

A Qwen2.5-VL of {_parameters(folder) / 1e6:.1f} million parameters ({size / 1e6:.1f} MB in bfloat16), from nothing:

- `base`, on texts and clips none of which comes twice: the language model alone reads for {train.READING.steps} steps,
  the vision tower alone looks for {train.SIGHT.steps}, then the whole says what it sees for {train.BASE.steps};
- `cold`, the job `align`: {ALIGN:,} teacher traces, {align.steps} steps of {align.batch}, {took["cold"]};
- `refined`, the job `refine`: labels alone of {REFINE:,} clips, {refine.steps} steps of {refine.groups} clips and
  {refine.rollouts} rollouts of each, objective `{refine.objective}`, {alone};
- `direct`, held against it: the job `align` with the labels alone of the {ALIGN:,} clips, {took["direct"]}.

Seed 0 on the clips of seed {SEED}, {os.cpu_count()} cores of {platform.machine()}, torch {torch.__version__}, transformers
{transformers.__version__}.

Measured with transformers in float32 on {figures["refined"].clips} clips of a writer that nothing was taught on, six in
ten of them of kinds that the cold start does not know (subset `dev`, real H.264 files; `test` is for `make bench`). All
four digits and the answer greedily; one sample and the majority of 4 samples at temperature 1; of these, the share of
answers against which their own observation argues; share of distinct texts among the 4. `base` was never asked to answer.

| model | digits | answer | one sample | majority of 4 | contradicts | distinct |
|---|---|---|---|---|---|---|
{rows}

Learned from and measured on: the 8 x 8 digits of scikit-learn's `load_digits` (UCI, "Optical Recognition of Handwritten
Digits", E. Alpaydin and C. Kaynak, CC BY 4.0).
"""


def _dev(folder: Path) -> tuple[list[Path], list[list[int]]]:
    """Clips of the split dev, and their digits."""
    demo_data.dev(folder, DEV, SEED)
    with (folder / "dev" / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [folder / "dev" / row["file"] for row in rows], [[int(d) for d in row["digits"].split()] for row in rows]


def _parameters(folder: Path) -> int:
    return sum(tensor.numel() for tensor in load_file(folder / "model.safetensors").values())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=PROJECT / "build" / "ablation", help="of the ablation")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path(models.handwriting.__file__).parent / "checkpoint",
        help="folder of the checkpoint; what is in it is replaced",
    )
    asked = parser.parse_args()
    transformers.logging.disable_progress_bar()
    print(embed(Bench(asked.folder.resolve()), asked.out))
    return 0


if __name__ == "__main__":
    sys.exit(main())
