"""From prompts, clips and completions to padded tensors: what supervised and reinforcement learning have in common.

The prompt, video included, goes through the checkpoint's own processor, exactly as in scoring; the completion follows as
tokens, as an engine generates it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import BatchFeature, ProcessorMixin

from models.training.objectives import next_token_logprobs
from models.video.clip import Clip
from models.video.processors import processor_inputs

_PIXELS = "pixel_values_videos"  # the one output of a processor that is large


@dataclass(frozen=True)
class Sample:
    """prompt: with the chat template applied, one placeholder for the clip; completion: tokens, the end token included."""

    prompt: str
    clip: Clip
    completion: tuple[int, ...]


@dataclass(frozen=True)
class Batch:
    """B sequences of T tokens, whose completions begin at one place: prompts are padded on the left, completions on the
    right. `places` n: log-probabilities are of the last n tokens alone, the longest completion.

    keep: bool [B, n], True where the token is of the completion.
    """

    inputs: BatchFeature
    keep: torch.Tensor

    @property
    def places(self) -> int:
        return self.keep.shape[1]

    def __len__(self) -> int:
        return len(self.keep)

    def align(self, values: Sequence[Sequence[float]]) -> torch.Tensor:
        """Values by sequence and completion token, laid where their tokens are predicted: float32 [B, n], 0 elsewhere."""
        laid = torch.zeros(self.keep.shape, dtype=torch.float32)
        laid[self.keep] = torch.tensor([value for own in values for value in own], dtype=torch.float32)
        return laid


def collate(processor: ProcessorMixin, samples: Sequence[Sample]) -> Batch:
    """Samples as one batch; their clips may differ in size and length.

    One that comes several times is prepared and held once: `shown` says which is whose, see seeing.py.
    """
    prepared: dict[tuple[str, int], BatchFeature] = {}
    numbers: dict[int, int] = {}
    for sample in samples:
        key = (sample.prompt, id(sample.clip))
        if key not in prepared:
            prepared[key] = processor(text=[sample.prompt], **processor_inputs([sample.clip]), return_tensors="pt")
    prompts = [prepared[sample.prompt, id(sample.clip)] for sample in samples]
    shown = [numbers.setdefault(id(sample.clip), len(numbers)) for sample in samples]
    tails = [torch.tensor(sample.completion, dtype=torch.long) for sample in samples]
    ends = {
        "input_ids": tails,
        "attention_mask": [torch.ones_like(tail) for tail in tails],
        "mm_token_type_ids": [torch.zeros_like(tail) for tail in tails],
    }
    inputs: dict[str, Any] = {"shown": torch.tensor(shown)}
    for name in prompts[0]:
        values = [prompt[name] for prompt in prompts]
        if name in ends:
            filler = processor.tokenizer.pad_token_id if name == "input_ids" else 0
            begin = pad_sequence([value[0] for value in values], True, filler, "left")
            inputs[name] = torch.cat([begin, pad_sequence(ends[name], True, filler)], dim=1)
        elif name == _PIXELS:
            inputs[name] = torch.cat([values[shown.index(number)] for number in numbers.values()])
        elif isinstance(values[0], torch.Tensor):
            inputs[name] = torch.cat(values)
        else:
            inputs[name] = [each for value in values for each in value]
    return Batch(BatchFeature(inputs), pad_sequence(ends["attention_mask"], True, 0).bool())


def completion_logprobs(model: Any, batch: Batch) -> torch.Tensor:
    """log p of the tokens that `batch.keep` is about, natural log: float [B, n]. Logits of no other place are made.

    On a GPU in bfloat16, the weights staying as they are.
    """
    device = next(model.parameters()).device
    inputs = batch.inputs.to(device)
    with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
        logits = model(**inputs, use_cache=False, logits_to_keep=batch.places + 1).logits
    return next_token_logprobs(logits, inputs["input_ids"][:, -batch.places - 1 :])
