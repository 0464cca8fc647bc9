"""Tiny untrained checkpoints of both model families, with the real ones' patch grids and clocks, for comparing engines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import (
    GenerationConfig,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
)

from models.handwriting.tiny import make_tokenizer

PATCH = {"qwen2_5_vl": 14, "qwen3_vl": 16}  # pixels, as published
FAMILIES = tuple(PATCH)
MERGE = TEMPORAL = 2
_HIDDEN, _HEAD = 128, 32
_ROPE = {"rope_type": "default", "mrope_section": [4, 6, 6], "rope_theta": 1e6}
# Wide enough that no processor ever changes the size of a clip.
_SIZE = {"shortest_edge": 16, "longest_edge": 1 << 30}
_CLASSES: dict[str, tuple[Any, Any, Any, Any]] = {
    "qwen2_5_vl": (
        Qwen2_5_VLConfig,
        Qwen2_5_VLForConditionalGeneration,
        Qwen2_5_VLProcessor,
        Qwen2VLVideoProcessor,
    ),
    "qwen3_vl": (Qwen3VLConfig, Qwen3VLForConditionalGeneration, Qwen3VLProcessor, Qwen3VLVideoProcessor),
}
# What a family has of its own.
_TEXT_ALONE: dict[str, dict[str, Any]] = {
    "qwen2_5_vl": {"rope_parameters": _ROPE},
    "qwen3_vl": {"rope_parameters": _ROPE | {"mrope_interleaved": True}, "head_dim": _HEAD},
}
_VISION_ALONE: dict[str, dict[str, Any]] = {
    "qwen2_5_vl": {"window_size": 8 * 14, "fullatt_block_indexes": [1], "tokens_per_second": 2},
    "qwen3_vl": {"num_position_embeddings": 256, "deepstack_visual_indexes": [0]},
}


def make(folder: Path, family: str, seed: int = 0) -> Path:
    """Write a checkpoint of one of FAMILIES; the same seed gives the same weights."""
    config, model_class, processor, video_processor = _CLASSES[family]
    tokenizer = make_tokenizer()
    text, vision = _text(tokenizer) | _TEXT_ALONE[family], _vision(family) | _VISION_ALONE[family]
    torch.manual_seed(seed)
    model = model_class(config(text_config=text, vision_config=vision, **_ids(tokenizer))).float()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.15)
    end, pad = tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"])
    model.generation_config = GenerationConfig(eos_token_id=[end, pad], pad_token_id=pad)
    model.save_pretrained(folder)
    pixels = _pixels(family)
    pictures, clips = Qwen2VLImageProcessor(**pixels), video_processor(do_sample_frames=False, **pixels)
    processor(pictures, tokenizer, clips, chat_template=tokenizer.chat_template).save_pretrained(folder)
    return folder


def _pixels(family: str) -> dict[str, Any]:
    return {
        "patch_size": PATCH[family],
        "merge_size": MERGE,
        "temporal_patch_size": TEMPORAL,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "size": _SIZE,
    }


def _vision(family: str) -> dict[str, Any]:
    return {
        "depth": 2,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_heads": 2,
        "out_hidden_size": _HIDDEN,
        "patch_size": PATCH[family],
        "spatial_merge_size": MERGE,
        "temporal_patch_size": TEMPORAL,
    }


def _text(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    end, pad = tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"])
    return {
        "vocab_size": 512,
        "hidden_size": _HIDDEN,
        "intermediate_size": 192,
        "num_hidden_layers": 2,
        "num_attention_heads": _HIDDEN // _HEAD,
        "num_key_value_heads": 2,
        "max_position_embeddings": 32768,
        "bos_token_id": None,
        "eos_token_id": end,
        "pad_token_id": pad,
    }


def _ids(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    names = ("image_pad", "video_pad", "vision_start", "vision_end")
    image, video, start, end = tokenizer.convert_tokens_to_ids([f"<|{name}|>" for name in names])
    return {
        "image_token_id": image,
        "video_token_id": video,
        "vision_start_token_id": start,
        "vision_end_token_id": end,
        "tie_word_embeddings": False,
    }
