"""Stage 1, `align`: supervised fine-tuning of the reasoning model on teacher traces (DeepIntuit, cold start).

`Example`s come from anywhere; here they become batches for the one loop in trainer.py. Only the completion's tokens count in
the loss, which is divided once by those of the whole batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedModel, ProcessorMixin

from models.language.prompts import CAME_WITH, begun, chat
from models.training import parallel
from models.training.ahead import Ahead
from models.training.batches import Batch, Sample, collate, completion_logprobs
from models.training.lora import LoraSpec
from models.training.model import load, save_bfloat16
from models.training.objectives import sft_loss_sum
from models.training.trainer import Fact, OnMetric, TrainSpec, train
from models.video.clip import Clip


@dataclass(frozen=True)
class Example:
    """One thing to learn: the `completion` (without the end-of-turn token) to a clip and a `prompt`.

    prompt: the instruction of the user's turn; said, before: as of `prompts.chat`.
    """

    clip: Clip
    prompt: str
    completion: str
    said: str = ""
    before: str = CAME_WITH


@dataclass(frozen=True)
class SftMicro:
    """weight: completion tokens."""

    batch: Batch

    @property
    def weight(self) -> float:
        return float(self.batch.keep.sum())


def samples(processor: ProcessorMixin, examples: Sequence[Example]) -> list[Sample]:
    """Examples with the chat template applied and their completions as tokens."""
    tokenizer = processor.tokenizer
    asked = {(example.prompt, example.said, example.before) for example in examples}
    chats = {key: chat(processor, key[0], said=key[1], before=key[2]) for key in asked}
    made = []
    for example in examples:
        prompt = chats[example.prompt, example.said, example.before]
        # What the template has opened already is not said again.
        target = example.completion.removeprefix(begun(prompt)) + tokenizer.eos_token
        made.append(Sample(prompt, example.clip, tuple(tokenizer(target)["input_ids"])))
    return made


def micros(processor: ProcessorMixin, examples: Sequence[Example], size: int) -> list[SftMicro]:
    """A step's examples in pieces of at most `size`, those of like length together: padding is computed for nothing."""
    ordered = sorted(
        samples(processor, examples),
        key=lambda sample: (sample.clip.pixels.size, len(sample.completion), len(sample.prompt)),
    )
    return [SftMicro(collate(processor, ordered[at : at + size])) for at in range(0, len(ordered), size)]


def sft_loss(model: PreTrainedModel, micro: SftMicro) -> torch.Tensor:
    """Summed negative log-likelihood of a micro-batch."""
    logprobs = completion_logprobs(model, micro.batch)
    return sft_loss_sum(logprobs, micro.batch.keep.to(logprobs.device))


def align(
    start: Path,
    out: Path,
    examples: Callable[[int], Sequence[Example]],
    spec: TrainSpec,
    micro_batch: int = 32,
    checkpoints: Path | None = None,
    on_metric: OnMetric = lambda name, step, value: None,
    facts: Mapping[str, Fact] | None = None,
    sharded: bool = False,
    adapters: LoraSpec | None = None,
    seed: int = 0,
) -> None:
    """Fine-tune the checkpoint in `start` and write the result to `out` in bfloat16.

    examples: gives the examples of one optimiser step, as a pure function of the step (see `reading.Epochs`). adapters,
    seed: as of `model.load`. The rest as of `trainer.train`.
    """
    model, processor = load(start, adapters, seed)
    model = parallel.sharded(model) if sharded else model

    def batches(step: int) -> list[SftMicro]:
        return micros(processor, examples(step), micro_batch)

    with Ahead(batches, spec.steps) as ahead:
        train(model, ahead, sft_loss, spec, checkpoints, on_metric, facts)
    save_bfloat16(model, processor, out)
