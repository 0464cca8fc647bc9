"""What a round of reinforcement learning drew: its rollouts by video, where they are kept, and its figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np


@dataclass(frozen=True)
class Drawn:
    """One rollout of a round. logprobs: of the engine that drew it, by token; old: of the trainer's model at that time,
    where a round has several updates. rewards: by name; success: share of its group that answers right."""

    video_id: str
    index: int
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    text: str
    finish_reason: str
    labels: tuple[str, ...] | None
    consistent: bool
    rewards: dict[str, float]
    reward: float
    success: float
    old: tuple[float, ...] | None = None


class Store(Protocol):
    """Where rounds are kept."""

    def published(self, step: int) -> list[Drawn] | None:
        """What the round of this step drew, in order; None where it has not been drawn."""
        ...

    def successes(self, first: int, before: int) -> list[tuple[str, float]]:
        """Videos of the rounds of these steps, each with its group's success, in order of the steps."""
        ...

    def publish(self, step: int, drawn: Sequence[Drawn]) -> None:
        """Keep a round, once and for all."""
        ...


def groups(drawn: Sequence[Drawn]) -> list[list[Drawn]]:
    """The rollouts of each video, videos in the order in which they come."""
    found: dict[str, list[Drawn]] = {}
    for one in drawn:
        found.setdefault(one.video_id, []).append(one)
    return list(found.values())


def figures(drawn: Sequence[Drawn], telling: int, collapsed: int, seconds: float | None) -> dict[str, float]:
    """Shares and means over a round's rollouts, by name; none of a round without any.

    telling: groups that something is learned from; collapsed: whose advantages are all zero; seconds: that drawing it took,
    None where it was read.
    """
    if not drawn:
        return {}
    by_video, tokens = groups(drawn), sum(len(one.token_ids) for one in drawn)
    found = {
        "reward": np.mean([one.reward for one in drawn]),
        "success": np.mean([group[0].success for group in by_video]),
        "collapse": collapsed / len(by_video),
        "consistency": np.mean([one.consistent for one in drawn]),
        "entropy": -np.sum([np.sum(one.logprobs) for one in drawn]) / max(1, tokens),
        "length": tokens / len(drawn),
        "parsed": np.mean([one.labels is not None for one in drawn]),
        "cut": np.mean([one.finish_reason == "length" for one in drawn]),
        "rollouts": len(drawn),
        "groups": telling,
    }
    rewards = {f"reward/{name}": np.mean([one.rewards[name] for one in drawn]) for name in drawn[0].rewards}
    speed = {} if seconds is None else {"rollout_tokens_per_second": tokens / max(seconds, 1e-9)}
    return {name: float(value) for name, value in (found | rewards | speed).items()}
