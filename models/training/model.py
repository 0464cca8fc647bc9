"""A model folder while it is trained: loaded in float32, saved in bfloat16, handed to a running engine."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import torch
from transformers import AutoModelForImageTextToText, AutoProcessor, PreTrainedModel, ProcessorMixin
from transformers.core_model_loading import revert_weight_conversion

from models.language.positions import use_serving_positions
from models.training import lora, parallel
from models.training.seeing import see_clips_once
from models.video.processors import check_processors


def load(folder: Path, adapters: lora.LoraSpec | None = None, seed: int = 0) -> tuple[PreTrainedModel, ProcessorMixin]:
    """Model and processor of a checkpoint folder, positions as they are served; nothing is looked up on the network.

    adapters: to be trained in place of all weights, from random numbers of `seed`. On a GPU where there is one; there
    activations are computed anew on the way back instead of being kept.
    """
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    use_serving_positions(model)
    see_clips_once(model)
    if adapters:
        model = lora.adapted(model, adapters, seed)
    if torch.cuda.is_available():
        model.to("cuda").gradient_checkpointing_enable({"use_reentrant": False})
    processor = AutoProcessor.from_pretrained(folder, local_files_only=True)
    check_processors(str(folder), processor)
    return model, processor


def save_bfloat16(model: PreTrainedModel, processor: ProcessorMixin, folder: Path) -> None:
    """Write a checkpoint folder with weights rounded to bfloat16; engines load it as float32. Leaves `model` alone.

    The folder is there when it is whole, and replaces one that was. Of several processes all have to call, and the first
    one writes.
    """
    weights = {name: tensor.to(torch.bfloat16) for name, tensor in lora.weights(model).items()}
    if parallel.rank() > 0:
        return
    declared, model.config.dtype = model.config.dtype, torch.bfloat16
    aside = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(aside, ignore_errors=True)
    model.save_pretrained(aside, state_dict=weights)
    model.config.dtype = declared
    processor.save_pretrained(aside)
    for path in aside.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
    shutil.rmtree(folder, ignore_errors=True)
    aside.rename(folder)


def served(model: PreTrainedModel) -> Iterator[tuple[str, torch.Tensor]]:
    """The weights under the names that the model's folder has them by, as `Engine.replace_weights` takes them."""
    with torch.no_grad():
        yield from revert_weight_conversion(model, lora.weights(model)).items()
