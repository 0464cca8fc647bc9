"""Shapes of models as their public configurations give them; no weights."""

from __future__ import annotations

from pathlib import Path


def qwen_7b(folder: Path) -> str:
    """config.json of Qwen2.5-VL-7B-Instruct."""
    from transformers import Qwen2_5_VLConfig

    text = {
        "hidden_size": 3584,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "intermediate_size": 18944,
        "vocab_size": 152064,
    }
    vision = {
        "depth": 32,
        "hidden_size": 1280,
        "num_heads": 16,
        "intermediate_size": 3420,
        "out_hidden_size": 3584,
        "patch_size": 14,
    }
    Qwen2_5_VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=False).save_pretrained(folder)
    return str(folder)
