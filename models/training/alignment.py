"""Stage 1, `align`: supervised fine-tuning of the reasoning model on teacher traces (DeepIntuit, cold start).

`Example`s come from anywhere; here they become batches for the one loop in trainer.py. The prompt, video included, goes
through the checkpoint's own processor, exactly as in scoring, and only the completion's tokens count in the loss.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor, BatchFeature, PreTrainedModel, ProcessorMixin

from models.language.positions import use_serving_positions
from models.language.prompts import begun, chat
from models.training.ahead import Ahead
from models.training.objectives import next_token_logprobs, sft_loss_sum
from models.training.trainer import OnMetric, TrainSpec, train
from models.video.clip import Clip
from models.video.processors import check_processors, processor_inputs


@dataclass(frozen=True)
class Example:
    """One thing to learn: the `completion` (without the end-of-turn token) to a video and a `prompt`.

    frames: called when the example is due; gives the clip as the model sees it. prompt: the instruction of the user's turn.
    said: what came with the video in words.
    """

    frames: Callable[[], Clip]
    prompt: str
    completion: str
    said: str = ""


@dataclass(frozen=True)
class SftMicro:
    """A padded batch. keep: bool [B, T - 1], True where the token predicted counts in the loss."""

    inputs: BatchFeature
    keep: torch.Tensor

    @property
    def tokens(self) -> int:
        return int(self.keep.sum())


def load(folder: Path, dtype: torch.dtype = torch.float32) -> tuple[PreTrainedModel, ProcessorMixin]:
    """Model and processor of a checkpoint folder, positions as they are served; nothing is looked up on the network."""
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=dtype, local_files_only=True)
    use_serving_positions(model)
    processor = AutoProcessor.from_pretrained(folder, local_files_only=True)
    check_processors(str(folder), processor)
    return model, processor


def save_bfloat16(model: PreTrainedModel, processor: ProcessorMixin, folder: Path) -> None:
    """Write a checkpoint folder with weights rounded to bfloat16; engines load it as float32. Leaves `model` alone."""
    weights = {name: tensor.to(torch.bfloat16) for name, tensor in model.state_dict().items()}
    declared, model.config.dtype = model.config.dtype, torch.bfloat16
    model.save_pretrained(folder, state_dict=weights)
    model.config.dtype = declared
    processor.save_pretrained(folder)


def collate(processor: ProcessorMixin, examples: Sequence[Example]) -> SftMicro:
    """Examples as one right-padded batch; their clips may differ in size and length."""
    tokenizer = processor.tokenizer
    asked = {(example.prompt, example.said) for example in examples}
    chats = {(prompt, said): chat(processor, prompt, said=said) for prompt, said in asked}
    prompts = [chats[example.prompt, example.said] for example in examples]
    targets = [  # what the template has opened already is not said again
        example.completion.removeprefix(begun(prompt)) + tokenizer.eos_token
        for example, prompt in zip(examples, prompts, strict=True)
    ]
    inputs = processor(
        text=[prompt + target for prompt, target in zip(prompts, targets, strict=True)],
        **processor_inputs([example.frames() for example in examples]),
        return_tensors="pt",
        padding=True,
        padding_side="right",
    )
    lengths = inputs["attention_mask"].sum(1)
    counted = torch.tensor([len(tokenizer(target)["input_ids"]) for target in targets])
    predicted = torch.arange(1, inputs["input_ids"].shape[1])[None]  # keep[:, t] is about token t + 1
    keep = (predicted >= (lengths - counted)[:, None]) & (predicted < lengths[:, None])
    return SftMicro(inputs, keep)


def sft_loss(model: PreTrainedModel, micro: SftMicro) -> torch.Tensor:
    """Summed negative log-likelihood of a micro-batch."""
    logits = model(**micro.inputs, use_cache=False).logits
    return sft_loss_sum(next_token_logprobs(logits, micro.inputs["input_ids"]), micro.keep)


def align(
    start: Path,
    out: Path,
    examples: Callable[[int], Sequence[Example]],
    spec: TrainSpec,
    micro_batch: int = 32,
    checkpoints: Path | None = None,
    on_metric: OnMetric = lambda name, step, value: None,
) -> None:
    """Fine-tune the checkpoint in `start` and write the result to `out` in bfloat16.

    examples: gives the examples of one optimiser step, as a pure function of the step (see `epochs` and trainer.train).
    """
    model, processor = load(start)

    def batches(step: int) -> list[SftMicro]:
        due = examples(step)
        return [collate(processor, due[i : i + micro_batch]) for i in range(0, len(due), micro_batch)]

    with Ahead(batches, spec.steps) as ahead:
        train(model, ahead, sft_loss, spec, checkpoints, on_metric)
    save_bfloat16(model, processor, out)


def epochs(examples: Sequence[Example], batch: int, seed: int) -> Callable[[int], list[Example]]:
    """Batches over a sequence that is shuffled anew every epoch, as a pure function of the step.

    Every example comes once an epoch; the last batch is shorter where `batch` does not divide their number. Raises
    ValueError on no examples.
    """
    if not examples:
        raise ValueError("no examples to train on")
    per_epoch = -(-len(examples) // batch)

    def at(step: int) -> list[Example]:
        epoch, place = divmod(step, per_epoch)
        order = np.random.default_rng((seed, epoch)).permutation(len(examples))
        return [examples[i] for i in order[place * batch : (place + 1) * batch]]

    return at
