"""A tiny Qwen2.5-VL, made from configs alone: every part of the real one, 2.4 million parameters, no download.

The image and the video processor normalise alike, since vLLM uses the image processor's values for video: engines refuse
a folder in which they differ.
"""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    GenerationConfig,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
)

from models.handwriting import teacher
from models.handwriting.rule import LABELS
from models.video.frames import FrameSpec

PROMPT = "Four digits: rising, falling or mixed?"

_PATCH, _MERGE, _TEMPORAL = 7, 2, 2
# At most 16 cells a frame, 8 / 2 = 4 temporal steps: at most 64 video tokens. A clip of 2 s or more has all 8 frames.
FRAMES = FrameSpec(count=8, max_pixels=56 * 56, fps=4.0, cell=_PATCH * _MERGE)
# Positions of temporal steps are whole numbers: steps of half a second, the shortest there are, stay two apart.
_TOKENS_PER_SECOND = 4
_VOCABULARY = 512
_TAGS = ("<observation>", "</observation>", "<think>", "</think>", "<answer>", "</answer>")
_SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)

_CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'video' %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% elif part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

# What the tokenizer learns its merges from, besides the benchmark's own traces: words of video tasks. Any other text is
# still encodable, byte by byte.
_ENGLISH = (
    "user assistant system video clip frames rising falling mixed normal offensive hateful abnormal yes no "
    "Watch the video and decide which label fits it best. Answer with exactly one label. The reviewer's conclusion is "
    "and the rationale is: definition of every label, policy, question, title, transcript, evidence, reasoning, "
    "the digits are shown one after another; every digit is greater than the one before; every digit is smaller; "
    "anything else, a tie included. Four digits: rising, falling or mixed? What do you see? Which order do they have?"
)


def make(folder: Path, seed: int) -> None:
    """Write an untrained checkpoint (weights, tokenizer, processor, chat template) in Hugging Face layout."""
    tokenizer = make_tokenizer()
    processor = _make_processor(tokenizer)
    torch.manual_seed(seed)
    model = Qwen2_5_VLForConditionalGeneration(_config(tokenizer)).float()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.03)
    end, pad = tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"])
    model.generation_config = GenerationConfig(eos_token_id=[end, pad], pad_token_id=pad)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE: digits stay single, tags are ordinary single tokens, the labels and common words get merges."""
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=_VOCABULARY - len(_TAGS) - len(_SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        special_tokens=[],
        show_progress=False,
    )
    raw.train_from_iterator(_corpus(), trainer)
    # ordinary tokens, so that they survive `skip_special_tokens` and the grammar finds them in the text
    raw.add_tokens([AddedToken(tag, normalized=False, special=False) for tag in _TAGS])
    raw.add_special_tokens(list(_SPECIAL))
    return PreTrainedTokenizerFast(
        tokenizer_object=raw,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=[token for token in _SPECIAL if token not in ("<|im_end|>", "<|endoftext|>")],
        chat_template=_CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=4096,
    )


def _corpus() -> list[str]:
    words = (*LABELS, "normal", "offensive", "hateful", "abnormal", "yes", "no")
    spoken = [teacher.trace(digits, 0) for digits in ((1, 2, 3, 4), (4, 3, 2, 1), (5, 5, 1, 2))]
    # the tags are cut out: they are tokens of their own and must not teach merges of their letters
    for tag in _TAGS:
        spoken = [text.replace(tag, " ") for text in spoken]
    return [_ENGLISH] * 4 + [form for word in words for form in (word, f" {word}")] * 8 + spoken * 8


def _make_processor(tokenizer: PreTrainedTokenizerFast) -> Qwen2_5_VLProcessor:
    shared = {
        "patch_size": _PATCH,
        "merge_size": _MERGE,
        "temporal_patch_size": _TEMPORAL,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "size": {"shortest_edge": FRAMES.cell**2, "longest_edge": 56 * 56 * 16},  # no frame is ever resized again
    }
    video = Qwen2VLVideoProcessor(do_sample_frames=False, **shared)
    return Qwen2_5_VLProcessor(Qwen2VLImageProcessor(**shared), tokenizer, video, chat_template=_CHAT_TEMPLATE)


def _config(tokenizer: PreTrainedTokenizerFast) -> Qwen2_5_VLConfig:
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in _SPECIAL}
    hidden, head_dim = 192, 32
    return Qwen2_5_VLConfig(
        text_config={
            "vocab_size": _VOCABULARY,
            "hidden_size": hidden,
            "intermediate_size": 768,
            "num_hidden_layers": 3,
            "num_attention_heads": hidden // head_dim,
            "num_key_value_heads": 2,
            "max_position_embeddings": 4096,
            "rope_parameters": {"rope_type": "default", "mrope_section": [4, 6, 6], "rope_theta": 1e4},
            "bos_token_id": None,
            "eos_token_id": ids["<|im_end|>"],
            "pad_token_id": ids["<|endoftext|>"],
        },
        vision_config={
            "depth": 3,
            "hidden_size": 96,
            "intermediate_size": 192,
            "num_heads": 3,
            "out_hidden_size": hidden,
            "patch_size": _PATCH,
            "spatial_merge_size": _MERGE,
            "temporal_patch_size": _TEMPORAL,
            "window_size": 4 * FRAMES.cell,
            "fullatt_block_indexes": [0, 1, 2],
            "tokens_per_second": _TOKENS_PER_SECOND,
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=False,
    )
