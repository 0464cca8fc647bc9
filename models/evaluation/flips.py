"""Which videos one method mends or breaks beside another."""

from __future__ import annotations

from collections.abc import Sequence

from models.evaluation.figures import Predictions
from models.evaluation.methods import Case


def flips(a: Predictions, b: Predictions, cases: Sequence[Case]) -> dict[str, list[str]]:
    """Videos of which one is right and the other is not, and those where both are wrong in different ways: by what happened.

    Of independent labels a video counts where all its answers are right.
    """
    right: list[dict[int, bool]] = []
    for rows in (a, b):
        of_case: dict[int, bool] = {}
        for case, one in zip(rows.case.tolist(), rows.right.tolist(), strict=True):
            of_case[case] = of_case.get(case, True) and bool(one)
        right.append(of_case)
    differ = {
        case
        for case, one, other in zip(a.case.tolist(), a.guess.tolist(), b.guess.tolist(), strict=True)
        if one != other
    }
    found: dict[str, list[str]] = {"mended": [], "broken": [], "wrong otherwise": []}
    for number, case in enumerate(cases):
        before, after = right[0][number], right[1][number]
        if before != after:
            found["mended" if after else "broken"].append(case.video_id)
        elif not after and number in differ:
            found["wrong otherwise"].append(case.video_id)
    return found
