"""What the processors of a model are given: sampled frames, none of them dropped, and the clock they run by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from models.video.clip import Clip

# Of the processors; vLLM prepares clips by the picture's values, transformers by the clip's own.
_ALIKE = (
    "do_rescale",
    "rescale_factor",
    "do_normalize",
    "image_mean",
    "image_std",
    "patch_size",
    "temporal_patch_size",
    "merge_size",
)
_FEWEST = 2  # pictures: a patch spans two, and not every processor fills it up by itself
_CLOCK = 1000.0  # ticks a second: processors know frames by number, so a number is a time here


def presented(clip: Clip) -> tuple[np.ndarray, dict[str, Any]]:
    """uint8 [T, H, W, 3] and what is said of it: the true times and length. A single picture stays on screen for two."""
    kept = [min(i, len(clip.pixels) - 1) for i in range(max(_FEWEST, len(clip.pixels)))]
    shown = clip.pixels if len(kept) == len(clip.pixels) else clip.pixels[kept]
    return shown, {
        "total_num_frames": max(1, round(clip.duration * _CLOCK)),
        "fps": _CLOCK,
        "frames_indices": [round(clip.times[i] * _CLOCK) for i in kept],
        "duration": clip.duration,
    }


def processor_inputs(clips: Sequence[Clip]) -> dict[str, Any]:
    """The arguments of a transformers processor for these clips, in the order of their placeholders; none for none.

    Pictures stay as large as they are: what the recipe says is what is shown, whatever a folder's own bounds are.
    """
    if not clips:
        return {}
    shown = [presented(clip) for clip in clips]
    return {
        "videos": [frames for frames, _ in shown],
        "video_metadata": [clock for _, clock in shown],
        "do_sample_frames": False,
        "do_resize": False,
    }


def check_processors(folder: str, processor: Any) -> None:
    """Raises ValueError, naming the field, where pictures and clips would be prepared differently, or not at all."""
    picture, clip = (getattr(processor, f"{name}_processor", None) for name in ("image", "video"))
    if picture is None or clip is None:
        missing = "picture" if picture is None else "video"
        raise ValueError(
            f"{folder}: expected a processor for pictures and one for videos, found no {missing} processor"
        )
    for field in _ALIKE:
        found = [getattr(part, field, None) for part in (picture, clip)]
        if _plain(found[0]) != _plain(found[1]):
            raise ValueError(
                f"{folder}: {field}: expected one value for pictures and clips, found {found[0]} for pictures, {found[1]} "
                "for clips: engines would see different pixels; make the files of the processors agree"
            )


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple | list) else value
