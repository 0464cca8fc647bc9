"""Which label digits have, and which a segment of a trace argues for: the benchmark's own rule, so that traces can be held
against themselves. What learns from it names this file by its digest."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

LABELS = ("rising", "falling", "mixed")

_COMPARISON = re.compile(r"(\d)\s*([<>=])\s*(\d)")
_DIGITS = re.compile(r"\s*\d(\s+\d){3}\s*")


def label_of(digits: Sequence[int]) -> str:
    """`rising` if every digit is greater than the one before, `falling` if every one is smaller, else `mixed`.

    A tie is neither a rise nor a fall: one pair of equal neighbours makes the clip mixed.
    """
    if all(a < b for a, b in pairwise(digits)):
        return "rising"
    if all(a > b for a, b in pairwise(digits)):
        return "falling"
    return "mixed"


def label_argued(segment: str) -> str | None:
    """The label that four digits have, or that comparisons prove, or that is named last; None where nothing is argued.

    `3 5 2 9` argues for mixed, and so does `3<5 5>2`: two signs that differ, or one of equality, decide. Three signs alike
    are a rise or a fall; fewer prove nothing.
    """
    if _DIGITS.fullmatch(segment):
        return label_of([int(digit) for digit in segment.split()])
    signs = [sign for _, sign, _ in _COMPARISON.findall(segment)]
    if "=" in signs or len(set(signs)) > 1:
        return "mixed"
    if len(signs) >= 3:
        return "rising" if signs[0] == "<" else "falling"
    named = [word for word in re.findall(r"\w+", segment) if word in LABELS]
    return named[-1] if named else None
