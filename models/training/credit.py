"""Which reward teaches which tokens, and by how much.

`trace`: all rewards of a rollout teach all its tokens. `segment`: what is seen and what is made of it are two processes
(PA-GRPO, VideoP2R): rewards of the observation teach its tokens, those of the reasoning what comes behind it, and each is
held against the siblings' own. A guess that came right against what was seen then teaches nobody to see.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from models.language.answers import tokens_before
from models.training.rewards import OBSERVATION, REASONING, Rewards

Credit = Literal["trace", "segment"]
_CLOSED = "</observation>"


def gains(
    credit: Credit,
    rewards: Rewards,
    group: Sequence[Mapping[str, float]],
    of_group: Callable[[Sequence[float]], list[float]],
) -> list[tuple[float, float]]:
    """For each rollout of a group, how much its observation's tokens are to gain, and those behind it.

    group: its rewards by name; of_group: from the totals of a group to gains (softmax weights, advantages).
    """
    if credit == "trace":
        both = of_group([rewards.total(found) for found in group])
        return list(zip(both, both, strict=True))
    seen, argued = (of_group([rewards.total(found, part) for found in group]) for part in (OBSERVATION, REASONING))
    return list(zip(seen, argued, strict=True))


def by_token(tokenizer: Any, token_ids: Sequence[int], text: str, gain: tuple[float, float]) -> list[float]:
    """The gain of each token; one across the border counts as reasoning, as all do where no observation was closed."""
    seen, argued = gain
    if seen == argued:
        return [seen] * len(token_ids)
    end = text.find(_CLOSED)
    first = tokens_before(tokenizer, token_ids, text, end + len(_CLOSED))[0] if end >= 0 else 0
    return [seen] * first + [argued] * (len(token_ids) - first)
