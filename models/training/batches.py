"""From prompts, clips and completions to padded tensors: what supervised and reinforcement learning have in common.

The prompt, video included, goes through the checkpoint's own processor, exactly as in scoring; the completion follows as
tokens, as an engine generates it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import BatchFeature, ProcessorMixin

from models.training.objectives import next_token_logprobs
from models.video.clip import Clip
from models.video.processors import processor_inputs

# Of the processor's outputs, those that are by token, and the one that is large; the others are by clip.
_TEXT = ("input_ids", "attention_mask", "mm_token_type_ids")
_PIXELS = "pixel_values_videos"


@dataclass(frozen=True)
class Sample:
    """prompt: with the chat template applied, one placeholder for the clip; completion: tokens, the end token included."""

    prompt: str
    clip: Clip
    completion: tuple[int, ...]


@dataclass(frozen=True)
class Batch:
    """B sequences, right-padded to T tokens. `places` n: log-probabilities are of the last n predicted tokens alone.

    keep: bool [B, n], True where the predicted token is of the completion.
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
    for sample in samples:
        key = (sample.prompt, id(sample.clip))
        if key not in prepared:
            prepared[key] = processor(text=[sample.prompt], **processor_inputs([sample.clip]), return_tensors="pt")
    numbers: dict[int, int] = {}
    shown = [numbers.setdefault(id(sample.clip), len(numbers)) for sample in samples]
    rows = [_row(prepared[sample.prompt, id(sample.clip)], sample.completion) for sample in samples]
    lengths = torch.tensor([len(row["input_ids"]) for row in rows])
    begins = torch.tensor([len(row["input_ids"]) - len(s.completion) for row, s in zip(rows, samples, strict=True)])
    inputs: dict[str, Any] = {"shown": torch.tensor(shown)}
    for name in rows[0]:
        chosen = [shown.index(number) for number in numbers.values()] if name == _PIXELS else range(len(rows))
        values = [rows[place][name] for place in chosen]
        if name in _TEXT:
            filler = processor.tokenizer.pad_token_id if name == "input_ids" else 0
            inputs[name] = torch.nn.utils.rnn.pad_sequence(values, batch_first=True, padding_value=filler)
        elif isinstance(values[0], torch.Tensor):
            inputs[name] = torch.cat(values)
        else:
            inputs[name] = [each for value in values for each in value]
    predicted = torch.arange(int(begins.min()), int(lengths.max()))[None]
    return Batch(BatchFeature(inputs), (predicted >= begins[:, None]) & (predicted < lengths[:, None]))


def completion_logprobs(model: Any, batch: Batch) -> torch.Tensor:
    """log p of the tokens that `batch.keep` is about, natural log: float [B, n]. Logits of no other place are made.

    On a GPU in bfloat16, the weights staying as they are.
    """
    device = next(model.parameters()).device
    inputs = batch.inputs.to(device)
    with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
        logits = model(**inputs, use_cache=False, logits_to_keep=batch.places + 1).logits
    return next_token_logprobs(logits, inputs["input_ids"][:, -batch.places - 1 :])


def _row(prompt: BatchFeature, completion: tuple[int, ...]) -> dict[str, Any]:
    row = {name: value for name, value in prompt.items() if name not in _TEXT}
    tail = torch.tensor(completion, dtype=torch.long)
    more = {"input_ids": tail, "attention_mask": torch.ones_like(tail), "mm_token_type_ids": torch.zeros_like(tail)}
    return row | {name: torch.cat([value[0], more[name]]) for name, value in prompt.items() if name in _TEXT}
