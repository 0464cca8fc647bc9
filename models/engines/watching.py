"""A logits processor of vLLM that changes nothing and lets a witness look at every step."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from vllm.v1.sample.logits_processor import LogitsProcessor, process_dict_updates

from models.engines.witness import NAMED, Key, Witness


def watching(witness: Witness) -> type[LogitsProcessor]:
    """The class that vLLM constructs, bound to this witness."""
    return type("Watching", (_Watching,), {"witness": witness})


class _Watching(LogitsProcessor):
    witness: Witness

    def __init__(self, vllm_config: Any, device: torch.device, is_pin_memory: bool) -> None:
        self._rows: dict[int, tuple[Key, list[int]]] = {}  # by place in the batch: its key, and the tokens it has said

    def is_argmax_invariant(self) -> bool:
        return False  # those come before temperature and penalties: what is wanted is the raw distribution

    def update_state(self, batch_update: Any) -> None:
        process_dict_updates(self._rows, batch_update, _watched)

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        wants = self.witness.wants
        for row, (key, said) in self._rows.items():
            if said and wants(said[-1]):
                self.witness.see(key, said, partial(_logprobs, logits[row]))
        return logits


def _logprobs(logits: torch.Tensor, ids: Sequence[int]) -> list[float]:
    return logits.log_softmax(-1)[list(ids)].tolist()


def _watched(params: Any, _: Any, said: list[int]) -> tuple[Key, list[int]] | None:
    name = (params.extra_args or {}).get(NAMED)
    return ((name, params.seed), said) if name else None
