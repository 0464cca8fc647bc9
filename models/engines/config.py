"""What the JSON files of a model folder and of an adapter say; loads no library of models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def config_of(folder: str) -> dict[str, Any]:
    """The folder's config.json. Raises ValueError, naming the file, where it is missing or no JSON."""
    return _object(Path(folder) / "config.json", "a model")


def quantization_of(folder: str) -> str:
    """The method by which a folder's weights are quantised, "" for none. Raises ValueError as `config_of`."""
    return str((config_of(folder).get("quantization_config") or {}).get("quant_method", ""))


def lora_rank(folder: str) -> int:
    """The rank of a LoRA adapter in peft's layout. Raises ValueError, naming the file, where the folder holds none."""
    path = Path(folder) / "adapter_config.json"
    rank = _object(path, "a LoRA adapter").get("r")
    if not isinstance(rank, int) or not 1 <= rank <= 512:
        raise ValueError(f"{path}: r: expected a rank from 1 to 512, found {rank!r}")
    return rank


def _object(path: Path, what: str) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: expected the configuration of {what}, found {error!r}") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path}: expected the configuration of {what}, found {type(found).__name__}")
    return found
