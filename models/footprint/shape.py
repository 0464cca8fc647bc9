"""A model folder as numbers: how many parameters, in which parts, of which sizes. Reads headers and JSON, no weights."""

from __future__ import annotations

import json
import re
import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from models.engines.config import quantization_of

_BLOCK = re.compile(
    r"^(.*\.(?:layers|blocks|deepstack_merger_list)\.\d+)\."
)  # what parallel.sharded splits the model by
_EMBEDDING, _HEAD, _VISION = "embed_tokens.weight", "lm_head.weight", re.compile(r"(?:^|\.)visual\.")


@dataclass(frozen=True)
class Shape:
    """A vision-language model of the families in engines/folder.py.

    parameters, tensors: all of them; embedding, head: of the input's and the output's table, head 0 where they are one;
    vision: of the vision tower; block: of the largest part that repeats; root: of what stands outside such parts.
    layers, hidden, intermediate, queries, keys: the language model's, queries and keys as heads x head size; vocabulary.
    vision_layers, vision_hidden, vision_intermediate; patch_values: numbers that become one patch; merged: patches that
    become one token; cell: side of such a token's picture in pixels; frames_per_step: frames that become one step.
    stored: bytes of the weights as they lie in the folder, None where there are none; quantization: method or "".
    counted_from: what the counts were read off.
    """

    parameters: int
    tensors: int
    embedding: int
    head: int
    vision: int
    block: int
    root: int
    layers: int
    hidden: int
    intermediate: int
    queries: int
    keys: int
    vocabulary: int
    vision_layers: int
    vision_hidden: int
    vision_intermediate: int
    patch_values: int
    merged: int
    cell: int
    frames_per_step: int
    stored: int | None
    quantization: str
    counted_from: str

    @property
    def text(self) -> int:
        """Parameters that every token of a prompt or a completion goes through: no table, no vision tower."""
        return self.parameters - self.embedding - self.head - self.vision

    def adapters(self, rank: int) -> tuple[int, int]:
        """Parameters and tensors of low-rank adapters on the seven linear maps of every layer (models/training/lora.py)."""
        h, q, k, f = self.hidden, self.queries, self.keys, self.intermediate
        ends = (h + q) + 2 * (h + k) + (q + h) + 3 * (h + f)
        return rank * ends * self.layers, 14 * self.layers


def shape_of(folder: str) -> Shape:
    """The model in a folder; its config.json is enough.

    Counts are exact: from the headers of its weights, else (none there, or quantised ones, whose tensors are packed) by
    building the model on torch's meta device, which takes no memory. Raises ValueError naming the file that is amiss.
    """
    config = _config(folder)
    quantization = quantization_of(folder)
    stored = {name: entry for file in sorted(Path(folder).glob("*.safetensors")) for name, entry in _header(file)}
    if stored and not quantization:
        sizes, source = {name: prod(entry["shape"]) for name, entry in stored.items()}, "the headers of its weights"
    else:
        sizes, source = _built(config), "its config.json"
    return Shape(
        **_counts(sizes),
        **_sizes(config),
        stored=sum(end - begin for begin, end in (entry["data_offsets"] for entry in stored.values())) or None,
        quantization=quantization,
        counted_from=source,
    )


def _config(folder: str) -> Any:
    """As transformers reads it: files leave out what is a default, and older ones keep the language model's part outside."""
    from transformers import AutoConfig

    if not (Path(folder) / "config.json").is_file():
        found = "none in it" if Path(folder).is_dir() else "no such folder"
        raise ValueError(f"{folder}: expected a folder in Hugging Face layout, with its config.json; found {found}")
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        _ = config.vision_config, config.get_text_config()
        return config
    except (OSError, ValueError, KeyError, AttributeError) as error:
        found = str(error).splitlines()[0][:200]
        raise ValueError(
            f"{Path(folder) / 'config.json'}: expected the configuration of a vision-language model, found none that loads: "
            f"{found}"
        ) from None


def _header(file: Path) -> list[tuple[str, dict[str, Any]]]:
    """Tensors of a safetensors file: name, and dtype, shape and place. The file begins with the length of a JSON header."""
    try:
        with file.open("rb") as opened:
            (length,) = struct.unpack("<Q", opened.read(8))
            found = json.loads(opened.read(length))
    except (OSError, ValueError, struct.error, MemoryError, OverflowError) as error:
        raise ValueError(f"{file}: expected a file of safetensors, found no header that can be read: {error}") from None
    return [(name, entry) for name, entry in found.items() if name != "__metadata__"]


def _built(config: Any) -> dict[str, int]:
    import torch
    from transformers import AutoModelForImageTextToText

    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config)
    return {name: parameter.numel() for name, parameter in model.named_parameters()}  # what is tied comes once


def _counts(sizes: dict[str, int]) -> dict[str, int]:
    blocks: dict[str, int] = {}
    for name, size in sizes.items():
        if found := _BLOCK.match(name):
            blocks[found[1]] = blocks.get(found[1], 0) + size
    return {
        "parameters": sum(sizes.values()),
        "tensors": len(sizes),
        "embedding": sum(size for name, size in sizes.items() if name.endswith(_EMBEDDING)),
        "head": sum(size for name, size in sizes.items() if name.endswith(_HEAD)),
        "vision": sum(size for name, size in sizes.items() if _VISION.search(name)),
        "block": max(blocks.values(), default=0),
        "root": sum(sizes.values()) - sum(blocks.values()),
    }


def _sizes(config: Any) -> dict[str, int]:
    text, vision = config.get_text_config(), config.vision_config
    head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    merge = vision.spatial_merge_size
    return {
        "layers": text.num_hidden_layers,
        "hidden": text.hidden_size,
        "intermediate": text.intermediate_size,
        "queries": text.num_attention_heads * head,
        "keys": text.num_key_value_heads * head,
        "vocabulary": text.vocab_size,
        "vision_layers": vision.depth,
        "vision_hidden": vision.hidden_size,
        "vision_intermediate": vision.intermediate_size,
        "patch_values": vision.in_channels * vision.temporal_patch_size * vision.patch_size**2,
        "merged": merge**2,
        "cell": vision.patch_size * merge,
        "frames_per_step": vision.temporal_patch_size,
    }
