"""What an engine computes anyway, seen as it passes.

A look behind a completion (language/label_scores.py) is a step of its own. Where its tail is what the completion itself
says, the same distribution was there when that token was drawn; so what was asked for behind one completion is kept ready
from then on, and costs the next ones nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from models.language.label_scores import Found, Look

_MOST_TAILS = 1024  # that are watched for: answers that are written in ever new ways would add some without end

NAMED = "watched"  # the extra argument of a request that names it to the witness

Key = tuple[str, int | None]  # name of a request and seed of the sequence
Places = Mapping[int, Found]  # how many tokens stand before it -> what was seen there


class Witness:
    """Which tokens are wanted behind which tails, and what was seen of them in the sequences that run."""

    def __init__(self) -> None:
        self._wanted: dict[int, dict[tuple[int, ...], tuple[int, ...]]] = {}  # by the last token of a tail
        self._tails = 0
        self._seen: dict[str, dict[int | None, dict[int, dict[int, float]]]] = {}  # by request, seed, place and token

    def wants(self, last: int) -> bool:
        """Whether anything may be wanted behind this token."""
        return last in self._wanted

    def see(self, key: Key, said: Sequence[int], logprobs: Callable[[Sequence[int]], list[float]]) -> None:
        """Keep what is wanted behind these tokens; `logprobs` tells it of the next one."""
        for tail, ids in self._wanted.get(said[-1], {}).items():
            if tuple(said[-len(tail) :]) == tail:
                place = self._seen.setdefault(key[0], {}).setdefault(key[1], {}).setdefault(len(said), {})
                place.update(zip(ids, logprobs(ids), strict=True))

    def testimony(self, key: Key, said: Sequence[int]) -> Testimony:
        """What was seen of a sequence, once it has said all of these tokens."""
        return Testimony(tuple(said), self._seen.get(key[0], {}).get(key[1], {}), self._want)

    def forget(self, request: str) -> None:
        """A request is over."""
        self._seen.pop(request, None)

    def forget_all(self) -> None:
        self._seen.clear()

    def _want(self, tail: tuple[int, ...], ids: Sequence[int]) -> None:
        of_last = self._wanted.setdefault(tail[-1], {})
        if tail not in of_last:
            if self._tails == _MOST_TAILS:
                return
            self._tails += 1
        of_last[tail] = tuple({*of_last.get(tail, ()), *ids})


@dataclass(frozen=True)
class Testimony:
    """said: the tokens of a completion; places: what was seen in it; want: takes what would have been useful."""

    said: tuple[int, ...]
    places: Places
    want: Callable[[tuple[int, ...], Sequence[int]], None]

    def find(self, kept: int, look: Look) -> Found | None:
        """What a look behind the first `kept` tokens would find, if that was seen."""
        place = kept + len(look.tail)
        if not look.tail or self.said[kept:place] != look.tail:
            return None
        there = self.places.get(place, {})
        if all(token in there for token in look.ids):
            return {token: there[token] for token in look.ids}
        self.want(look.tail, look.ids)
        return None
