"""A clip that several sequences of a batch are about goes through the vision tower once.

The K rollouts of a group are about one clip, and what the tower makes of it is the same for all of them: its output is
handed to each, and their gradients add up on the way back.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch


def see_clips_once(model: Any) -> None:
    """Let a transformers model of the Qwen2.5-VL or Qwen3-VL family take `shown` among its inputs, as `collate` makes it.

    shown: int64 [B], the number of each sequence's clip; `pixel_values_videos` then holds the clips in the order of their
    numbers, everything else stays by sequence.
    """
    model.model.get_video_features = partial(_features, model.model.get_video_features)


def _features(
    of_clips: Any,
    pixel_values_videos: torch.Tensor,
    video_grid_thw: torch.Tensor,
    *,
    shown: torch.Tensor | None = None,
    **named: Any,
) -> Any:
    """In the place of transformers' method, whose arguments `generate` looks up by name: what each sequence's clip shows."""
    if shown is None:
        return of_clips(pixel_values_videos, video_grid_thw, **named)
    numbers = shown.tolist()
    own = video_grid_thw[[numbers.index(number) for number in range(max(numbers) + 1)]]
    found = of_clips(pixel_values_videos, own, **named)
    found.pooler_output = tuple(found.pooler_output[number] for number in numbers)
    if "deepstack_features" in found:  # Qwen3-VL: of several layers
        found.deepstack_features = [tuple(layer[number] for number in numbers) for layer in found.deepstack_features]
    return found
