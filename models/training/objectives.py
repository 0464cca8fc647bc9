"""Objectives as pure tensor functions. Notation: B sequences, T tokens, V vocabulary entries, K rollouts of one video.

Every loss is a SUM, never a mean: the loop divides once by the denominator of the whole batch, which each objective
states, so that cutting a batch into pieces of unequal length, or spreading it over processes, changes nothing.

`keep` is bool [B, T - 1], True where the predicted token counts in the loss (the completion), False on prompt and padding.
`gain`, a softmax weight or an advantage, is float [B], or [B, T - 1] where tokens of one sequence differ.
What stands in places that do not count is looked at by no function here, be it infinite or NaN.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn.functional import cross_entropy

_SAME = 1e-9
_SPREAD = 1e-4  # added to a group's standard deviation, so that rewards which hardly differ do not decide all


def next_token_logprobs(logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """log p(token t + 1 | tokens up to t), natural log: [B, T - 1], at least float32.

    logits: [B, T, V]; tokens: int64 [B, T].
    """
    scores = logits[:, :-1].to(torch.promote_types(logits.dtype, torch.float32))
    return -cross_entropy(scores.flatten(0, 1), tokens[:, 1:].flatten(), reduction="none").view(scores.shape[:2])


def sft_loss_sum(logprobs: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
    """Negative log-likelihood summed over the kept tokens (DeepIntuit, stage 1: L = -E[log g(R*, y* | x)]).

    logprobs: float [B, T - 1] as `next_token_logprobs` gives them. Denominator: kept tokens of the batch.
    """
    _check_shapes(keep, logprobs=logprobs)
    return -logprobs.masked_fill(~keep, 0.0).sum()


def softmax_weights(rewards: Sequence[float], tau: float) -> list[float]:
    """exp(r_k / tau) / sum_j exp(r_j / tau) over one group (DeepIntuit, stage 2, as printed): at least 0, summing to 1.

    There is no baseline: where all rewards of a group are equal, all its rollouts are made more probable alike, right or
    wrong. On average that moves nothing, the rollouts being the model's own; in a single group it is noise. A small tau
    takes the best rollouts alone.
    """
    if tau <= 0:
        raise ValueError(f"tau: expected more than 0, found {tau}")
    return torch.softmax(torch.tensor(list(rewards), dtype=torch.float64) / tau, 0).tolist()


def group_advantages(rewards: Sequence[float]) -> list[float]:
    """Rewards of one group as z-scores (GRPO): minus their mean, divided by their (population) standard deviation.

    A group of one, or of equal rewards, has nothing to compare: all zeros.
    """
    values = torch.tensor(list(rewards), dtype=torch.float64)
    # Sums of the same rewards in another order are no other reward.
    if len(values) < 2 or float(values.max() - values.min()) < _SAME:
        return [0.0] * len(values)
    return ((values - values.mean()) / (values.std(correction=0) + _SPREAD)).tolist()


def softmax_loss_sum(logprobs: torch.Tensor, keep: torch.Tensor, gain: torch.Tensor) -> torch.Tensor:
    """-sum_k w_k log g(R_k, y_k | x) (DeepIntuit, stage 2: objective `softmax`).

    gain: those of `softmax_weights`. Denominator: videos; a piece's weight is its number of sequences / K.
    """
    _check_shapes(keep, logprobs=logprobs)
    return -(_by_token(gain) * logprobs.masked_fill(~keep, 0.0)).sum()


def clipped_loss_sum(
    logprobs: torch.Tensor,
    old: torch.Tensor,
    sampled: torch.Tensor,
    keep: torch.Tensor,
    gain: torch.Tensor,
    low: float,
    high: float,
    cap: float,
) -> torch.Tensor:
    """-sum_t min(r A, clip(r, 1 - low, 1 + high) A) with r = p / p_old, each token times min(p_old / p_sampled, cap)
    (objective `clipped`: DAPO, as in DeepIntuit's public code).

    old: log-probabilities [B, T - 1] of the trainer's model as it drew; sampled: those that the engine drew by, which may
    compute a little differently; gain: advantages. None of them is differentiated. Denominator: kept tokens.
    """
    _check_shapes(keep, logprobs=logprobs, old=old, sampled=sampled)
    new, was, drawn = (values.masked_fill(~keep, 0.0) for values in (logprobs, old.detach(), sampled))
    importance = (was - drawn).exp().clamp(max=cap)
    return (importance * _surrogate(new - was, gain, low, high)).masked_fill(~keep, 0.0).sum()


def grpo_loss_sum(
    logprobs: torch.Tensor,
    old: torch.Tensor,
    reference: torch.Tensor,
    keep: torch.Tensor,
    gain: torch.Tensor,
    clip: float,
    beta: float,
) -> torch.Tensor:
    """Per sequence the mean over its tokens of -min(r A, clip(r, 1 - clip, 1 + clip) A) + beta KL(p | p_ref), with the
    estimator KL = p_ref / p - log(p_ref / p) - 1 (objective `grpo`: DeepSeekMath, arXiv 2402.03300).

    reference: log-probabilities [B, T - 1] of the model to stay near to, not differentiated. A sequence without a kept token
    counts as zero. Denominator: sequences.
    """
    _check_shapes(keep, logprobs=logprobs, old=old, reference=reference)
    new, was, near = (values.masked_fill(~keep, 0.0) for values in (logprobs, old.detach(), reference.detach()))
    distance = (near - new).exp() - (near - new) - 1.0
    by_token = (_surrogate(new - was, gain, clip, clip) + beta * distance).masked_fill(~keep, 0.0)
    return (by_token.sum(1) / keep.sum(1).clamp(min=1)).sum()


def _surrogate(log_ratio: torch.Tensor, gain: torch.Tensor, low: float, high: float) -> torch.Tensor:
    """PPO's clipped loss of every token: [B, T - 1]."""
    ratio, advantage = log_ratio.exp(), _by_token(gain)
    return -torch.minimum(ratio * advantage, ratio.clamp(1.0 - low, 1.0 + high) * advantage)


def _by_token(gain: torch.Tensor) -> torch.Tensor:
    return gain if gain.dim() == 2 else gain[:, None]


def _check_shapes(keep: torch.Tensor, **values: torch.Tensor) -> None:
    for name, tensor in values.items():
        if tensor.shape != keep.shape:
            raise ValueError(f"{name} {tuple(tensor.shape)} and keep {tuple(keep.shape)} must have the same shape")
