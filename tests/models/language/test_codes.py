"""Codes of one token each: chosen, given out in rotation, and their bias taken out again."""

import numpy as np
import pytest

from models.handwriting import tiny
from models.language import codes


@pytest.fixture(scope="module")
def tokenizer():
    return tiny.make_tokenizer()


@pytest.mark.parametrize("count", [1, 26, 36])
def test_codes_are_single_tokens_and_all_different(tokenizer, count):
    chosen = codes.choose(tokenizer, count)
    assert len(set(chosen)) == len(set(codes.code_ids(tokenizer, chosen))) == count
    assert chosen[:3] == ("A", "B", "C")[:count]


def test_a_tokenizer_may_have_too_few(tokenizer):
    with pytest.raises(ValueError, match="expected 5000 texts of one token each"):
        codes.choose(tokenizer, 5000)


def test_what_is_no_code_is_named(tokenizer):
    with pytest.raises(ValueError, match="code 'rising falling': expected one token"):
        codes.code_ids(tokenizer, ("A", "rising falling"))
    with pytest.raises(ValueError, match="expected different tokens, found A, A"):
        codes.code_ids(tokenizer, ("A", "A"))


def test_yes_and_no_are_the_first_pair_that_the_tokenizer_has(tokenizer):
    assert codes.yes_no(tokenizer) == ("yes", "no")  # of "Yes" it makes several tokens


def test_over_all_rotations_every_label_has_every_code_once():
    labels, given = ("x", "y", "z"), ("A", "B", "C", "D")
    rows = [codes.rotated(labels, given, by) for by in range(3)]
    assert rows[0] == {"x": "A", "y": "B", "z": "C"}
    assert all({row[label] for row in rows} == {"A", "B", "C"} for label in labels)
    with pytest.raises(ValueError, match="one for each of 3 labels, found 2"):
        codes.rotated(labels, ("A", "B"), 0)


def test_a_bias_towards_codes_falls_out_over_the_rotations():
    truth, bias = np.log([0.5, 0.3, 0.15, 0.05]), np.array([1.5, -0.2, 0.0, -2.0])
    rows = np.stack([np.array([truth[(code - by) % 4] for code in range(4)]) + bias + by for by in range(4)])
    assert codes.unrotated(rows) == pytest.approx(np.exp(truth), abs=1e-12)
    assert np.abs(np.exp(rows[0]) / np.exp(rows[0]).sum() - np.exp(truth)).max() > 0.2  # one question alone is biased
