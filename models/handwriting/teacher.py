"""The oracle teacher: knows the digits of a clip and writes the reasoning that a good trace would hold; and one that errs.

Traces follow the `observation` grammar of VideoP2R: what is seen, the reasoning over it, the answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from models.handwriting.rule import LABELS, label_of

_CLOSINGS = ("so", "thus", "hence")
LENGTHS = ("short", "medium", "long")
_SIGNS = ("<", ">", "=")
_TAGS = ("<observation>", "</observation>", "<think>", "</think>", "</answer>")


def observation(digits: Sequence[int]) -> str:
    """The perception part alone: `<observation>3 5 7 9</observation>`."""
    return f"<observation>{' '.join(map(str, digits))}</observation>"


def trace(digits: Sequence[int], seed: int, length: str = "medium") -> str:
    """A whole trace: `<observation>3 5 2 9</observation><think>3<5 5>2 so mixed</think><answer>mixed</answer>`.

    The wording varies with `seed`: the closing word, and whether the comparisons of a mixed clip stop where the case is
    decided. length: one of LENGTHS; a short trace concludes without a comparison, a long one reads each pair again first
    (`3 5 3<5 5 2 5>2 2 9 2<9 so mixed`).
    """
    return _written(digits, _signs(digits), np.random.default_rng((seed, *digits)), length)


def erring(digits: Sequence[int], rate: float, seed: int) -> str:
    """`trace`, but wrong with probability `rate`: in one of the ways of ERRORS, each as probable as the others."""
    draw = np.random.default_rng((seed, len(ERRORS)))
    if draw.random() >= rate:
        return trace(digits, seed)
    return wrong(list(ERRORS)[draw.integers(len(ERRORS))], digits, seed)


def wrong(error: str, digits: Sequence[int], seed: int) -> str:
    """A trace with one of ERRORS. What is read or compared wrong is reasoned on from, as a model would: the answer may still
    be right, as it often is of a mixed clip."""
    return ERRORS[error](digits, seed, np.random.default_rng((seed, *digits, len(ERRORS))))


def _wrong_digit(digits: Sequence[int], seed: int, draw: np.random.Generator) -> str:
    place = int(draw.integers(len(digits)))
    seen = list(digits)
    seen[place] = int(draw.choice([digit for digit in range(10) if digit != digits[place]]))
    return trace(seen, seed)


def _wrong_sign(digits: Sequence[int], seed: int, draw: np.random.Generator) -> str:
    signs = _signs(digits)
    place = int(draw.integers(_deciding(signs)))  # those behind may be left out
    signs[place] = str(draw.choice([sign for sign in _SIGNS if sign != signs[place]]))
    return _written(digits, signs, np.random.default_rng((seed, *digits)))


def _wrong_answer(digits: Sequence[int], seed: int, draw: np.random.Generator) -> str:
    other = draw.choice([label for label in LABELS if label != label_of(digits)])
    return f"{trace(digits, seed).rpartition('<answer>')[0]}<answer>{other}</answer>"


def _broken_grammar(digits: Sequence[int], seed: int, draw: np.random.Generator) -> str:
    return trace(digits, seed).replace(str(draw.choice(_TAGS)), "")


# How a teacher errs: a digit seen that is none of the clip's, a comparison with the wrong sign, an answer that contradicts
# the thinking before it, a tag that is missing.
ERRORS = {"digit": _wrong_digit, "sign": _wrong_sign, "answer": _wrong_answer, "grammar": _broken_grammar}


def _signs(digits: Sequence[int]) -> list[str]:
    """How each digit compares with the next one."""
    return ["<" if a < b else ">" if a > b else "=" for a, b in pairwise(digits)]


def _deciding(signs: Sequence[str]) -> int:
    """How many comparisons it takes to know the label: all, unless the clip is mixed."""
    decided = (n for n in range(1, len(signs) + 1) if signs[n - 1] == "=" or len(set(signs[:n])) > 1)
    return next(decided, len(signs))


def _written(digits: Sequence[int], signs: Sequence[str], rng: np.random.Generator, length: str = "medium") -> str:
    """A trace that sees these digits, finds these signs between them and answers as the signs say."""
    mixed = "=" in signs or len(set(signs)) > 1
    label = "mixed" if mixed else "rising" if signs[0] == "<" else "falling"
    steps = [f"{a}{sign}{b}" for (a, b), sign in zip(pairwise(digits), signs, strict=True)]
    if mixed and rng.random() < 0.5:
        steps = steps[: _deciding(signs)]
    if length == "long":
        steps = [f"{step[0]} {step[-1]} {step}" for step in steps]
    steps = [] if length == "short" else steps
    closing = _CLOSINGS[rng.integers(len(_CLOSINGS))]
    return f"{observation(digits)}<think>{' '.join([*steps, closing, label])}</think><answer>{label}</answer>"
