"""Can an engine serve this model folder, this prompt, these labels? Asked before a worker starts; loads no weights."""

from __future__ import annotations

from collections.abc import Sequence

from models.engines.config import config_of, lora_rank
from models.language.label_scores import Scored, reader
from models.language.prompts import chat, video_token
from models.video.frames import FrameSpec

FAMILIES = ("qwen2_5_vl", "qwen3_vl")  # whose positions the engines and the trainer share: see language/positions.py
# What stands before every step of a clip, between two marks. Other families are told how far apart pictures are, not when
# each was.
TIME_WORDS = {"qwen3_vl": "<9999.9 seconds>"}


def check_folder(folder: str, user_text: str, scored: Scored, frames: FrameSpec, adapters: Sequence[str] = ()) -> int:
    """How many tokens there are at most beside the completion: prompt, clip, and what is asked behind the trace.

    Raises ValueError for what would fail in every worker: a model that sees no video or is of an unknown family, processors
    that are missing or disagree, a chat template without a place for the clip, codes that are no tokens, a folder that is
    no adapter.
    """
    from transformers import AutoProcessor

    from models.video.processors import check_processors

    family = config_of(folder).get("model_type")
    if family not in FAMILIES:
        raise ValueError(
            f"{folder}/config.json: model_type: expected a vision-language model of the families {', '.join(FAMILIES)}, "
            f"found {family}"
        )
    try:
        processor = AutoProcessor.from_pretrained(folder, local_files_only=True)
        tokenizer = processor.tokenizer
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise ValueError(f"{folder}: expected a processor with its tokenizer, found none that loads: {error}") from None
    check_processors(folder, processor)
    prompt = chat(processor, user_text)
    behind = reader(processor, scored, frozenset([tokenizer.eos_token_id])).longest + 1 if scored else 0
    for adapter in adapters:
        lora_rank(adapter)
    words = len(tokenizer(TIME_WORDS[family])["input_ids"]) + 2 if family in TIME_WORDS else 0
    text = len(tokenizer(prompt.replace(video_token(processor), ""))["input_ids"])
    return behind + text + frames.most_tokens + words * frames.most_steps
