"""First reading: the language model alone learns to quote what stands before it and to order digits.

A real VLM joins a language model that was trained beforehand, on text that has nothing to do with any video. Without this
the tiny one would look at the clip again for what it has just said of it, and reason about digits that it never named.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy

_JOINTS = (" ", "-", ",", ":", "/", "+")
_SAME = 0.15  # pairs of equal digits, which chance alone would make rare


class Reading(torch.nn.Module):
    """The language model of a vision-language model with its head; the vision tower is no part of it."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.body, self.head = model.model.language_model, model.lm_head

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Logits of the token that follows each: [B, T, vocabulary] from int64 [B, T]."""
        return self.head(self.body(input_ids=tokens, use_cache=False).last_hidden_state)


@dataclass(frozen=True)
class ReadingMicro:
    """tokens: int64 [B, T]."""

    tokens: torch.Tensor

    @property
    def weight(self) -> float:
        return float(self.tokens[:, 1:].numel())


def reading_loss(model: Reading, micro: ReadingMicro) -> torch.Tensor:
    """Cross-entropy summed over every token but the first of each text."""
    return cross_entropy(model(micro.tokens[:, :-1]).flatten(0, 1), micro.tokens[:, 1:].flatten(), reduction="sum")


def reading_batch(tokenizer: Any, seeds: Sequence[tuple[int, ...]], length: int) -> ReadingMicro:
    """One text of `length` tokens for each seed."""
    texts = [text(seed, 4 * length) for seed in seeds]
    return ReadingMicro(torch.tensor([tokenizer(each)["input_ids"][:length] for each in texts]))


def text(seed: tuple[int, ...], characters: int) -> str:
    """Sentences, at least so many characters: digits quoted (`3 5 2 so 3 5 2.`), quoted by neighbours (`3 5 2 so 3-5 5-2.`),
    and ordered (`3<5 7>2 4=4 0<9.`)."""
    draw, said = np.random.default_rng(seed), list[str]()
    while sum(map(len, said)) < characters:
        said.append(_SENTENCES[draw.integers(len(_SENTENCES))](draw))
    return " ".join(said)


def _quoted(draw: np.random.Generator) -> str:
    digits = " ".join(map(str, _some(draw)))
    return f"{digits} so {digits}."


def _quoted_by_neighbours(draw: np.random.Generator) -> str:
    digits, joint = _some(draw), _JOINTS[draw.integers(len(_JOINTS))]
    return f"{' '.join(map(str, digits))} so {' '.join(f'{a}{joint}{b}' for a, b in pairwise(digits))}."


def _ordered(draw: np.random.Generator) -> str:
    pairs = [(a, a if draw.random() < _SAME else b) for a, b in draw.integers(0, 10, (4, 2)).tolist()]
    return " ".join(f"{a}{'<' if a < b else '>' if a > b else '='}{b}" for a, b in pairs) + "."


def _some(draw: np.random.Generator) -> list[int]:
    return draw.integers(0, 10, draw.integers(2, 6)).tolist()


_SENTENCES = (_quoted, _quoted_by_neighbours, _ordered)
