"""From examples to batches, on the tiny model: what counts in the loss, and that training goes through the processor."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors import safe_open

from models.handwriting import clips, scenes, teacher, tiny
from models.handwriting.sight import Sight, sampled, sight_batch, steps_of
from models.training import alignment
from models.training.alignment import Example
from models.training.batches import collate
from models.training.model import load
from models.training.trainer import TrainSpec
from models.video.clip import Clip
from models.video.container import Limits
from models.video.frames import sample


@pytest.fixture(scope="module")
def blank(tmp_path_factory):
    folder = tmp_path_factory.mktemp("blank")
    tiny.make(folder, seed=0)
    return folder


def examples(count: int) -> list[Example]:
    frames = np.random.default_rng(0).integers(0, 255, (count, 8, 56, 56, 3), np.uint8)
    traces = [teacher.trace((3, 5, 2, n), n) for n in range(count)]
    return [Example(Clip.even(frames[n], 4.0), tiny.PROMPT, traces[n]) for n in range(count)]


def test_exactly_the_completion_counts_in_the_loss(blank):
    _, processor = load(blank)
    due = examples(3)
    (micro,) = alignment.micros(processor, due, 3)
    ids, keep = micro.batch.inputs["input_ids"], micro.batch.keep
    said = {processor.decode(ids[row, -micro.batch.places :][keep[row]]) for row in range(3)}
    assert said == {example.completion + "<|im_end|>" for example in due}
    for row in range(3):
        first = ids.shape[1] - micro.batch.places + int(keep[row].int().argmax())
        assert processor.decode(ids[row, :first]).endswith("<|im_start|>assistant\n")
    assert micro.weight == keep.sum()


def test_what_the_template_has_opened_is_not_taught_again(blank):
    _, processor = load(blank)
    opened = "<|im_start|>assistant\n<think>"
    processor.chat_template = processor.chat_template.replace("<|im_start|>assistant\n", opened)
    (example,) = examples(1)
    taught = Example(example.clip, example.prompt, "<think>so</think><answer>mixed</answer>")
    batch = collate(processor, alignment.samples(processor, [taught]))
    assert processor.decode(batch.inputs["input_ids"][0]).endswith(
        f"{opened}so</think><answer>mixed</answer><|im_end|>"
    )
    counted = processor.decode(batch.inputs["input_ids"][0, -batch.places :][batch.keep[0]])
    assert counted == "so</think><answer>mixed</answer><|im_end|>"


def test_the_video_becomes_64_tokens_at_half_a_second_a_step(blank):
    _, processor = load(blank)
    inputs = collate(processor, alignment.samples(processor, examples(2))).inputs
    video = processor.tokenizer.convert_tokens_to_ids("<|video_pad|>")
    assert (inputs["input_ids"] == video).sum(1).tolist() == [64, 64]
    assert inputs["video_grid_thw"].tolist() == [[4, 8, 8]] * 2
    assert list(inputs["second_per_grid_ts"]) == [0.5, 0.5]


def test_clips_of_any_size_and_length_share_a_batch_and_keep_their_own_steps_and_times(blank):
    model, processor = load(blank)
    shapes = [(8, 56, 56), (8, 28, 56), (3, 42, 14), (1, 14, 14)]
    made = [Clip.even(np.full((*shape, 3), 100, np.uint8), 2.0 + n) for n, shape in enumerate(shapes)]
    due = [Example(clip, tiny.PROMPT, "rising") for clip in made]
    (together,) = alignment.micros(processor, due, 4)
    inputs = together.batch.inputs
    assert inputs["video_grid_thw"].tolist() == [[1, 2, 2], [2, 6, 2], [4, 4, 8], [4, 8, 8]]  # by size
    assert list(inputs["second_per_grid_ts"]) == pytest.approx([0.2, 0.5, 2 / 3, 1.0], abs=1e-3)
    alone = [alignment.sft_loss(model, micro).item() for micro in alignment.micros(processor, due, 1)]
    assert len(alone) == 4
    assert alignment.sft_loss(model, together).item() == pytest.approx(sum(alone), rel=1e-4)


def test_no_two_time_steps_of_a_clip_share_a_position(blank):
    model, processor = load(blank)
    video = processor.tokenizer.convert_tokens_to_ids("<|video_pad|>")
    for index in range(30):
        scene = scenes.scene(0, "base", index)
        inputs = collate(processor, alignment.samples(processor, [Example(sampled(scene), "?", "x")])).inputs
        places, _ = model.model.get_rope_index(**{k: v for k, v in inputs.items() if k != "pixel_values_videos"})
        steps = places[0, 0][inputs["input_ids"][0] == video].unique()
        seconds = scene.frames / scene.fps
        assert (
            len(steps) == 4 and 3 * seconds - 1.01 < steps[-1] - steps[0] <= 3 * seconds
        )  # a quarter of a second each


def test_training_lowers_the_loss_and_writes_bfloat16(blank, tmp_path):
    losses, due = [], examples(2)
    alignment.align(
        blank,
        tmp_path / "out",
        lambda step: due,
        TrainSpec(steps=6, learning_rate=3e-3, warmup=1),
        micro_batch=1,
        on_metric=lambda name, step, value: losses.append(value) if name == "loss" else None,
    )
    assert losses[-1] < losses[0] - 1
    with safe_open(tmp_path / "out" / "model.safetensors", "pt") as file:
        assert {file.get_tensor(name).dtype for name in file.keys()} == {torch.bfloat16}  # noqa: SIM118
    model, _ = load(tmp_path / "out")
    assert next(model.parameters()).dtype == torch.float32


def test_padding_is_kept_small_by_putting_like_lengths_together(blank):
    _, processor = load(blank)
    clip = Clip.even(np.zeros((2, 14, 14, 3), np.uint8), 4.0)
    lengths = (30, 1, 29, 2)
    due = [Example(clip, tiny.PROMPT, "7" * length) for length in lengths]
    made = alignment.micros(processor, due, 2)
    assert [micro.batch.keep.sum(1).tolist() for micro in made] == [[2, 3], [30, 31]]  # each with its end token


def test_tags_digits_and_labels_are_single_ordinary_tokens(blank):
    _, processor = load(blank)
    tokenizer = processor.tokenizer
    for piece in ("<observation>", "</observation>", "<think>", "</think>", "<answer>", "</answer>", *"0123456789"):
        assert len(tokenizer(piece)["input_ids"]) == 1, piece
    for label in scenes.LABELS:
        _tag, *rest = tokenizer(f"<answer>{label}")["input_ids"]
        assert len(rest) == 1, label
    for text in (teacher.trace((3, 5, 2, 9), 1), "any text: ünïcödé, 漢字, 🎬\n<b>tags</b>"):
        assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True) == text
    assert all(len(tokenizer(teacher.trace((9, 7, 3, 1), n))["input_ids"]) <= 45 for n in range(9))


def test_first_sight_knows_which_digit_each_step_shows(blank):
    _, processor = load(blank)
    for scene in (scenes.scene(0, "base", n) for n in range(30)):
        seen = [digit for digit in steps_of(scene) if digit >= 0]
        assert set(seen) <= set(scene.digits) and len(seen) >= 1
    even = scenes.scene(0, "base", 0, difficulty=0.0)
    assert steps_of(even) == list(even.digits)
    micro = sight_batch(processor, [even], [Clip.even(np.zeros((8, 56, 56, 3), np.uint8), 4.0)])
    assert micro.digit.tolist() == list(even.digits) and micro.weight == 4
    assert micro.pixels.shape == (256, 3 * 2 * 7 * 7)


def test_first_sight_reads_each_step_of_clips_of_different_sizes_by_itself(blank):
    model, processor = load(blank)
    sight, drawn = Sight(model).eval(), [scenes.scene(0, "base", n) for n in range(8)]
    videos = [sampled(scene) for scene in drawn]
    assert len({clip.pixels.shape for clip in videos}) > 1
    micro = sight_batch(processor, drawn, videos)
    alone = [sight_batch(processor, [scene], [clip]) for scene, clip in zip(drawn, videos, strict=True)]
    apart = torch.cat([sight(one.pixels, one.grid) for one in alone])
    together = sight(micro.pixels, micro.grid)
    assert together.shape == (32, 10) and torch.allclose(together, apart, atol=1e-5)
    assert (together[1:] - together[:-1]).abs().amax(1).min() > 1e-4  # no step is read as its neighbour


def test_a_sampled_scene_is_its_file_but_for_the_codec(tmp_path):
    scene = replace(scenes.scene(0, "base", 1), crf=18)
    clips.write(scene, tmp_path / "clip.mp4")
    from_file, in_memory = sample((tmp_path / "clip.mp4").read_bytes(), tiny.FRAMES, Limits()), sampled(scene)
    assert in_memory.times == pytest.approx(from_file.times) and in_memory.duration == pytest.approx(from_file.duration)
    assert np.abs(in_memory.pixels.astype(float) - from_file.pixels).mean() < 8
