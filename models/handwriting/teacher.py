"""The oracle teacher: knows the digits of a clip and writes the reasoning that a good trace would hold.

Traces follow the `observation` grammar of VideoP2R: what is seen, the reasoning over it, the answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from models.handwriting.rule import label_of

_CLOSINGS = ("so", "thus", "hence")


def observation(digits: Sequence[int]) -> str:
    """The perception part alone: `<observation>3 5 7 9</observation>`."""
    return f"<observation>{' '.join(map(str, digits))}</observation>"


def trace(digits: Sequence[int], seed: int) -> str:
    """A whole trace: `<observation>3 5 2 9</observation><think>3<5 5>2 so mixed</think><answer>mixed</answer>`.

    The wording varies with `seed`: the closing word, and whether the comparisons of a mixed clip stop where the case is
    decided.
    """
    rng = np.random.default_rng((seed, *digits))
    label = label_of(digits)
    signs = ["<" if a < b else ">" if a > b else "=" for a, b in pairwise(digits)]
    steps = [f"{a}{sign}{b}" for (a, b), sign in zip(pairwise(digits), signs, strict=True)]
    if label == "mixed" and rng.random() < 0.5:
        steps = steps[: next(n for n in range(1, 4) if signs[n - 1] == "=" or len(set(signs[:n])) > 1)]
    closing = _CLOSINGS[rng.integers(len(_CLOSINGS))]
    return f"{observation(digits)}<think>{' '.join(steps)} {closing} {label}</think><answer>{label}</answer>"
