"""From examples to batches, on the tiny model: what counts in the loss, and that training goes through the processor."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from safetensors import safe_open

from models.handwriting import clips, teacher, tiny
from models.handwriting.sight import sight_batch, steps_of
from models.training import alignment
from models.training.alignment import Example
from models.training.trainer import TrainSpec


@pytest.fixture(scope="module")
def blank(tmp_path_factory):
    folder = tmp_path_factory.mktemp("blank")
    tiny.make(folder, seed=0)
    return folder


def examples(count: int) -> list[Example]:
    frames = np.random.default_rng(0).integers(0, 255, (count, 8, 56, 56, 3), np.uint8)
    traces = [teacher.trace((3, 5, 2, n), n) for n in range(count)]
    return [Example(lambda n=n: frames[n], tiny.PROMPT, traces[n]) for n in range(count)]


def test_exactly_the_completion_counts_in_the_loss(blank):
    _, processor = alignment.load(blank)
    due = examples(3)
    micro = alignment.collate(processor, due, tiny.FRAMES.fps)
    for row, example in enumerate(due):
        counted = micro.inputs["input_ids"][row, 1:][micro.keep[row]]
        assert processor.decode(counted) == example.completion + "<|im_end|>"
        before = micro.inputs["input_ids"][row, : int(micro.keep[row].int().argmax()) + 1]
        assert processor.decode(before).endswith("<|im_start|>assistant\n")
    assert micro.tokens == micro.keep.sum()


def test_the_video_becomes_64_tokens_at_one_second_a_step(blank):
    _, processor = alignment.load(blank)
    inputs = alignment.collate(processor, examples(2), tiny.FRAMES.fps).inputs
    video = processor.tokenizer.convert_tokens_to_ids("<|video_pad|>")
    assert (inputs["input_ids"] == video).sum(1).tolist() == [64, 64]
    assert inputs["video_grid_thw"].tolist() == [[4, 8, 8]] * 2
    assert list(inputs["second_per_grid_ts"]) == [1.0, 1.0]


def test_training_lowers_the_loss_and_writes_bfloat16(blank, tmp_path):
    losses, due = [], examples(2)
    alignment.align(
        blank,
        tmp_path / "out",
        lambda step: due,
        TrainSpec(steps=6, learning_rate=3e-3, warmup=1),
        tiny.FRAMES.fps,
        micro_batch=1,
        on_metric=lambda name, step, value: losses.append(value) if name == "loss" else None,
    )
    assert losses[-1] < losses[0] - 1
    with safe_open(tmp_path / "out" / "model.safetensors", "pt") as file:
        assert {file.get_tensor(name).dtype for name in file.keys()} == {torch.bfloat16}  # noqa: SIM118
    model, _ = alignment.load(tmp_path / "out")
    assert next(model.parameters()).dtype == torch.float32


def test_every_example_comes_once_an_epoch_in_another_order():
    at = alignment.epochs(examples(10), batch=4, seed=0)
    first, second = ([e.completion for step in steps for e in at(step)] for steps in (range(3), range(3, 6)))
    assert [len(at(step)) for step in range(3)] == [4, 4, 2]
    assert Counter(first) == Counter(second) == Counter(e.completion for e in examples(10))
    assert first != second
    assert [e.completion for e in at(4)] == [e.completion for e in alignment.epochs(examples(10), 4, 0)(4)]


def test_no_examples_are_refused():
    with pytest.raises(ValueError, match="no examples"):
        alignment.epochs([], 4, 0)


def test_tags_digits_and_labels_are_single_ordinary_tokens(blank):
    _, processor = alignment.load(blank)
    tokenizer = processor.tokenizer
    for piece in ("<observation>", "</observation>", "<think>", "</think>", "<answer>", "</answer>", *"0123456789"):
        assert len(tokenizer(piece)["input_ids"]) == 1, piece
    for label in clips.LABELS:
        _tag, *rest = tokenizer(f"<answer>{label}")["input_ids"]
        assert len(rest) == 1, label
    for text in (teacher.trace((3, 5, 2, 9), 1), "any text: ünïcödé, 漢字, 🎬\n<b>tags</b>"):
        assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True) == text
    assert all(len(tokenizer(teacher.trace((9, 7, 3, 1), n))["input_ids"]) <= 45 for n in range(9))


def test_first_sight_knows_which_digit_each_step_shows(blank):
    _, processor = alignment.load(blank)
    scenes = [clips.scene(0, "base", n) for n in range(30)]
    for scene in scenes:
        seen = [digit for digit in steps_of(scene) if digit >= 0]
        assert set(seen) <= set(scene.digits) and len(seen) >= 1
    even = clips.scene(0, "base", 0, difficulty=0.0)
    assert steps_of(even) == list(even.digits)
    micro = sight_batch(processor, [even], [np.zeros((8, 56, 56, 3), np.uint8)])
    assert micro.digit.tolist() == list(even.digits) and micro.tokens == 4
    assert micro.pixels.shape == (256, 3 * 2 * 7 * 7)
