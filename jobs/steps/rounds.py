"""Rounds of reinforcement learning in the table rl_rollouts: one append each, once and for all. Needs no Spark."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pyarrow.compute as pc
from deltalake import DeltaTable

from lake import table
from lake.commit import append, note_once
from models.training.rounds import Drawn
from schemas.rl_rollouts import RL_ROLLOUTS


@dataclass(frozen=True)
class Rounds:
    """models.training.rounds.Store of one training; picklable. note_id: of the run that draws, see Record."""

    root: str
    training_id: str
    run_id: str
    note_id: str

    def published(self, step: int) -> list[Drawn] | None:
        rows = self._rows(self._table(), pc.field("step") == step)
        return [_drawn(row) for row in sorted(rows, key=lambda row: row["place"])] if rows else None

    def successes(self, first: int, before: int) -> list[tuple[str, float]]:
        steps = (pc.field("step") >= first) & (pc.field("step") < before) & (pc.field("rollout_index") == 0)
        rows = self._rows(self._table(), steps, ["step", "place", "video_id", "group_success"])
        return [
            (row["video_id"], row["group_success"]) for row in sorted(rows, key=lambda row: (row["step"], row["place"]))
        ]

    def publish(self, step: int, drawn: Sequence[Drawn]) -> None:
        now, held = datetime.now(UTC), self._table()
        if self._rows(held, pc.field("step") == step, ["step"]):
            return
        rows = [
            {
                "training_id": self.training_id,
                "step": step,
                "video_id": one.video_id,
                "rollout_index": one.index,
                "place": place,
                "text": one.text,
                "labels": None if one.labels is None else list(one.labels),
                "consistent": one.consistent,
                "finish_reason": one.finish_reason,
                "token_ids": list(one.token_ids),
                "token_logprobs": list(one.logprobs),
                "old_logprobs": None if one.old is None else list(one.old),
                "rewards": list(one.rewards.items()),
                "reward": one.reward,
                "group_success": one.success,
                "run_id": self.run_id,
                "created_at": now,
            }
            for place, one in enumerate(drawn)
        ]
        if rows:
            land = partial(append, missing_at=held.version())
            note_once(RL_ROLLOUTS, self.root, rows, f"{self.training_id}/{step}", self.note_id, land=land)

    def _table(self) -> DeltaTable:
        return table.open_table(RL_ROLLOUTS, self.root)

    def _rows(self, held: DeltaTable, which: pc.Expression, columns: list[str] | None = None) -> list[dict[str, Any]]:
        mine = (pc.field("training_id") == self.training_id) & which
        return held.to_pyarrow_dataset().to_table(columns=columns, filter=mine).to_pylist()


def _drawn(row: dict[str, Any]) -> Drawn:
    return Drawn(
        row["video_id"],
        row["rollout_index"],
        tuple(row["token_ids"]),
        tuple(row["token_logprobs"]),
        row["text"],
        row["finish_reason"],
        None if row["labels"] is None else tuple(row["labels"]),
        row["consistent"],
        dict(_pairs(row["rewards"])),
        row["reward"],
        row["group_success"],
        None if row["old_logprobs"] is None else tuple(row["old_logprobs"]),
    )


def _pairs(found: Any) -> Iterable[tuple[str, float]]:
    return found.items() if isinstance(found, dict) else found
