"""How long a prompt is at most: exactly where the model folder has its tokenizer, else by its characters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import Any

from jobs.runtime.errors import UsageError
from models.engines.config import config_of
from models.engines.folder import TIME_WORDS, check_folder
from models.footprint.shape import Shape
from models.video.cell import cell_of
from models.video.frames import FrameSpec

CHARACTERS_PER_TOKEN = 3.0  # assumed where no tokenizer is there; English prose has about 4.5
_TEMPLATE_TOKENS = 32  # assumed likewise: what a chat template adds around a turn
ASSUMED = {"characters_per_token": CHARACTERS_PER_TOKEN, "template_tokens": _TEMPLATE_TOKENS}


@dataclass(frozen=True)
class Prompt:
    """Tokens at most. text: beside the pictures, times told in words and what came with the video included; video: of its
    pictures; patches: of which these were merged; counted: how the text was counted."""

    text: int
    video: int
    patches: int
    counted: str

    @property
    def tokens(self) -> int:
        return self.text + self.video


def shown(folder: str, shape: Shape, frames: dict[str, Any]) -> FrameSpec:
    """What the model sees of a video. Raises UsageError for frames that it cannot be shown."""
    try:
        try:
            cell = cell_of(folder)
        except ValueError:
            cell = shape.cell  # no processor there: what the model's own configuration says
        return FrameSpec(**frames, cell=cell)
    except ValueError as error:
        raise UsageError(f"frames: {error}") from None


def prompt_of(folder: str, shape: Shape, spec: FrameSpec, user_text: str, texts: Sequence[tuple[str, int]]) -> Prompt:
    """The longest prompt that these settings give; texts: fields beside the video, with their most characters."""
    try:
        asked, counted = check_folder(folder, user_text, None, spec) - spec.most_tokens, "its tokenizer"
    except ValueError:
        words = TIME_WORDS.get(str(config_of(folder).get("model_type")), "")
        characters = len(user_text) + len(words) * spec.most_steps
        asked = ceil(characters / CHARACTERS_PER_TOKEN) + _TEMPLATE_TOKENS
        counted = f"{CHARACTERS_PER_TOKEN:g} characters a token, as no processor with a tokenizer loads from there"
    told = sum(len(f"\n{field}: ") + most for field, most in texts)  # of most scripts a token holds a character or more
    return with_frames(Prompt(asked + told, 0, 0, counted), shape, spec)


def with_frames(prompt: Prompt, shape: Shape, spec: FrameSpec) -> Prompt:
    """The same text with other frames."""
    return replace(prompt, video=spec.most_tokens, patches=spec.most_tokens * shape.merged)
