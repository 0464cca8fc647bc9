"""Objectives against plain loops in float64, values and gradients; what each of them promises, by hand."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch

from models.training import objectives as own

B, P = 5, 7  # sequences, places
F64 = partial(torch.tensor, dtype=torch.float64)


def test_logprobs_of_the_next_token_by_hand():
    # softmax of (0, ln 3) is (1/4, 3/4); position 0 predicts token 1, position 1 predicts token 2
    logits = torch.tensor([[[0.0, math.log(3)], [math.log(3), 0.0], [9.0, 9.0]]])
    logprobs = own.next_token_logprobs(logits, torch.tensor([[0, 1, 1]]))
    torch.testing.assert_close(logprobs, torch.tensor([[math.log(3 / 4), math.log(1 / 4)]]))


def test_sft_loss_sums_over_kept_tokens_only():
    logprobs = torch.tensor([[-1.0, -2.0, -4.0], [-8.0, -16.0, -32.0]])
    keep = torch.tensor([[False, True, True], [True, False, False]])
    assert own.sft_loss_sum(logprobs, keep).item() == 14.0


def test_the_gradient_is_softmax_minus_one_hot():
    logits = torch.tensor([[[0.3, -0.7, 1.1], [0.0, 0.0, 0.0]]], requires_grad=True)
    tokens = torch.tensor([[0, 2]])
    own.sft_loss_sum(own.next_token_logprobs(logits, tokens), torch.tensor([[True]])).backward()
    expected = torch.softmax(logits[0, 0].detach(), -1) - torch.tensor([0.0, 0.0, 1.0])
    torch.testing.assert_close(logits.grad[0, 0], expected)
    assert logits.grad[0, 1].abs().sum() == 0  # the last position predicts nothing


def draw(seed: int, stale: float = 0.5):
    """Random log-probabilities that differ from the old ones by about `stale`, a mask of uneven lengths, advantages."""
    g = torch.Generator().manual_seed(seed)
    new = -torch.rand(B, P, generator=g, dtype=torch.float64) * 3
    old = new + stale * torch.randn(B, P, generator=g, dtype=torch.float64)
    other = old + 0.4 * torch.randn(B, P, generator=g, dtype=torch.float64)
    keep = torch.arange(P)[None] < torch.tensor([7, 1, 0, 4, 3])[:, None]
    return new.requires_grad_(), old, other, keep, torch.randn(B, generator=g, dtype=torch.float64)


def softmax_by_loop(new, old, other, keep, gain):
    return sum(-gain[b] * new[b, t] for b in range(B) for t in range(P) if keep[b, t])


def clipped_by_loop(new, old, other, keep, gain, low=0.2, high=0.28, cap=2.0):
    total = torch.zeros((), dtype=torch.float64)
    for b in range(B):
        for t in range(P):
            if keep[b, t]:
                ratio = torch.exp(new[b, t] - old[b, t])
                bounded = min(max(ratio, F64(1 - low)), F64(1 + high))
                weight = min(math.exp(old[b, t] - other[b, t]), cap)
                total = total - weight * min(ratio * gain[b], bounded * gain[b])
    return total


def grpo_by_loop(new, old, other, keep, gain, clip=0.2, beta=0.3):
    total = torch.zeros((), dtype=torch.float64)
    for b in range(B):
        own_total, count = torch.zeros((), dtype=torch.float64), 0
        for t in range(P):
            if keep[b, t]:
                ratio = torch.exp(new[b, t] - old[b, t])
                bounded = min(max(ratio, F64(1 - clip)), F64(1 + clip))
                away = torch.exp(other[b, t] - new[b, t]) - (other[b, t] - new[b, t]) - 1
                own_total, count = own_total - min(ratio * gain[b], bounded * gain[b]) + beta * away, count + 1
        total = total + own_total / max(count, 1)
    return total


def softmax(new, old, other, keep, gain):
    return own.softmax_loss_sum(new, keep, gain)


def clipped(new, old, other, keep, gain):
    return own.clipped_loss_sum(new, old, other, keep, gain, 0.2, 0.28, 2.0)


def grpo(new, old, other, keep, gain):
    return own.grpo_loss_sum(new, old, other, keep, gain, 0.2, 0.3)


PAIRS = [(softmax, softmax_by_loop), (clipped, clipped_by_loop), (grpo, grpo_by_loop)]
ALL = [pytest.param(*pair, id=pair[0].__name__) for pair in PAIRS]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("function", "loop"), ALL)
def test_values_and_gradients_are_those_of_a_plain_loop(function, loop, seed):
    drawn = draw(seed)
    expected = loop(*drawn)
    (gradient,) = torch.autograd.grad(expected, drawn[0])
    found = function(*drawn)
    (found_gradient,) = torch.autograd.grad(found, drawn[0])
    torch.testing.assert_close(found, expected.to(found), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found_gradient, gradient, rtol=1e-12, atol=1e-12)
    assert gradient.abs().sum() > 0


@pytest.mark.parametrize(("function", "loop"), ALL)
def test_what_is_masked_carries_nothing_whatever_stands_there(function, loop):
    new, old, other, keep, gain = draw(0)
    expected = function(new, old, other, keep, gain)
    with torch.no_grad():
        bad = [
            values.masked_fill(~keep, filler) for values, filler in ((new, -math.inf), (old, math.nan), (other, 9e9))
        ]
    leaf = bad[0].requires_grad_()
    found = function(leaf, bad[1], bad[2], keep, gain)
    torch.testing.assert_close(found, expected)
    (gradient,) = torch.autograd.grad(found, leaf)
    assert torch.isfinite(gradient).all() and (gradient[~keep] == 0).all()


@pytest.mark.parametrize(("function", "loop"), ALL)
def test_a_batch_cut_in_pieces_sums_to_the_whole(function, loop):
    new, old, other, keep, gain = draw(3)
    rows = [slice(0, 1), slice(1, 4), slice(4, 5)]
    parts = sum(function(new[r], old[r], other[r], keep[r], gain[r]) for r in rows)
    torch.testing.assert_close(parts, function(new, old, other, keep, gain))


def test_at_ratio_one_the_clipped_gradient_is_minus_advantage_times_that_of_log_p():
    """As of plain policy gradient (TRL's and verl's first step): d/d log p of -exp(log p - old) A at old = log p is -A."""
    new, _, _, keep, gain = draw(1)
    loss = own.clipped_loss_sum(new, new.detach(), new.detach(), keep, gain, 0.2, 0.28, 2.0)
    (gradient,) = torch.autograd.grad(loss, new)
    torch.testing.assert_close(gradient, -gain[:, None] * keep)


@pytest.mark.parametrize(
    ("log_ratio", "advantage", "moves"),
    [
        (0.5, 1.0, False),
        (0.5, -1.0, True),
        (-0.5, 1.0, True),
        (-0.5, -1.0, False),
        (0.24, 1.0, True),
        (-0.21, -1, True),
    ],
)
def test_stale_rollouts_are_clipped_on_the_side_where_they_would_run_away(log_ratio, advantage, moves):
    """What is good is not made more probable than 1.28 times, what is bad not less than .8 times; back is always allowed."""
    old = torch.tensor([[-2.0]])
    new = (old + log_ratio).requires_grad_()
    keep, gain = torch.tensor([[True]]), torch.tensor([float(advantage)])
    (gradient,) = torch.autograd.grad(own.clipped_loss_sum(new, old, old, keep, gain, 0.2, 0.28, 2.0), new)
    assert (gradient.abs().item() > 0) is moves


def test_a_token_that_the_engine_held_for_rarer_weighs_at_most_the_cap():
    new, keep, gain = torch.tensor([[-1.0]]), torch.tensor([[True]]), torch.tensor([1.0])
    for sampled, weight in ((-1.0, 1.0), (-0.5, math.exp(-0.5)), (-1.5, math.exp(0.5)), (-9.0, 2.0)):
        found = own.clipped_loss_sum(new, new, torch.tensor([[sampled]]), keep, gain, 0.2, 0.28, 2.0)
        assert found.item() == pytest.approx(-weight)


def test_softmax_weights_sum_to_one_and_do_not_see_a_shift():
    rewards = [0.0, 1.0, 2.0, 2.0]
    found = own.softmax_weights(rewards, 0.5)
    assert sum(found) == pytest.approx(1.0, abs=1e-12)
    assert found == pytest.approx(own.softmax_weights([r + 1000.0 for r in rewards], 0.5), abs=1e-12)
    shares = [math.exp(r / 0.5) for r in rewards]
    assert found == pytest.approx([s / sum(shares) for s in shares])
    assert own.softmax_weights([3.0, 3.0], 0.5) == [0.5, 0.5]  # no baseline: equal rewards still teach
    with pytest.raises(ValueError, match="tau: expected more than 0, found 0"):
        own.softmax_weights(rewards, 0)


def test_advantages_are_z_scores_of_the_group():
    found = own.group_advantages([0.0, 0.0, 1.0, 1.0])
    assert found == pytest.approx([-1.0, -1.0, 1.0, 1.0], abs=1e-3)
    assert sum(own.group_advantages([0.3, 2.0, 1.1])) == pytest.approx(0.0, abs=1e-12)
    assert own.group_advantages([0.7]) == [0.0] and own.group_advantages([0.1] * 8) == [0.0] * 8
    assert own.group_advantages([0.1 + 0.2, 0.3]) == [0.0, 0.0]  # equal but for rounding
    assert own.group_advantages([]) == []


def test_staying_at_the_reference_costs_nothing_and_leaving_it_does():
    new, _, _, keep, _ = draw(2)
    still = own.grpo_loss_sum(new, new, new, keep, torch.zeros(B, dtype=torch.float64), 0.2, 1.0)
    away = own.grpo_loss_sum(new, new, new + 0.5, keep, torch.zeros(B, dtype=torch.float64), 0.2, 1.0)
    assert still.item() == 0.0 and away.item() == pytest.approx(4 * (math.exp(0.5) - 1.5))  # four sequences have tokens


@pytest.mark.parametrize(("function", "loop"), ALL)
def test_a_mask_of_another_shape_is_refused(function, loop):
    new, old, other, _, gain = draw(0)
    with pytest.raises(ValueError, match="same shape"):
        function(new, old, other, torch.ones(B, P + 1, dtype=torch.bool), gain)
