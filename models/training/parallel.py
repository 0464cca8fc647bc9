"""Several processes that train one model together, and one process alone, behind the same few words.

`ddp`: every process has the whole model, and gradients are SUMMED over them, as the losses are sums. `fsdp` (torch's
fully_shard): each has a part of every layer's weights, gradients and optimiser state, and layers are put together when they
are needed; gradients are summed, too. Either way they are then divided by the weight of what all processes saw, so that it
is the same whether a batch is cut into pieces or spread over processes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import zip_longest
from typing import Any, TypeVar

import torch
from torch import distributed
from torch.distributed.checkpoint import state_dict as states
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor

Item = TypeVar("Item")

# What is frozen is no part of a checkpoint: it is where the model came from.
_WHOLE = states.StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=True)
_BACK = states.StateDictOptions(full_state_dict=True, strict=False)
_FROM_FIRST = states.StateDictOptions(full_state_dict=True, strict=False, broadcast_from_rank0=True)


def rank() -> int:
    return distributed.get_rank() if _several() else 0


def size() -> int:
    return distributed.get_world_size() if _several() else 1


def share(items: Sequence[Item]) -> list[Item]:
    """What this process takes of them: every size-th."""
    return list(items[rank() :: size()])


def summed(*values: float) -> list[float]:
    """Each value summed over all processes."""
    return _over_all(values, distributed.ReduceOp.SUM)


def padded(pieces: Sequence[Item], model: Any) -> list[tuple[Item, bool]]:
    """This process's pieces, each with True; for a sharded model, whose passes all processes make together, followed by as
    many with False as others have more. A process without any is given another's to go along with."""
    own = [(piece, True) for piece in pieces]
    if not is_sharded(model):
        return own
    ends = (distributed.ReduceOp.MAX, distributed.ReduceOp.MIN)
    longest, shortest = (int(_over_all([len(pieces)], how)[0]) for how in ends)
    fillers = list(pieces[:1]) if shortest else gathered(pieces[:1])
    return own + [(fillers[0], False) for _ in range(longest - len(own))]


def sharded(model: Any) -> Any:
    """The model with its weights spread over all processes, layer by layer; as it is where there is one process."""
    if _several():
        for layer in _layers(model):
            fully_shard(layer)
        fully_shard(model)
        for part in model.modules():
            if isinstance(part, FSDPModule):
                part.set_gradient_divide_factor(1.0)  # sums, not means
                part.set_force_sum_reduction_for_comms(True)  # gloo knows no other way to divide by one
    return model


def is_sharded(model: Any) -> bool:
    return isinstance(model, FSDPModule)


def sum_gradients(parameters: Iterable[torch.nn.Parameter]) -> None:
    """Every parameter's gradient summed over all processes; one that has none on this process counts as zero.

    Those of sharded parameters have been summed on the way back already.
    """
    parameters = [parameter for parameter in parameters if not isinstance(parameter, DTensor)]
    if not _several() or not parameters:
        return
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    flat = torch.cat([parameter.grad.flatten() for parameter in parameters if parameter.grad is not None])
    distributed.all_reduce(flat)
    parts = flat.split([parameter.numel() for parameter in parameters])
    for parameter, part in zip(parameters, parts, strict=True):
        parameter.grad = part.view_as(parameter)


def whole(value: torch.Tensor) -> torch.Tensor:
    """A tensor put together, where it is sharded; every process has to ask."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def state(model: Any, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """What is trained of the weights, and optimiser state, whole, on the CPU; every process has to ask, the first one has
    them."""
    weights, moments = states.get_state_dict(model, optimizer, options=_WHOLE)
    return {"model": weights, "optimizer": moments}


def set_state(model: Any, optimizer: torch.optim.Optimizer, held: dict[str, Any]) -> None:
    """Undo `state`; every process has to call, with what the first one read."""
    states.set_state_dict(
        model,
        optimizer,
        model_state_dict=held["model"],
        optim_state_dict=held["optimizer"],
        options=_FROM_FIRST if is_sharded(model) else _BACK,
    )


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


def _layers(model: Any) -> list[Any]:
    """The blocks of the language model and of the vision tower: what repeats."""
    return [
        layer
        for module in model.modules()
        if isinstance(module, torch.nn.ModuleList) and len(module) > 1
        for layer in module
        if any(True for _ in layer.parameters())
    ]


def _over_all(values: Sequence[float], how: Any) -> list[float]:
    if not _several():
        return list(values)
    tensor = torch.tensor(list(values), dtype=torch.float64)
    distributed.all_reduce(tensor, how)
    return tensor.tolist()


def _several() -> bool:
    return distributed.is_available() and distributed.is_initialized()
