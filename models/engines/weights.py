"""New weights for an engine that runs: all of a model's tensors, and no others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from safetensors import safe_open


def whole(tensors: Iterable[tuple[str, Any]], folder: str) -> Iterator[tuple[str, Any]]:
    """The same tensors. Raises ValueError behind the last one where they are not those that the model folder names: engines
    keep or draw anew what they are not given, in silence."""
    wanted, given = _names(folder), set()
    for name, tensor in tensors:
        given.add(name)
        yield name, tensor
    for what, names in (("lack", wanted - given), ("name besides", given - wanted)):
        if names:
            raise ValueError(f"the new weights {what} {len(names)} tensors of {folder}, for example {min(names)}")


def _names(folder: str) -> set[str]:
    names: set[str] = set()
    for file in Path(folder).glob("*.safetensors"):
        with safe_open(file, "numpy") as opened:
            names.update(opened.keys())
    return names
