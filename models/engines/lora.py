"""LoRA adapters as folders in peft's layout."""

from __future__ import annotations

import json
from pathlib import Path


def lora_rank(folder: str) -> int:
    """The rank of an adapter. Raises ValueError, naming the file, where the folder holds none."""
    path = Path(folder) / "adapter_config.json"
    try:
        rank = json.loads(path.read_text())["r"]
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"{path}: expected the configuration of a LoRA adapter, found {error!r}") from None
    if not isinstance(rank, int) or rank < 1:
        raise ValueError(f"{path}: r: expected a rank of at least 1, found {rank!r}")
    return rank
