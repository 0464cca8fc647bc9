"""Where each token of a prompt stands in time, height and width (M-RoPE), by the rule of the serving engine.

Qwen2-VL (arXiv 2409.12191, section 2.1): text goes on by one on all three axes; a clip's tokens stand on a grid that begins
where the text before it ended, and what follows begins one after the largest position so far. vLLM keeps that rule;
transformers 5.19 lets text go on after the height or width of a clip, so that a clip longer than wide overlaps with what is
said about it. A model that was trained on other positions than it is served with is another model: both ask here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby, islice
from typing import Any

import numpy as np
import torch

_TEXT = 0  # of the processors' mm_token_type_ids; 1 is a picture, 2 a clip


@dataclass(frozen=True)
class Grid:
    """The tokens of one picture or clip, after merging: steps in time, rows, columns; positions from step to step."""

    steps: int
    rows: int
    columns: int
    stride: float = 1.0


def positions(kinds: Sequence[int], grids: Iterable[Grid]) -> np.ndarray:
    """int64 [3, tokens]: time, row and column of every token.

    kinds: 0 for text, another number for a token of a picture or clip; each unbroken run of these is one grid, in order.
    Raises ValueError where the runs are not those of the grids.
    """
    left = iter(grids)
    parts: list[np.ndarray] = []
    start = 0
    for kind, run in groupby(kinds):
        length = sum(1 for _ in run)
        part = np.broadcast_to(np.arange(length), (3, length)) if kind == _TEXT else _on(next(left, None), length)
        parts.append(part + start)
        start = int(parts[-1].max()) + 1
    if next(left, None) is not None:
        raise ValueError("positions: there are more grids than runs of visual tokens")
    return np.concatenate(parts, axis=1) if parts else np.zeros((3, 0), np.int64)


def _on(grid: Grid | None, length: int) -> np.ndarray:
    if grid is None or grid.steps * grid.rows * grid.columns != length:
        raise ValueError(f"positions: expected a grid of {length} tokens, found {grid}")
    places = np.indices((grid.steps, grid.rows, grid.columns)).reshape(3, -1)
    places[0] = (places[0] * grid.stride).astype(np.int64)
    return places


def use_serving_positions(model: Any) -> None:
    """Let a transformers model of the Qwen2.5-VL or Qwen3-VL family compute its positions here, in training and generation.

    Raises ValueError for another family: its rule would have to be looked at first.
    """
    family = model.config.model_type
    if family not in _GRIDS:
        raise ValueError(f"model: expected one of the families {', '.join(_GRIDS)}, found {family}")
    model.model.get_rope_index = partial(_rope_index, model.config.vision_config, _GRIDS[family])


def _rope_index(
    vision: Any,
    grids_of: Any,
    input_ids: torch.Tensor,
    mm_token_type_ids: torch.Tensor,
    image_grid_thw: torch.Tensor | None = None,
    video_grid_thw: torch.Tensor | None = None,
    second_per_grid_ts: Sequence[float] | torch.Tensor | None = None,
    attention_mask: torch.Tensor | None = None,
    **_: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """In the place of transformers' method: positions [3, B, T], 0 on padding, and [B, 1] how far text is off its index."""
    if image_grid_thw is not None:
        raise ValueError("positions: expected clips and text, found pictures")
    found = torch.zeros((3, *input_ids.shape), dtype=torch.long)
    kinds = mm_token_type_ids.cpu()
    kept = torch.ones_like(kinds, dtype=torch.bool) if attention_mask is None else attention_mask.bool().cpu()
    clips = iter([] if video_grid_thw is None else video_grid_thw.tolist())
    seconds = iter([] if second_per_grid_ts is None else [float(value) for value in second_per_grid_ts])
    grids = grids_of(vision, clips, seconds)
    offsets = []
    for row, keep in enumerate(kept):
        ours = kinds[row][keep].tolist()
        runs = sum(kind != _TEXT for kind, _ in groupby(ours))
        places = torch.from_numpy(positions(ours, list(islice(grids, runs))))
        found[:, row, keep] = places
        offsets.append(int(places.max()) + 1 - len(ours))
    device = input_ids.device
    return found.to(device), torch.tensor(offsets, device=device)[:, None]


def _of_qwen2_5(vision: Any, clips: Iterator[list[int]], seconds: Iterator[float]) -> Iterator[Grid]:
    """One grid a clip, whose steps are as far apart as they are in time."""
    merge = vision.spatial_merge_size
    for steps, rows, columns in clips:
        yield Grid(steps, rows // merge, columns // merge, next(seconds, 1.0) * vision.tokens_per_second)


def _of_qwen3(vision: Any, clips: Iterator[list[int]], _: Iterator[float]) -> Iterator[Grid]:
    """One grid a step: the time is told in words between them."""
    merge = vision.spatial_merge_size
    for steps, rows, columns in clips:
        for _step in range(steps):
            yield Grid(1, rows // merge, columns // merge)


_GRIDS = {"qwen2_5_vl": _of_qwen2_5, "qwen3_vl": _of_qwen3}
