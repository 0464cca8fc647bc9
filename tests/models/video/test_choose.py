"""Which pictures are chosen, on pictures made up here."""

from __future__ import annotations

import numpy as np
import pytest

from models.video.choose import SAMPLINGS, by_change, uniform

CELL = 4


def pictures(levels) -> list[np.ndarray]:
    return [np.full((8, 12, 3), level, np.uint8) for level in levels]


@pytest.mark.parametrize("count", [1, 2, 3, 8, 32])
def test_where_nothing_changes_scenes_are_chosen_evenly(count):
    n = SAMPLINGS["scene"].candidates * count
    noise = np.random.default_rng(0).integers(0, 2, (n, 8, 12, 3), np.uint8)  # as much as a codec leaves
    middles = [SAMPLINGS["scene"].candidates * i + 2 for i in range(count)]
    assert by_change(pictures([7] * n), count, CELL) == middles == uniform(pictures([7] * n), count, CELL)
    assert by_change(list(100 + noise), count, CELL) == middles


def test_the_first_picture_after_each_cut_is_chosen():
    rng = np.random.default_rng(0)
    for _ in range(200):
        cuts = np.sort(rng.choice(np.arange(1, 40), 5, replace=False))
        levels = np.repeat(np.arange(6) % 2 * 200, np.diff([0, *cuts, 40]))
        chosen = by_change(pictures(levels), 8, CELL)
        assert set(cuts.tolist()) <= set(chosen)
        assert len(set(chosen)) == 8 and chosen == sorted(chosen)


def test_more_cuts_than_pictures_are_still_distinct_pictures_in_order():
    rng = np.random.default_rng(1)
    for _ in range(200):
        chosen = by_change(list(rng.integers(0, 255, (40, 8, 12, 3), np.uint8)), 8, CELL)
        assert len(set(chosen)) == 8 and chosen == sorted(chosen) and chosen[0] >= 0 and chosen[-1] < 40


def test_what_moves_is_seen_more_often_than_what_stands_still():
    moving = [*([0] * 20), *range(0, 200, 10)]
    chosen = by_change(pictures(moving), 8, CELL)
    assert sum(place >= 20 for place in chosen) >= 5 and any(place < 20 for place in chosen)


def test_uniform_sampling_looks_at_nothing_it_does_not_show():
    assert SAMPLINGS["uniform"].candidates == 1 and uniform(pictures(range(8)), 8, CELL) == list(range(8))
