"""Two processes that share a model's weights compute what one computes, and leave checkpoints that one can go on from."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
import torch
from support import free_port

import models.handwriting
from models.handwriting import scenes, teacher, tiny
from models.handwriting.sight import sampled
from models.training import parallel
from models.training.alignment import Example, align, micros, sft_loss
from models.training.lora import LoraSpec
from models.training.model import load, served
from models.training.trainer import TrainSpec, accumulate

CHECKPOINT = Path(models.handwriting.__file__).parent / "checkpoint"
ADAPTERS = LoraSpec(rank=4, alpha=8)
SPEC = TrainSpec(steps=4, learning_rate=1e-4, warmup=0, weight_decay=0.0, checkpoint_every=2)


def examples(step: int) -> list[Example]:
    drawn = [scenes.scene(0, "align", number) for number in range(step * 5, step * 5 + 5)]
    shown = [Example(sampled(scene), tiny.PROMPT, teacher.trace(scene.digits, 0)) for scene in drawn]
    return parallel.share(shown)


class Stopped(Exception):
    """As good as a kill: nothing is written after it."""


def go(
    rank: int, port: int, size: int, folder: str, sharded: bool, stop: int | None, adapters: LoraSpec | None
) -> None:
    torch.set_num_threads(1)
    if size > 1:
        torch.distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=size)
    losses: dict[int, float] = {}

    def on_metric(name: str, step: int, value: float) -> None:
        if name == "loss":
            losses[step] = value
        if name == "seconds" and step == stop:
            raise Stopped

    out = Path(folder)
    with suppress(Stopped):
        align(
            CHECKPOINT,
            out / "model",
            examples,
            SPEC,
            2,
            out / "checkpoints",
            on_metric,
            sharded=sharded,
            adapters=adapters,
        )
    if parallel.rank() == 0:
        torch.save(losses, out / "losses.pt")


def run(
    size: int, folder: Path, sharded: bool = False, stop: int | None = None, adapters: LoraSpec | None = None
) -> dict[int, float]:
    """Losses by step of one run, which goes on where the folder's checkpoints end."""
    folder.mkdir(exist_ok=True)
    torch.multiprocessing.spawn(go, (free_port(), size, str(folder), sharded, stop, adapters), nprocs=size)
    return torch.load(folder / "losses.pt")


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(max(folder.glob("checkpoints/step-*")) / "state.pt", weights_only=True)["model"]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    return run(1, folder), weights(folder)


@pytest.mark.parametrize("sharded", [False, True], ids=["ddp", "fsdp"])
def test_two_processes_learn_what_one_learns(alone, tmp_path, sharded):
    """Five examples a step: one process has three of them, the other two, in unequally many pieces."""
    assert run(2, tmp_path, sharded) == pytest.approx(alone[0], rel=1e-5)
    same(weights(tmp_path), alone[1])
    model, _ = load(tmp_path / "model")  # put together again
    assert sum(tensor.numel() for _, tensor in served(model)) == sum(tensor.numel() for tensor in alone[1].values())


@pytest.mark.parametrize(
    ("size", "sharded"), [pytest.param(2, True, id="two", marks=pytest.mark.soak), pytest.param(1, False, id="one")]
)
def test_what_two_sharded_processes_began_goes_on(alone, tmp_path, size, sharded):
    """Stopped behind step 2, whose checkpoint is of two finished steps: the third is done again."""
    first = run(2, tmp_path, sharded=True, stop=2)
    last = run(size, tmp_path, sharded)
    assert sorted(first) == [0, 1, 2] and sorted(last) == [2, 3]
    assert first | last == pytest.approx(alone[0], rel=1e-5)
    same(weights(tmp_path), alone[1])


def test_two_sharded_processes_train_adapters_and_one_goes_on_from_them(tmp_path):
    wanted = run(1, tmp_path / "alone", adapters=ADAPTERS)
    first = run(2, tmp_path / "two", sharded=True, stop=2, adapters=ADAPTERS)
    last = run(1, tmp_path / "two", adapters=ADAPTERS)
    assert first | last == pytest.approx(wanted, rel=1e-5)
    # The gradients of adapters begin at all but zero, and AdamW divides them by their own size.
    same(weights(tmp_path / "two"), weights(tmp_path / "alone"), most=1e-4)


def idle(rank: int, port: int, folder: str) -> None:
    """One example for two processes that share the weights: the other one goes along and counts for nothing."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    model, processor = load(CHECKPOINT)
    parallel.sharded(model)
    mine = micros(processor, parallel.share([single()]), 2)
    accumulate(model, list(model.parameters()), mine, sft_loss)
    found = {name: parallel.whole(parameter.grad) for name, parameter in model.named_parameters()}
    if rank == 0:
        torch.save(found, f"{folder}/gradients.pt")


def single() -> Example:
    scene = scenes.scene(0, "align", 0)
    return Example(sampled(scene), tiny.PROMPT, teacher.trace(scene.digits, 0))


def test_a_process_without_anything_to_learn_goes_along(tmp_path):
    torch.multiprocessing.spawn(idle, (free_port(), str(tmp_path)), nprocs=2)
    model, processor = load(CHECKPOINT)
    accumulate(model, list(model.parameters()), micros(processor, [single()], 2), sft_loss)
    found = torch.load(tmp_path / "gradients.pt")
    for name, parameter in model.named_parameters():
        assert (found[name] - parameter.grad).norm() <= 1e-5 * parameter.grad.norm() + 1e-9, name


def same(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor], most: float = 1e-5) -> None:
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert (found[name] - tensor).abs().max() < most, name
