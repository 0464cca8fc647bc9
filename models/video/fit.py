"""How a frame becomes the picture that the model sees: upright, its pixels square, cut into whole cells.

A cell is the square of pixels that becomes one token. What is not picture is black and costs tokens all the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import av
import numpy as np
from av.video.reformatter import VideoReformatter

Size = tuple[int, int]  # width, height in pixels


def aspect(width: float, height: float, max_pixels: int, cell: int) -> Size:
    """Qwen's rule (Qwen2-VL, smart_resize): each side a multiple of `cell`, the aspect kept, at most `max_pixels` in all.

    Nothing is made larger but by rounding to the nearest multiple. A picture too thin for the rule is one cell thin and
    as long as `max_pixels` allows.
    """
    size = [max(1, round(side / cell)) for side in (width, height)]
    cells = max_pixels // cell**2
    if size[0] * size[1] > cells:
        shrink = max(1.0, math.sqrt(width * height / max_pixels))
        # the small slack keeps a side of exactly so many cells from losing one to rounding
        size = [min(cells, max(1, math.floor(side / shrink / cell + 1e-9))) for side in (width, height)]
    return size[0] * cell, size[1] * cell


def square(width: float, height: float, max_pixels: int, cell: int) -> Size:
    """The largest square of whole cells within `max_pixels`."""
    side = math.isqrt(max_pixels) // cell * cell
    return side, side


FITS: dict[str, Callable[[float, float, int, int], Size]] = {"aspect": aspect, "square": square}


class Fit:
    """Turns frames of one clip into pictures of one size, that of the first: uint8 [height, width, 3], RGB.

    how: one of FITS; pixel_aspect: width of a stored pixel divided by its height. With `aspect` a frame fills the picture;
    with `square`, and where a clip changes its shape on the way, it is letterboxed in black.
    """

    def __init__(self, how: str, max_pixels: int, cell: int, pixel_aspect: float = 1.0) -> None:
        self._how, self._max_pixels, self._cell, self._pixel_aspect = how, max_pixels, cell, pixel_aspect
        self._first: tuple[float, float] | None = None  # upright width and height of the first frame
        self._canvas: Size = (0, 0)
        self._scale = VideoReformatter()  # keeps its tables between frames of one clip

    def __call__(self, frame: av.VideoFrame) -> np.ndarray:
        turns = rotation(frame) // 90
        stored = (frame.width * self._pixel_aspect, frame.height)
        upright = stored if turns % 2 == 0 else stored[::-1]
        if self._first is None:
            self._first = upright
            self._canvas = FITS[self._how](*upright, self._max_pixels, self._cell)
        width, height = self._inner(upright)
        small = np.rot90(self._scaled(frame, (width, height) if turns % 2 == 0 else (height, width)), turns)
        if (width, height) == self._canvas:
            return np.ascontiguousarray(small)
        out = np.zeros((self._canvas[1], self._canvas[0], 3), np.uint8)
        top, left = (self._canvas[1] - height) // 2, (self._canvas[0] - width) // 2
        out[top : top + height, left : left + width] = small
        return out

    def _inner(self, upright: tuple[float, float]) -> Size:
        """What the frame takes of the picture."""
        if self._how == "aspect" and upright == self._first:
            return self._canvas
        ratio = min(room / side for room, side in zip(self._canvas, upright, strict=True))
        width, height = (max(1, round(side * ratio)) for side in upright)
        return width, height

    def _scaled(self, frame: av.VideoFrame, size: Size) -> np.ndarray:
        # averaging keeps thin strokes that point sampling would lose
        how = "AREA" if size[0] * size[1] < frame.width * frame.height else "BICUBIC"
        return self._scale.reformat(frame, *size, "rgb24", interpolation=how).to_ndarray()


def rotation(frame: av.VideoFrame) -> int:
    """Degrees counter-clockwise to upright, a multiple of 90 in [0, 360)."""
    return round((frame.rotation or 0) / 90) * 90 % 360
