"""Adapters are trained in place of all weights, and nobody behind the training knows of them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import models.handwriting
from models.handwriting import scenes, teacher, tiny
from models.handwriting.sight import sampled
from models.training import lora
from models.training.alignment import Example, align, micros, sft_loss
from models.training.lora import LoraSpec
from models.training.model import load, served
from models.training.trainer import TrainSpec

CHECKPOINT = Path(models.handwriting.__file__).parent / "checkpoint"
SPEC = LoraSpec(rank=4, alpha=8)
ADAPTED = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def examples(step: int) -> list[Example]:
    drawn = [scenes.scene(0, "align", number) for number in range(step * 4, step * 4 + 4)]
    return [Example(sampled(scene), tiny.PROMPT, teacher.trace(scene.digits, 0)) for scene in drawn]


class Stopped(Exception):
    """As good as a kill: nothing is written after it."""


def learn(folder: Path, stop: int | None = None) -> None:
    def on_metric(name: str, step: int, value: float) -> None:
        if name == "seconds" and step == stop:
            raise Stopped

    torch.set_num_threads(1)
    spec = TrainSpec(4, 1e-3, warmup=0, weight_decay=0.0, checkpoint_every=2)
    align(CHECKPOINT, folder / "model", examples, spec, 4, folder / "checkpoints", on_metric, adapters=SPEC, seed=5)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lora")
    learn(folder)
    return folder


def test_only_the_language_models_linear_maps_change(whole):
    before, after = (load_file(folder / "model.safetensors") for folder in (CHECKPOINT, whole / "model"))
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all("visual" not in name and name.split(".")[-2] in ADAPTED for name in changed), changed
    assert {name.split(".")[-2] for name in changed} == set(ADAPTED)


def test_an_adapter_that_has_learned_nothing_changes_nothing_and_one_that_has_is_added_in():
    plain, processor = load(CHECKPOINT)
    model, _ = load(CHECKPOINT, SPEC, seed=3)
    names = dict(served(plain))
    for name, tensor in served(model):
        assert torch.equal(tensor, names.pop(name)), name
    assert not names
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_B." in name:
                parameter.normal_(std=0.05)
    plain.load_state_dict(lora.weights(model))
    (micro,) = micros(processor, examples(0), 4)
    with torch.no_grad():
        assert sft_loss(plain, micro).item() == pytest.approx(sft_loss(model, micro).item(), rel=1e-5)
        assert sft_loss(load(CHECKPOINT)[0], micro).item() != pytest.approx(sft_loss(model, micro).item(), rel=1e-3)


def test_a_checkpoint_holds_the_adapters_alone_and_goes_on_from_them(whole, tmp_path):
    held = torch.load(whole / "checkpoints/step-00000004/state.pt", weights_only=True)["model"]
    assert held
    assert all(".lora_" in name for name in held)
    with pytest.raises(Stopped):
        learn(tmp_path, stop=2)
    learn(tmp_path)
    one, other = (load_file(folder / "model/model.safetensors") for folder in (whole, tmp_path))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_model_without_such_maps_is_refused():
    class Other(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.map = torch.nn.Linear(2, 2)

    with pytest.raises(ValueError, match="Target modules"):
        lora.adapted(Other(), SPEC, 0)
