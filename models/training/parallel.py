"""Several processes that train one model together, and one process alone, behind the same few words.

Every process has the whole model (`ddp`): gradients are SUMMED over them, as the losses are sums, and divided by the weight
of what all of them saw. So it is the same whether a batch is cut into pieces or spread over processes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import zip_longest
from typing import Any, TypeVar

import torch
from torch import distributed

Item = TypeVar("Item")


def rank() -> int:
    return distributed.get_rank() if _several() else 0


def size() -> int:
    return distributed.get_world_size() if _several() else 1


def share(items: Sequence[Item]) -> list[Item]:
    """What this process takes of them: every size-th."""
    return list(items[rank() :: size()])


def summed(*values: float) -> list[float]:
    """Each value summed over all processes."""
    if not _several():
        return list(values)
    tensor = torch.tensor(values, dtype=torch.float64)
    distributed.all_reduce(tensor)
    return tensor.tolist()


def sum_gradients(parameters: Iterable[torch.nn.Parameter]) -> None:
    """Every parameter's gradient summed over all processes; one that has none on this process counts as zero."""
    if not _several():
        return
    parameters = list(parameters)
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    flat = torch.cat([parameter.grad.flatten() for parameter in parameters if parameter.grad is not None])
    distributed.all_reduce(flat)
    parts = flat.split([parameter.numel() for parameter in parameters])
    for parameter, part in zip(parameters, parts, strict=True):
        parameter.grad = part.view_as(parameter)


def gathered(items: Sequence[Item]) -> list[Item]:
    """What all processes have, undoing `share`: first items first."""
    if not _several():
        return list(items)
    found: list[Any] = [None] * size()
    distributed.all_gather_object(found, list(items))
    missing = object()
    return [item for row in zip_longest(*found, fillvalue=missing) for item in row if item is not missing]


def told(value: Any) -> Any:
    """What the first process has, in all of them."""
    if not _several():
        return value
    held = [value]
    distributed.broadcast_object_list(held)
    return held[0]


def _several() -> bool:
    return distributed.is_available() and distributed.is_initialized()
