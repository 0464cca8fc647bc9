"""Low-rank adapters (LoRA, 2106.09685; peft) on the language model's linear maps: gradients and moments of a few weights.

They are trained in place of all weights and added to them on the way out: engines, folders and the stages behind know
nothing of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from transformers import PreTrainedModel

from models.training import parallel

# Not the vision tower's, some of which have the same names.
_TARGETS = r".*language_model\..*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"
_NAME = "default"


@dataclass(frozen=True)
class LoraSpec:
    """Trained is W + alpha / rank * B A: W [m, n] as it is, B [m, rank] from zeros, A [rank, n] from random numbers."""

    rank: int
    alpha: int


def adapted(model: PreTrainedModel, spec: LoraSpec, seed: int) -> PreTrainedModel:
    """The model with adapters, all its own weights frozen. Raises ValueError where none of its maps has a known name."""
    torch.manual_seed(seed)
    config = LoraConfig(r=spec.rank, lora_alpha=spec.alpha, target_modules=_TARGETS, lora_dropout=0.0, bias="none")
    return inject_adapter_in_model(config, model, _NAME)


@torch.no_grad()
def weights(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """All weights, whole and with the adapters added in, by the names that they have without; every process has to ask."""
    held = {name: parallel.whole(tensor) for name, tensor in model.state_dict().items()}
    for stem, layer in model.named_modules():
        if isinstance(layer, LoraLayer):
            a, b = (held.pop(f"{stem}.lora_{part}.{_NAME}.weight") for part in "AB")
            own = {name: held.pop(f"{stem}.base_layer.{name}") for name, _ in layer.base_layer.named_parameters()}
            own["weight"] = own["weight"] + layer.scaling[_NAME] * (b @ a)
            held |= {f"{stem}.{name}": tensor for name, tensor in own.items()}
    return held
