"""The teacher that errs: as often as it was told to, in ways that have a name, the same for the same seed."""

from __future__ import annotations

import re
from itertools import product

import pytest

from models.handwriting import teacher
from models.handwriting.rule import LABELS, label_of
from models.language.grammar import parse

CLIPS = [(digits, seed) for seed, digits in enumerate(product((0, 3, 4, 7), repeat=4))] + [
    (digits, seed) for seed, digits in enumerate([(1, 4, 6, 9), (9, 5, 3, 0), (0, 2, 3, 8), (8, 7, 2, 1)] * 40)
]


def parts(text: str) -> tuple[str, list[tuple[str, str, str]], str, str]:
    """What was seen, compared, concluded and answered."""
    seen, thought, answer = re.fullmatch(
        "<observation>(.*)</observation><think>(.*)</think><answer>(.*)</answer>", text
    ).groups()
    return seen, re.findall(r"(\d)([<>=])(\d)", thought), thought.split()[-1], answer


def test_at_rate_0_it_is_the_oracle_and_at_rate_1_never():
    for digits, seed in CLIPS:
        assert teacher.erring(digits, 0.0, seed) == teacher.trace(digits, seed)
        assert teacher.erring(digits, 1.0, seed) != teacher.trace(digits, seed)


@pytest.mark.parametrize("rate", [0.2, 0.5])
def test_it_errs_as_often_as_it_is_told_to(rate):
    drawn = [
        teacher.erring(digits, rate, 1000 * more + seed) != teacher.trace(digits, 1000 * more + seed)
        for more in range(4)
        for digits, seed in CLIPS
    ]
    assert sum(drawn) / len(drawn) == pytest.approx(rate, abs=0.035)  # three standard deviations
    assert teacher.erring((3, 5, 2, 9), rate, 7) == teacher.erring([3, 5, 2, 9], rate, 7)


def test_every_error_is_the_one_that_it_is_called():
    for digits, seed in CLIPS:
        right = parts(teacher.trace(digits, seed))
        seen, compared, thought, answer = parts(teacher.wrong("digit", digits, seed))
        assert sum(a != b for a, b in zip(seen.split(), right[0].split(), strict=True)) == 1
        assert answer == thought == label_of([int(digit) for digit in seen.split()])

        seen, compared, thought, answer = parts(teacher.wrong("sign", digits, seed))
        assert seen == right[0] and answer == thought
        assert sum(sign != {-1: "<", 0: "=", 1: ">"}[(a > b) - (a < b)] for a, sign, b in compared) == 1

        seen, compared, thought, answer = parts(teacher.wrong("answer", digits, seed))
        assert (seen, compared, thought) == right[:3] and answer != thought and answer in LABELS

        broken = parse(teacher.wrong("grammar", digits, seed), "observation", LABELS)
        assert not broken.well_formed
    assert list(teacher.ERRORS) == ["digit", "sign", "answer", "grammar"]


def test_all_errors_come_about_equally_often():
    drawn = [teacher.erring(digits, 1.0, seed) for digits, seed in CLIPS]
    by_error = {
        error: sum(text == teacher.wrong(error, *clip) for text, clip in zip(drawn, CLIPS, strict=True))
        for error in teacher.ERRORS
    }
    assert min(by_error.values()) > 0.18 * len(CLIPS), by_error
