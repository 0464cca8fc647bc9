"""Sizes of pictures: whole cells, the aspect kept, no more pixels than allowed."""

from __future__ import annotations

import av
import numpy as np
import pytest

from models.video.fit import Fit, aspect, square

CELLS = (14, 28, 32)


def sides() -> list[tuple[float, float, int, int]]:
    """width, height, max_pixels, cell of 3,000 pictures, thin ones and whole multiples of cells among them."""
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(3000):
        cell = int(rng.choice(CELLS))
        width, height = (
            np.exp(rng.uniform(np.log(2), np.log(8192), 2)) if rng.random() < 0.8 else rng.integers(1, 40, 2) * cell
        )
        drawn.append((float(width), float(height), int(rng.integers(cell**2, 700 * 700)), cell))
    return drawn


def test_a_picture_is_whole_cells_within_its_pixels():
    for width, height, most, cell in sides():
        size = aspect(width, height, most, cell)
        assert all(side % cell == 0 and side >= cell for side in size)
        assert size[0] * size[1] <= most


def test_a_grid_is_within_a_cell_of_the_true_aspect():
    """Of the picture itself, or of the largest of its shape within the pixels, where it is too large."""
    looked_at = 0
    for width, height, most, cell in sides():
        shrink = min(1.0, (most / (width * height)) ** 0.5)
        if min(width, height) * shrink < cell:  # one cell thin: what is left is its length
            continue
        looked_at += 1
        off = [
            max(
                abs(side - true * scale)
                for side, true in zip(aspect(width, height, most, cell), (width, height), strict=True)
            )
            for scale in (1.0, shrink)
        ]
        assert min(off) <= cell, (width, height, most, cell)
    assert looked_at > 1500


def test_nothing_is_made_larger_but_by_rounding():
    for width, height, most, cell in sides():
        for side, before in zip(aspect(width, height, most, cell), (width, height), strict=True):
            assert side <= max(cell, before + cell / 2)


def test_a_square_of_any_size_has_all_the_cells_there_are():
    """Rounding must not cost it a row: 448 / 28 may come out as 15.999."""
    assert {aspect(side, side, 448 * 448, 28) for side in range(448, 4000)} == {(448, 448)}


def test_a_turned_picture_has_its_sides_swapped():
    for width, height, most, cell in sides():
        assert aspect(height, width, most, cell) == aspect(width, height, most, cell)[::-1]


def test_it_is_the_rule_of_the_processors_that_prepare_clips():
    """Else they would bring a picture to another size than was asked for. Beyond 200 to 1 they raise."""
    from transformers.models.qwen2_vl.video_processing_qwen2_vl import smart_resize

    alike = []
    for width, height, most, cell in sides():
        size = aspect(width, height, most, cell)
        if max(size) <= 200 * min(size):
            assert smart_resize(*size[::-1], cell, cell**2, most) == size[::-1]
        if max(width, height) <= 200 * min(width, height) and min(width, height) > cell:
            alike.append(smart_resize(height, width, cell, cell**2, most)[::-1] == size)
    assert len(alike) > 1500 and np.mean(alike) > 0.98  # but where theirs makes a picture larger or has too many pixels


@pytest.mark.parametrize(("side", "cells"), [(56, 4), (57, 4), (55, 3), (14, 1)])
def test_a_square_is_the_largest_of_whole_cells(side, cells):
    assert square(1920, 1080, side * side, 14) == (14 * cells, 14 * cells)


def frame(width: int, height: int, grey: int = 255) -> av.VideoFrame:
    return av.VideoFrame.from_ndarray(np.full((height, width, 3), grey, np.uint8), format="rgb24")


def test_a_clip_that_changes_its_shape_keeps_that_of_its_first_picture():
    fit = Fit("aspect", 32 * 32, 8)
    first, other, again = fit(frame(64, 32)), fit(frame(32, 64)), fit(frame(64, 32))
    assert first.shape == other.shape == again.shape == (16, 40, 3)
    assert first.min() > 250 and np.array_equal(first, again)
    assert other[:, 16:24].min() > 250 and other[:, :16].max() == other[:, 24:].max() == 0


def test_pixels_that_are_not_square_are_made_so():
    picture = Fit("square", 64 * 64, 8, pixel_aspect=2.0)(frame(32, 32))
    assert picture.shape == (64, 64, 3)
    assert picture[16:48].min() > 250 and picture[:16].max() == picture[48:].max() == 0
