"""Two processes that share a model's weights compute what one computes, and leave checkpoints that one can go on from."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support import free_port

import models.handwriting
from models.handwriting import scenes, teacher, tiny
from models.handwriting.sight import sampled
from models.training import parallel
from models.training.alignment import Example, align
from models.training.model import load, served
from models.training.trainer import TrainSpec

CHECKPOINT = Path(models.handwriting.__file__).parent / "checkpoint"
SPEC = TrainSpec(steps=4, learning_rate=1e-4, warmup=0, weight_decay=0.0, checkpoint_every=2)


def examples(step: int) -> list[Example]:
    drawn = [scenes.scene(0, "align", number) for number in range(step * 5, step * 5 + 5)]
    shown = [Example(sampled(scene), tiny.PROMPT, teacher.trace(scene.digits, 0)) for scene in drawn]
    return parallel.share(shown)


def go(rank: int, port: int, size: int, folder: str, sharded: bool, steps: int) -> None:
    torch.set_num_threads(1)
    if size > 1:
        torch.distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=size)
    losses: list[float] = []
    out = Path(folder)
    spec = TrainSpec(**vars(SPEC) | {"steps": steps})
    align(
        CHECKPOINT,
        out / "model",
        examples,
        spec,
        2,
        out / "checkpoints",
        lambda name, step, value: losses.append(value) if name == "loss" else None,
        sharded=sharded,
    )
    if parallel.rank() == 0:
        torch.save(losses, out / f"losses-{steps}.pt")


def run(size: int, folder: Path, sharded: bool = False, steps: int = 4) -> list[float]:
    folder.mkdir(exist_ok=True)
    torch.multiprocessing.spawn(go, (free_port(), size, str(folder), sharded, steps), nprocs=size)
    return torch.load(folder / f"losses-{steps}.pt")


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
    found = weights(tmp_path)
    assert found.keys() == alone[1].keys()
    for name, tensor in alone[1].items():
        assert (found[name] - tensor).abs().max() < 1e-5, name
    model, _ = load(tmp_path / "model")  # put together again
    assert sum(tensor.numel() for _, tensor in served(model)) == sum(tensor.numel() for tensor in alone[1].values())


def test_what_two_sharded_processes_began_one_process_ends(alone, tmp_path):
    first = run(2, tmp_path, sharded=True, steps=2)
    # The rate follows the number of steps: as a run that was always going to make four.
    assert len(first) == 2 and first[0] == pytest.approx(alone[0][0], rel=1e-5)
    last = run(1, tmp_path, steps=4)
    assert len(last) == 2 and torch.isfinite(torch.tensor(last)).all()
