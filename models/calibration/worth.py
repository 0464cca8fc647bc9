"""What a candidate is worth on videos that it has not seen: what its manifest says, and what speaks against promoting it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from models.calibration.crossfit import Examples, HeldOut, constant_nll
from models.evaluation.intervals import Interval, mean

VOTE = "vote"  # the calibrator that every other one has to beat
_COMPARED = ("minus_constant", "minus_vote")


@dataclass(frozen=True)
class Worth:
    """nll, nll_before: with its temperature and at temperature 1; accuracy; temperature: that of all videos.

    minus_constant, minus_vote: its NLL less that of saying how often each label comes, less that of the tempered vote, with
    the paired interval; None of the vote itself.
    """

    nll: float
    nll_before: float
    accuracy: float
    temperature: float
    minus_constant: Interval
    minus_vote: Interval | None = None

    @property
    def beats_constant(self) -> bool:
        """Whether it is known to be better than a constant guess; with one source nothing is known."""
        return self.minus_constant.high < 0

    @property
    def beats_vote(self) -> bool:
        return self.minus_vote is not None and self.minus_vote.high < 0

    def json(self) -> dict[str, Any]:
        """For the manifest, see `parse`."""
        plain = {name: value for name, value in vars(self).items() if isinstance(value, float)}
        ends = {name: value.json() for name, value in vars(self).items() if isinstance(value, Interval)}
        return plain | ends

    def figures(self) -> dict[str, float | Interval]:
        """By name, those that compare it with nothing."""
        return {name: value for name, value in vars(self).items() if isinstance(value, float)}


def parse(found: Mapping[str, Any]) -> Worth:
    """The worth that a manifest tells."""
    ends: dict[str, Any] = {name: Interval(**_with_nan(value)) for name, value in found.items() if name in _COMPARED}
    return Worth(**dict(found) | ends)


def _with_nan(ends: Mapping[str, float | None]) -> dict[str, float]:
    return {name: float("nan") if value is None else value for name, value in ends.items()}


def worth(own: HeldOut, vote: HeldOut | None, examples: Examples, labels: int) -> Worth:
    """What cross-fitting found of a candidate, against a constant guess and the vote; vote: None of the vote itself."""
    cluster = examples.cluster
    return Worth(
        nll=float(own.nll.mean()),
        nll_before=float(own.before.mean()),
        accuracy=float(own.right.mean()),
        temperature=own.temperature,
        minus_constant=mean(own.nll - constant_nll(examples, labels), cluster),
        minus_vote=None if vote is None else mean(own.nll - vote.nll, cluster),
    )


def doubt(kind: str, found: Worth | None) -> str:
    """What speaks against a candidate of a kind, "" for nothing. Nothing speaks against a vote that nobody measured."""
    if found is None:
        return "" if kind == VOTE else "not known to be better than the tempered vote: too few videos to compare them"
    if not found.beats_constant:
        return f"not known to be better than a constant guess (its NLL minus the other's: {found.minus_constant})"
    if kind != VOTE and not found.beats_vote:
        return f"not known to be better than the tempered vote (its NLL minus the other's: {found.minus_vote})"
    return ""
