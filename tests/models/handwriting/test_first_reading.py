"""First reading teaches quoting and order on text, and leaves the vision tower alone."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import torch

import models.handwriting
from models.handwriting import tiny
from models.handwriting.reading import Reading, reading_batch, reading_loss, text
from models.training.model import load
from models.training.trainer import TrainSpec, train

CHECKPOINT = Path(models.handwriting.__file__).parent / "checkpoint"


def test_every_sentence_is_true():
    said = " ".join(text((0, index), 80) for index in range(200))
    pairs = re.findall(r"(\d)([<>=])(\d)", said)
    assert {sign for _, sign, _ in pairs} == {"<", ">", "="}
    assert all(sign == ("<" if a < b else ">" if a > b else "=") for a, sign, b in pairs)
    quotes = re.findall(r"((?:\d )+)so ((?:\d )*\d)\.", said)
    assert len(quotes) > 100
    for first, second in quotes:
        assert second in (first.strip(), " ".join(f"{a} {b}" for a, b in pairwise(first.split())))
    assert re.findall(r"(?:\d )+so \d([-,:/+])\d", said)


def test_texts_are_of_one_length_and_differ_by_their_seed():
    _, processor = load(CHECKPOINT)
    micro = reading_batch(processor.tokenizer, [(0, 0), (0, 1), (1, 0)], 24)
    assert micro.tokens.shape == (3, 24) and micro.weight == 3 * 23
    assert len({tuple(row) for row in micro.tokens.tolist()}) == 3
    assert torch.equal(reading_batch(processor.tokenizer, [(0, 0)], 24).tokens[0], micro.tokens[0])


def test_a_few_steps_lower_the_loss_and_touch_no_vision(tmp_path):
    torch.set_num_threads(1)
    tiny.make(tmp_path / "blank", 0)
    model, processor = load(tmp_path / "blank")
    before = {name: weight.clone() for name, weight in model.model.visual.state_dict().items()}
    asked = reading_batch(processor.tokenizer, [(9, index) for index in range(8)], 32)
    losses = [reading_loss(Reading(model), asked).item() / asked.weight]

    def batches(step):
        return [reading_batch(processor.tokenizer, [(0, step * 8 + index) for index in range(8)], 32)]

    train(Reading(model), batches, reading_loss, TrainSpec(steps=20, learning_rate=2e-3, warmup=2))
    losses.append(reading_loss(Reading(model), asked).item() / asked.weight)
    assert losses[1] < 0.6 * losses[0]
    assert all(torch.equal(before[name], weight) for name, weight in model.model.visual.state_dict().items())
