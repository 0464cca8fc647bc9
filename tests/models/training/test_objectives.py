import math

import pytest
import torch

from models.training.objectives import next_token_logprobs, sft_loss_sum


def test_logprobs_of_the_next_token_by_hand():
    # softmax of (0, ln 3) is (1/4, 3/4); position 0 predicts token 1, position 1 predicts token 2
    logits = torch.tensor([[[0.0, math.log(3)], [math.log(3), 0.0], [9.0, 9.0]]])
    logprobs = next_token_logprobs(logits, torch.tensor([[0, 1, 1]]))
    torch.testing.assert_close(logprobs, torch.tensor([[math.log(3 / 4), math.log(1 / 4)]]))


def test_sft_loss_sums_over_kept_tokens_only():
    logprobs = torch.tensor([[-1.0, -2.0, -4.0], [-8.0, -16.0, -32.0]])
    keep = torch.tensor([[False, True, True], [True, False, False]])
    assert sft_loss_sum(logprobs, keep).item() == 14.0


def test_an_impossible_token_outside_the_mask_does_not_poison_the_sum():
    logprobs = torch.tensor([[-math.inf, -2.0]])
    assert sft_loss_sum(logprobs, torch.tensor([[False, True]])).item() == 2.0


def test_the_gradient_is_softmax_minus_one_hot():
    logits = torch.tensor([[[0.3, -0.7, 1.1], [0.0, 0.0, 0.0]]], requires_grad=True)
    tokens = torch.tensor([[0, 2]])
    sft_loss_sum(next_token_logprobs(logits, tokens), torch.tensor([[True]])).backward()
    expected = torch.softmax(logits[0, 0].detach(), -1) - torch.tensor([0.0, 0.0, 1.0])
    torch.testing.assert_close(logits.grad[0, 0], expected)
    assert logits.grad[0, 1].abs().sum() == 0  # the last position predicts nothing


def test_a_mask_of_another_shape_is_refused():
    with pytest.raises(ValueError, match="same shape"):
        sft_loss_sum(torch.zeros(1, 3), torch.ones(1, 4, dtype=torch.bool))
