"""Positions by hand for the smallest cases; that engines agree with them is tests/models/engines/test_families.py's."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from models.language.positions import Grid, positions, use_serving_positions


def test_text_alone_counts_on():
    assert positions([0, 0, 0], []).tolist() == [[0, 1, 2]] * 3


def test_what_follows_a_clip_begins_after_its_largest_position_even_where_that_is_time():
    found = positions([0, 0, *[2] * 6, 0], [Grid(3, 1, 2, stride=4.0)])
    assert found.tolist() == [
        [0, 1, 2, 2, 6, 6, 10, 10, 11],
        [0, 1, 2, 2, 2, 2, 2, 2, 11],
        [0, 1, 2, 3, 2, 3, 2, 3, 11],
    ]


def test_time_between_steps_is_rounded_down_once_and_not_summed():
    assert positions([2] * 4, [Grid(4, 1, 1, stride=1.6)])[0].tolist() == [0, 1, 3, 4]


def test_each_of_several_clips_has_its_own_grid():
    found = positions([2, 0, 2, 2], [Grid(1, 1, 1), Grid(1, 1, 2)])
    assert found.tolist() == [[0, 1, 2, 2], [0, 1, 2, 2], [0, 1, 2, 3]]


@pytest.mark.parametrize(("kinds", "grids"), [([2], []), ([2, 2], [Grid(1, 1, 1)]), ([0], [Grid(1, 1, 1)])])
def test_grids_that_are_not_those_of_the_tokens_are_refused(kinds, grids):
    with pytest.raises(ValueError, match="positions: "):
        positions(kinds, grids)


def model_of(family: str):
    vision = SimpleNamespace(spatial_merge_size=2, tokens_per_second=2)
    model = SimpleNamespace(config=SimpleNamespace(model_type=family, vision_config=vision), model=SimpleNamespace())
    use_serving_positions(model)
    return model.model.get_rope_index


def test_padding_stays_at_nought_and_each_row_has_its_own_clip():
    kinds = torch.tensor([[0, 2, 2, 2, 2, 0], [0, 2, 2, 0, 0, 0]])
    mask = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0]])
    grids, seconds = torch.tensor([[4, 2, 2], [2, 2, 2]]), torch.tensor([1.0, 0.5])
    index = model_of("qwen2_5_vl")
    found, off = index(kinds, kinds, video_grid_thw=grids, second_per_grid_ts=seconds, attention_mask=mask)
    assert found[0].tolist() == [[0, 1, 3, 5, 7, 8], [0, 1, 2, 3, 0, 0]]
    assert off.tolist() == [[3], [0]]


def test_of_qwen3_every_step_is_a_grid_of_its_own_with_its_time_in_words_before_it():
    kinds = torch.tensor([[0, 2, 0, 2, 0]])
    found, off = model_of("qwen3_vl")(kinds, kinds, video_grid_thw=torch.tensor([[2, 2, 2]]))
    assert np.array_equal(found[:, 0], np.broadcast_to(np.arange(5), (3, 5))) and off.tolist() == [[0]]


def test_a_family_nobody_has_looked_at_is_refused():
    with pytest.raises(ValueError, match="expected one of the families qwen2_5_vl, qwen3_vl, found llava"):
        model_of("llava")


def test_pictures_are_refused():
    kinds = torch.tensor([[1]])
    with pytest.raises(ValueError, match="found pictures"):
        model_of("qwen3_vl")(kinds, kinds, image_grid_thw=torch.tensor([[1, 2, 2]]))
