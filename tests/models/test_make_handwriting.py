"""The command that makes the checkpoint, with a handful of steps: every part of it, and going on where it stopped."""

from __future__ import annotations

import json

import pytest
from safetensors import safe_open

from models.handwriting import make, train
from models.trainer import TrainSpec

FEW = TrainSpec(steps=2, learning_rate=1e-3, warmup=1, checkpoint_every=1)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    for name in ("SIGHT", "BASE", "ALIGN"):
        monkeypatch.setattr(train, name, FEW)
    for name in ("BATCH", "SIGHT_BATCH"):
        monkeypatch.setattr(train, name, 2)
    for name in ("ALIGN_CLIPS", "TEST_CLIPS"):
        monkeypatch.setattr(make, name, 3)
    monkeypatch.setattr(make, "_WORKERS", 1)


def metrics(work):
    rows = [json.loads(line) for line in (work / "seed-4" / "metrics.jsonl").read_text().splitlines()]
    return [(row["name"], row["step"]) for row in rows if row["name"].endswith("loss")]


def test_it_makes_a_checkpoint_and_a_second_run_repeats_nothing(tmp_path):
    out, work = tmp_path / "out", tmp_path / "work"
    figures = make.make(out, 4, work)
    assert figures.clips == 3
    assert metrics(work) == [("sight/loss", 0), ("sight/loss", 1), *[("loss", 0), ("loss", 1)] * 2]
    report = (out / "TRAINING.md").read_text()
    assert "--seed 4" in report and "| aligned | 0.000 |" in report and "1.7 million parameters" in report
    made = weights(out)
    make.make(out, 4, work)
    assert len(metrics(work)) == 6 and weights(out) == made


def weights(folder):
    with safe_open(folder / "model.safetensors", "pt") as file:
        return {name: file.get_tensor(name).float().sum().item() for name in file.keys()}  # noqa: SIM118
