"""What the processors of a model are given: sampled frames, none of them dropped, and the clock they run by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

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
_FEWEST = 2  # frames: a patch spans two, and not every processor fills it up by itself


def presented(frames: np.ndarray, fps: float) -> tuple[np.ndarray, dict[str, Any]]:
    """uint8 [T, H, W, 3] and what is said of it, for a clip whose frames come at `fps` a second. A single frame stays on
    screen for two."""
    kept = [min(i, len(frames) - 1) for i in range(max(_FEWEST, len(frames)))]
    shown = frames if len(kept) == len(frames) else frames[kept]
    return shown, {
        "total_num_frames": len(shown),
        "fps": fps,
        "frames_indices": kept,
        "duration": len(shown) / fps,
    }


def processor_inputs(clips: Sequence[np.ndarray], fps: float) -> dict[str, Any]:
    """The arguments of a transformers processor for these clips."""
    shown = [presented(frames, fps) for frames in clips]
    return {
        "videos": [frames for frames, _ in shown],
        "video_metadata": [clock for _, clock in shown],
        "do_sample_frames": False,
    }


def check_processors(folder: str, processor: Any) -> None:
    """Raises ValueError, naming the field, where pictures and clips would be prepared differently."""
    picture, clip = processor.image_processor, processor.video_processor
    for field in _ALIKE:
        found = [getattr(part, field, None) for part in (picture, clip)]
        if _plain(found[0]) != _plain(found[1]):
            raise ValueError(
                f"{folder}: {field}: expected one value for pictures and clips, found {found[0]} for pictures, {found[1]} "
                "for clips: engines would see different pixels; make the files of the processors agree"
            )


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple | list) else value
