"""First sight: the vision tower alone learns to tell digits apart, before the language model is asked to read them.

A real VLM joins a vision tower that was trained beforehand; so does the tiny one. Reading a digit off a frame is a far
denser signal than a sentence about a clip, and a step costs a fraction of one through the whole model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from models.handwriting import tiny
from models.handwriting.scenes import Scene, render
from models.video.clip import Clip
from models.video.frames import fitted, on_screen_indices
from models.video.processors import processor_inputs


class Sight(torch.nn.Module):
    """The vision tower of a model with a linear head over the mean of each temporal step's tokens."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.tower = model.model.visual
        self.head = torch.nn.Linear(model.config.text_config.hidden_size, 10)

    def forward(self, pixels: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
        """Scores of the ten digits for every temporal step: [steps, 10] from patches and their grid, int64 [clips, 3]."""
        tokens = self.tower(pixels, grid_thw=grid).pooler_output
        steps = grid[:, 0].tolist()
        clips = tokens.split((grid.prod(1) // self.tower.spatial_merge_unit).tolist())
        return self.head(
            torch.cat([own.view(n, -1, own.shape[-1]).mean(1) for n, own in zip(steps, clips, strict=True)])
        )


@dataclass(frozen=True)
class SightMicro:
    """Clips as patches. digit: int64 [steps], what each temporal step shows; -100 where it shows none or two."""

    pixels: torch.Tensor
    grid: torch.Tensor
    digit: torch.Tensor

    @property
    def weight(self) -> float:
        return float((self.digit >= 0).sum())


def sight_loss(model: Sight, micro: SightMicro) -> torch.Tensor:
    """Cross-entropy summed over the temporal steps that show one digit."""
    return cross_entropy(model(micro.pixels, micro.grid), micro.digit, ignore_index=-100, reduction="sum")


def sight_batch(processor: Any, scenes: Sequence[Scene], videos: Sequence[Clip]) -> SightMicro:
    """Scenes as one batch; `videos` are what `sampled` gives of them."""
    inputs = processor.video_processor(**processor_inputs(videos), return_tensors="pt")
    digit = torch.tensor([shown for scene in scenes for shown in steps_of(scene)])
    return SightMicro(inputs["pixel_values_videos"], inputs["video_grid_thw"], digit)


def sampled(scene: Scene) -> Clip:
    """What `frames.sample` would give of the scene's file, but for the codec; renders only the frames that are kept."""
    kept = _kept(scene)
    pictures = fitted(render(scene, kept), tiny.FRAMES)
    return Clip(pictures, [i / scene.fps for i in kept], scene.frames / scene.fps)


def steps_of(scene: Scene) -> list[int]:
    """The digit that each temporal step (a pair of sampled frames) shows, -100 for none or two."""
    seen = [scene.shows(i) for i in _kept(scene)]
    pairs = [{digit for digit in seen[i : i + 2] if digit is not None} for i in range(0, len(seen), 2)]
    return [pair.pop() if len(pair) == 1 else -100 for pair in pairs]


def _kept(scene: Scene) -> list[int]:
    return on_screen_indices(scene.frames, tiny.FRAMES.shown(scene.frames / scene.fps))
