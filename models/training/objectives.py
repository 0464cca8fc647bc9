"""Objectives as pure tensor functions. Notation: B sequences, T tokens, V vocabulary entries.

Every function returns a SUM over tokens, never a mean: the loop divides once by the token count of the whole batch, so
that cutting a batch into pieces of unequal length changes nothing.
"""

from __future__ import annotations

import torch
from torch.nn.functional import cross_entropy


def next_token_logprobs(logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """log p(token t + 1 | tokens up to t), natural log: [B, T - 1], at least float32.

    logits: [B, T, V]; tokens: int64 [B, T].
    """
    scores = logits[:, :-1].to(torch.promote_types(logits.dtype, torch.float32))
    return -cross_entropy(scores.flatten(0, 1), tokens[:, 1:].flatten(), reduction="none").view(scores.shape[:2])


def sft_loss_sum(logprobs: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
    """Negative log-likelihood summed over the kept tokens: a scalar (DeepIntuit, stage 1: L = -E[log g(R*, y* | x)]).

    logprobs: float [B, T - 1] as `next_token_logprobs` gives them; keep: bool of the same shape, True where the
    predicted token counts in the loss (the completion), False on prompt and padding.
    """
    if logprobs.shape != keep.shape:
        raise ValueError(f"logprobs {tuple(logprobs.shape)} and keep {tuple(keep.shape)} must have the same shape")
    return -logprobs.masked_fill(~keep, 0.0).sum()
