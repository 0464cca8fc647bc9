"""The checkpoint that travels with the package: small, bfloat16, and able to do the task."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open

import models.handwriting
from models.handwriting import clips, evaluate, scenes

CHECKPOINT = Path(models.handwriting.__file__).parent / "checkpoint"


def test_it_is_at_most_10_megabytes_and_bfloat16():
    assert sum(path.stat().st_size for path in CHECKPOINT.iterdir()) <= 10_000_000
    with safe_open(CHECKPOINT / "model.safetensors", "pt") as file:
        assert {file.get_tensor(name).dtype for name in file.keys()} == {torch.bfloat16}  # noqa: SIM118
    assert "Seed 0" in (CHECKPOINT / "TRAINING.md").read_text()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return clips.generate(tmp_path_factory.mktemp("clips"), "test", 48, seed=11)


def test_it_is_right_on_most_unseen_handwriting_and_its_traces_differ(files):
    shown = [scenes.scene(11, "test", n).digits for n in range(len(files))]
    figures = evaluate.evaluate(CHECKPOINT, files, shown)
    assert 0.5 <= figures.greedy < 0.9  # a third would be luck; much more leaves nothing to refine and to calibrate
    assert figures.distinct > 0.4
