"""What `sample` should find in a file, computed from the frames that were encoded."""

from __future__ import annotations

import numpy as np

from models.video.choose import SAMPLINGS
from models.video.clip import Clip
from models.video.frames import FrameSpec, fitted, on_screen_indices


def sample_array(video: np.ndarray, fps: float, spec: FrameSpec) -> Clip:
    """`sample` for frames already in memory, uint8 [T, H, W, 3], at a constant rate."""
    duration = len(video) / fps
    shown, chooser = spec.shown(duration), SAMPLINGS[spec.sampling]
    candidates = on_screen_indices(len(video), chooser.candidates * shown)
    pictures = fitted(video[candidates], spec)
    kept = chooser.choose(list(pictures), shown, spec.cell)
    return Clip(pictures[kept], [candidates[i] / fps for i in kept], duration)
