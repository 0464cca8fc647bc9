"""Does the place of a label among the codes decide what a model says? python -m benchmarks.code_bias

Every rotation of the codes is a question of its own behind the same clip; the mean of the rotations is free of what is the
same for a code whatever label it stands for.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from models.engines.promise import EngineSpec, Question
from models.engines.vllm import VllmEngine
from models.handwriting import clips, scenes, tiny
from models.language import codes
from models.video.container import Limits
from models.video.frames import sample

CHECKPOINT = Path(tiny.__file__).parent / "checkpoint"
CLIPS = 60


def question(labels: Sequence[str], given: dict[str, str]) -> str:
    """The text behind the clip that asks for a code."""
    return "".join(f" {given[label]}: {label}" for label in labels) + " ?"


def measure(engine: VllmEngine, files: Sequence[Path], labels: Sequence[str]) -> np.ndarray:
    """Log-probabilities [files, rotations, codes], relative to the codes alone."""
    chosen = codes.choose(engine._tokenizer, len(labels))
    tails = tuple(question(labels, codes.rotated(labels, chosen, by)) for by in range(len(labels)))
    prompt = engine.chat(tiny.PROMPT)
    asked = (Question(path.name, prompt, (sample(path.read_bytes(), tiny.FRAMES, Limits()),), tails) for path in files)
    found = {done.key: np.asarray(done.logprobs) for done in engine.classify(asked, chosen)}
    rows = np.stack([found[path.name] for path in files])
    return rows - np.log(np.exp(rows).sum(-1, keepdims=True))


def main() -> None:
    labels = scenes.LABELS
    with tempfile.TemporaryDirectory() as folder:
        files = clips.generate(Path(folder), "test", CLIPS, seed=5)
        truth = [scenes.scene(5, "test", index).label for index in range(CLIPS)]
        engine = VllmEngine(EngineSpec("vllm", str(CHECKPOINT), max_model_len=512, max_num_seqs=32))
        rows = measure(engine, files, labels)
        engine.close()
    print("| rotation | " + " | ".join(f"mean p of code {number + 1}" for number in range(len(labels))) + " | right |")
    print("|---|" + "---|" * (len(labels) + 1))
    right = [labels.index(label) for label in truth]
    for by in range(len(labels)):
        means = np.exp(rows[:, by]).mean(0)
        said = (rows[:, by].argmax(-1) - by) % len(labels)
        print(f"| {by} | " + " | ".join(f"{p:.2f}" for p in means) + f" | {np.mean(said == right):.2f} |")
    said = np.array([codes.unrotated(row).argmax() for row in rows])
    print("| mean of all | " + " | ".join("" for _ in labels) + f" | {np.mean(said == right):.2f} |")


if __name__ == "__main__":
    main()
