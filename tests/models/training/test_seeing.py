"""Given several rollouts of one clip, then the tower sees it once, and all else is as if it saw it for each of them."""

import numpy as np
import pytest
import torch

from benchmarks import families
from models.language.prompts import chat
from models.training.batches import Sample, collate, completion_logprobs
from models.training.model import load
from models.video.clip import Clip

SHAPES = ((4, 2, 2), (2, 1, 3), (3, 2, 1))  # frames; rows and columns of merged patches
ORDER = (1, 0, 1, 2, 0, 1)


@pytest.fixture(params=families.FAMILIES)
def trained(request, tmp_path):
    cell = families.PATCH[request.param] * families.MERGE
    return *load(families.make(tmp_path, request.param)), cell


def samples(processor, cell):
    generator = np.random.default_rng(0)
    sizes = [(frames, rows * cell, columns * cell, 3) for frames, rows, columns in SHAPES]
    clips = [Clip.even(generator.integers(0, 255, size, np.uint8), 4.0) for size in sizes]
    prompts = [chat(processor, asked) for asked in ("What is it?", "Which of these is it, then?")]
    return [Sample(prompts[at % 2], clips[number], tuple(range(40, 44 + at))) for at, number in enumerate(ORDER)]


def test_a_batch_holds_every_clip_once(trained):
    model, processor, cell = trained
    batch = collate(processor, samples(processor, cell))
    patches = batch.inputs["video_grid_thw"].prod(1)
    assert batch.inputs["shown"].tolist() == [0, 1, 0, 2, 1, 0]
    assert len(batch.inputs["pixel_values_videos"]) == patches[[0, 1, 3]].sum() < patches.sum()
    seen = []
    model.model.visual.register_forward_pre_hook(lambda tower, given: seen.append(len(given[0])))
    completion_logprobs(model, batch)
    assert seen == [len(batch.inputs["pixel_values_videos"])]


def test_logits_are_of_the_longest_completion_alone_however_unlike_the_prompts(trained):
    model, processor, cell = trained
    batch = collate(processor, samples(processor, cell))
    assert batch.places == 4 + len(ORDER) - 1 and batch.keep.sum(1).tolist() == [4 + at for at in range(len(ORDER))]
    made = []
    model.lm_head.register_forward_hook(lambda head, given, logits: made.append(logits.shape[1]))
    completion_logprobs(model, batch)
    assert made == [batch.places + 1]


def test_log_probabilities_and_gradients_are_those_of_each_sequence_by_itself(trained):
    model, processor, cell = trained
    due = samples(processor, cell)
    batch = collate(processor, due)
    together = completion_logprobs(model, batch)
    together[batch.keep].sum().backward()
    gradients = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    for row, sample in enumerate(due):
        alone = completion_logprobs(model, collate(processor, [sample]))
        alone.sum().backward()
        torch.testing.assert_close(together[row][batch.keep[row]], alone[0], atol=1e-5, rtol=0)
    for name, parameter in model.named_parameters():
        assert (gradients[name] - parameter.grad).norm() <= 1e-5 * parameter.grad.norm(), name
    assert any(gradient.any() for name, gradient in gradients.items() if "visual" in name)
