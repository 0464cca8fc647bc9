"""What a training is said to need is held against the tensors of real steps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from public import qwen_7b
from storages import Storages

import models.handwriting
from models.footprint import training
from models.footprint.devices import GIB, device_of
from models.footprint.shape import Shape, shape_of
from models.footprint.training import Among, Piece

CHECKPOINT = Path(models.handwriting.__file__).parent / "checkpoint"
ALONE, GPU = Among(1, False), device_of("h100")


@pytest.mark.parametrize("rank", [None, 4], ids=["all weights", "adapters"])
def test_weights_gradients_and_moments_are_exact(monkeypatch, rank):
    """Bytes of the real tensors after a step of the embedded model, by the trainer that trains it."""
    from models.handwriting import scenes, teacher, tiny
    from models.handwriting.sight import sampled
    from models.training.alignment import Example, micros, sft_loss
    from models.training.lora import LoraSpec
    from models.training.model import load
    from models.training.trainer import TrainSpec, train

    torch.set_num_threads(1)
    made = []
    build = torch.optim.AdamW
    monkeypatch.setattr(torch.optim, "AdamW", lambda *a, **k: made.append(build(*a, **k)) or made[-1])
    model, processor = load(CHECKPOINT, LoraSpec(rank, 8) if rank else None)
    scene = scenes.scene(0, "align", 0)
    example = Example(sampled(scene), tiny.PROMPT, teacher.trace(scene.digits, 0))
    train(model, lambda step: micros(processor, [example], 1), sft_loss, TrainSpec(1, 1e-4))
    state = [value for values in made[0].state.values() for value in values.values()]
    real = {
        "weights": sum(parameter.nbytes for parameter in model.parameters()),
        "gradients": sum(parameter.grad.nbytes for parameter in model.parameters() if parameter.requires_grad),
        "optimiser": sum(value.nbytes for value in state),
    }
    assert training.state(shape_of(str(CHECKPOINT)), ALONE, rank) == real


def test_fsdp_divides_them_by_the_processes(tmp_path):
    shape = shape_of(qwen_7b(tmp_path))
    whole, ddp, fsdp = (training.state(shape, among) for among in (ALONE, Among(8, False), Among(8, True)))
    assert ddp == whole
    assert fsdp["weights"] == fsdp["gradients"] == pytest.approx(whole["weights"] / 8, rel=1e-6)
    assert fsdp["optimiser"] == pytest.approx(whole["optimiser"] / 8, rel=1e-6)


# hidden, intermediate, layers, key heads, vocabulary, side of a picture in tokens, tokens of text, tokens that are learned,
# blocks of the vision tower: in each another term is the largest, so that whichever is wrong, one of these shows it.
CASES = {
    "wide": (256, 1024, 4, 2, 2048, 8, 40, 100, 3),
    "feed-forward": (128, 1024, 1, 4, 64, 2, 1500, 8, 3),
    "attention": (256, 64, 1, 8, 64, 2, 1500, 8, 3),
    "logits": (128, 256, 2, 4, 16384, 4, 40, 300, 3),
    "clips": (128, 256, 2, 4, 512, 16, 40, 30, 16),
    "deep": (128, 512, 12, 1, 512, 8, 40, 400, 3),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("checkpointed", [True, False], ids=["as on a GPU", "as on a CPU"])
def test_activations_and_logits_are_those_of_a_real_pass(name, checkpointed, tmp_path):
    """As on a GPU: gradient checkpointing and autocast, which a CPU can do, too; the estimate is no larger than need be."""
    real, shape, piece = real_pass(tmp_path, checkpointed, 1, *CASES[name])
    device = GPU if checkpointed else device_of("cpu")
    held = training.memory(shape, piece, device, ALONE, {})
    state = sum(training.state(shape, ALONE).values()) + device.context
    passing = [sum(held.phases[phase].values()) - state for phase in ("forward", "loss", "backward")]
    assert 0.9 * real <= max(passing) <= 1.2 * real, (real, held.phases)


def test_sequences_of_unlike_length_take_a_mask(tmp_path):
    real, shape, piece = real_pass(tmp_path, True, 2, *CASES["attention"])
    held = training.memory(shape, piece, GPU, ALONE, {})
    state = sum(training.state(shape, ALONE).values()) + GPU.context
    passing = [sum(held.phases[phase].values()) - state for phase in ("forward", "loss", "backward")]
    assert 0.9 * real <= max(passing) <= 1.2 * real, (real, held.phases)


def real_pass(
    folder: Path,
    checkpointed: bool,
    sequences: int,
    hidden: int,
    intermediate: int,
    layers: int,
    keys: int,
    vocabulary: int,
    side: int,
    said: int,
    new: int,
    blocks: int,
) -> tuple[int, Shape, Piece]:
    """Most bytes that lived at once beside weights and gradients, in a pass forward and back of a model of these sizes."""
    from transformers import AutoModelForImageTextToText, Qwen2_5_VLConfig

    from models.training.objectives import next_token_logprobs

    torch.manual_seed(0)
    torch.set_num_threads(1)
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [4, 6, 6]}
    text = {
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_hidden_layers": layers,
        "vocab_size": vocabulary,
    }
    text |= {"num_attention_heads": hidden // 32, "num_key_value_heads": keys, "rope_parameters": rope}
    text |= {"bos_token_id": None, "eos_token_id": None}
    vision = {"depth": blocks, "hidden_size": 128, "num_heads": 4, "intermediate_size": 160, "out_hidden_size": hidden}
    vision |= {"fullatt_block_indexes": [2], "patch_size": 14}
    ids = {"image_token_id": 8, "video_token_id": 9, "vision_start_token_id": 7, "vision_end_token_id": 6}
    config = Qwen2_5_VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=False, **ids)
    config.save_pretrained(folder)
    model = AutoModelForImageTextToText.from_config(config).float().train()
    if checkpointed:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    shown, prompt = 4 * side * side, 4 * side * side + said
    tokens = torch.full((sequences, prompt + new), 20)
    tokens[:, 0], tokens[:, 1 : shown + 1], tokens[:, shown + 1] = 7, 9, 6
    mask = torch.ones_like(tokens)
    mask[1:, -1] = 0
    inputs = {
        "input_ids": tokens,
        "attention_mask": mask,
        "mm_token_type_ids": 2 * (tokens == 9).long(),
        "pixel_values_videos": torch.randn(sequences * shown * 4, 3 * 2 * 14 * 14),
        "video_grid_thw": torch.tensor([[4, 2 * side, 2 * side]] * sequences),
        "second_per_grid_ts": [1.0] * sequences,
    }

    def loss() -> torch.Tensor:
        """As batches.completion_logprobs."""
        with torch.autocast("cpu", torch.bfloat16, enabled=checkpointed):
            logits = model(**inputs, use_cache=False, logits_to_keep=new + 1).logits
        return -next_token_logprobs(logits, tokens[:, -new - 1 :]).sum()

    loss().backward()  # so that gradients are there
    with Storages() as counted:
        loss().backward()
    beside = sum(value.nbytes for value in inputs.values() if isinstance(value, torch.Tensor))
    return counted.peak + beside, shape_of(str(folder)), Piece(sequences, prompt, new, shown * 4)


def test_a_reference_and_an_engine_lie_beside_the_trainer(tmp_path):
    shape, piece = shape_of(qwen_7b(tmp_path)), Piece(1, 4200, 2048, 16384)
    alone = training.memory(shape, piece, GPU, Among(8, True), {})
    beside = training.memory(shape, piece, GPU, Among(8, True), {"engine: weights": 7}, reference=True)
    assert set(beside.phases) - set(alone.phases) == {"drawing"}
    for phase, parts in alone.phases.items():
        more = {name: size for name, size in beside.phases[phase].items() if parts.get(name) != size}
        assert more.pop("engine: weights") == 7
        assert more.pop("reference model", None) == (None if phase == "loading" else 4 * shape.parameters)
        assert set(more) == ({"logits"} if phase == "loss" else set())
    assert beside.phases["drawing"]["weights, whole"] == 4 * shape.parameters  # put together for the engine


def test_of_two_processes_with_the_whole_model_each_gradients_are_put_in_one_piece():
    shape, piece = shape_of(str(CHECKPOINT)), Piece(1, 100, 20, 64)
    one, two = (training.memory(shape, piece, device_of("cpu"), Among(n, False), {}).phases["stepping"] for n in (1, 2))
    assert two["temporaries"] == 4 * shape.parameters > one["temporaries"] == 4 * 512 * 192


def test_longer_and_more_takes_more(tmp_path):
    shape, piece = shape_of(qwen_7b(tmp_path)), Piece(2, 4200, 1024, 16384)
    base = training.memory(shape, piece, GPU, Among(8, True), {})
    for change in ({"sequences": 3}, {"prompt": 5000}, {"completion": 2048}, {"patches": 20000}):
        more = training.memory(shape, replace(piece, **change), GPU, Among(8, True), {})
        for phase in ("forward", "loss", "backward"):
            assert sum(more.phases[phase].values()) > sum(base.phases[phase].values()), (change, phase)


def test_a_step_costs_four_passes_where_activations_are_computed_anew(tmp_path):
    """By hand: 2 FLOP a parameter and token; causal attention 2 L q T^2; at a third of the peak or so."""
    shape, piece = shape_of(qwen_7b(tmp_path)), Piece(1, 4000, 1000, 16000)
    text = 28 * 233_057_792 + 3584
    forward = 2 * text * 5000 + 2 * 28 * 3584 * 5000**2 + 2 * 152064 * 3584 * 1001 + 2 * 676_550_144 * 16000
    seconds = training.seconds(shape, piece, GPU, training.passes(GPU))
    assert seconds == pytest.approx(4 * forward / (989e12 * 0.35), rel=1e-6)
    assert training.passes(device_of("cpu")) == 3


@pytest.mark.skipif(
    not torch.cuda.is_available(), reason="no GPU here: what one real step allocates cannot be measured"
)
def test_on_a_gpu_a_real_step_allocates_about_as_much(tmp_path):
    """Of the embedded model with many tokens; the peak is its activations and logits."""
    from models.handwriting import scenes, tiny
    from models.handwriting.sight import sampled
    from models.training.batches import Sample, collate, completion_logprobs
    from models.training.model import load

    model, processor = load(CHECKPOINT)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
    from models.language.prompts import chat

    clip, new, sequences = sampled(scenes.scene(0, "align", 0)), 2048, 32
    samples = [Sample(chat(processor, tiny.PROMPT), clip, (20,) * new) for _ in range(sequences)]
    batch = collate(processor, samples)
    torch.cuda.reset_peak_memory_stats()
    for _ in range(2):
        optimizer.zero_grad(set_to_none=True)
        (-completion_logprobs(model, batch).sum()).backward()
        optimizer.step()
    shape = shape_of(str(CHECKPOINT))
    prompt = batch.inputs["input_ids"].shape[1] - new
    piece = Piece(sequences, prompt, new, len(batch.inputs["pixel_values_videos"]) // sequences)
    held = training.memory(shape, piece, GPU, ALONE, {})
    expected = max(sum(parts.values()) - parts["context"] for parts in held.phases.values())
    real = torch.cuda.max_memory_allocated()
    assert real / 1.5 < expected < real * 1.5, (real / GIB, held)
