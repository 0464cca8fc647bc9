"""Measure a freshly aligned checkpoint on unseen handwriting and put it where the package keeps its own.

    python -m models.handwriting.report --work build/tiny --out models/handwriting/checkpoint

The last step of `make tiny`: reads what the jobs demo-data and align left in the work folder, replaces the checkpoint and
writes down beside the weights how it was made and how good it is (TRAINING.md).
"""

from __future__ import annotations

import argparse
import csv
import json
import platform
import shutil
from pathlib import Path

import torch
import transformers
from safetensors import safe_open

from models.handwriting import evaluate, train


def report(work: Path, out: Path) -> str:
    """The text of TRAINING.md for work/aligned/model, which replaces the folder `out`. Returns the text."""
    run, direct = (json.loads((work / name).read_text())["counts"] for name in ("align.json", "direct.json"))
    with (work / "data" / "dev" / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    clips = [work / "data" / "dev" / row["file"] for row in rows]
    digits = [[int(digit) for digit in row["digits"].split()] for row in rows]
    figures = {
        name: evaluate.evaluate(folder, clips, digits)
        for name, folder in (
            ("base", work / "aligned" / "base"),
            ("direct", work / "direct" / "model"),
            ("aligned", work / "aligned" / "model"),
        )
    }
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(work / "aligned" / "model", out)
    text = describe(out, run, direct, figures)
    (out / "TRAINING.md").write_text(text)
    return text


def describe(folder: Path, counts: dict[str, int], direct: dict[str, int], figures: dict[str, evaluate.Figures]) -> str:
    """How the checkpoint in `folder` was made and what it can do, in Markdown."""
    size = sum(path.stat().st_size for path in folder.iterdir())
    rows = "\n".join(
        f"| {name} | {of.observation:.3f} | {of.greedy:.3f} | {of.single:.3f} | {of.majority:.3f} | {of.distinct:.2f} |"
        for name, of in figures.items()
    )
    return f"""# How this checkpoint was made

    make tiny

A Qwen2.5-VL of {_parameters(folder) / 1e6:.1f} million parameters ({size / 1e6:.1f} MB in bfloat16), from nothing, by
the job `align`: the phase `base` (the language model alone for {train.READING.steps} steps, the vision tower alone for
{train.SIGHT.steps}, then saying what is seen for {train.BASE.steps}) in {counts["seconds_base"]} s, and the cold start
on {counts["lessons"]:,} teacher traces ({counts["steps_align"]} steps) in {counts["seconds_align"]} s. `direct`
learned the labels alone of {direct["lessons"]:,} of these clips, from the same base ({direct["steps_align"]} steps in
{direct["seconds_align"]} s). Seed {counts["seed"]}, {torch.get_num_threads()} threads of {platform.machine()}, torch
{torch.__version__}, transformers {transformers.__version__}.

Measured with transformers in float32 on {figures["aligned"].clips} clips of a writer that nothing was taught on, six in
ten of them of kinds that the cold start does not know (subset `dev`, real H.264 files; `test` is for `make bench`). All
four digits and the answer greedily; one sample and the majority of 4 samples at temperature 1; share of distinct texts
among the 4. `base` has learned to read and to see and was never asked to answer.

| checkpoint | digits | answer | one sample | majority of 4 | distinct |
|---|---|---|---|---|---|
{rows}

Learned from and measured on: the 8 x 8 digits of scikit-learn's `load_digits` (UCI, "Optical Recognition of Handwritten
Digits", E. Alpaydin and C. Kaynak, CC BY 4.0).
"""


def _parameters(folder: Path) -> int:
    with safe_open(folder / "model.safetensors", "pt") as file:
        return sum(file.get_tensor(name).numel() for name in file.keys())  # noqa: SIM118


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder that make tiny works in")
    parser.add_argument("--out", type=Path, required=True, help="folder of the checkpoint; what is in it is replaced")
    asked = parser.parse_args()
    transformers.logging.disable_progress_bar()
    print(report(asked.work, asked.out))


if __name__ == "__main__":
    main()
