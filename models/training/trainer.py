"""One training loop for every stage: supervised fine-tuning, reinforcement learning and calibration.

The stage brings two functions. `batches(step)` gives the micro-batches of one optimiser step, as a pure function of the
step number and, in reinforcement learning, of the weights, so that there is no reader to restore on resume.
`loss_sum(model, micro)` gives a loss that is SUMMED, never a mean. The loop adds the gradients of all micro-batches, those
of other processes included, divides once by the weight of the whole batch (the objective's denominator: tokens, sequences
or videos), clips, and steps.

What a checkpoint holds wins on resume: weights, optimiser state, random state, step. What the run is about (`facts`: its
data, its settings) has to be what it was when the folder's first checkpoint was written.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar
from zipfile import is_zipfile

import torch

from models.training import parallel

_DONE = "complete"  # written last: a checkpoint without it was cut short and does not count
FACTS = "facts.json"

Fact = str | int | float | bool | None

OnMetric = Callable[[str, int, float], None]


class ResumeError(ValueError):
    """The checkpoints of a folder are of a run over other data or with other settings; the message names what differs."""


class Micro(Protocol):
    """A piece of a batch that fits into memory. `weight`: its part of the denominator, in the unit of the objective."""

    @property
    def weight(self) -> float: ...


AnyMicro = TypeVar("AnyMicro", bound=Micro)
AnyModel = TypeVar("AnyModel", bound=torch.nn.Module)


@dataclass(frozen=True)
class TrainSpec:
    """How long and how fast to train. The learning rate rises over `warmup` steps, then falls as a cosine to zero."""

    steps: int
    learning_rate: float
    warmup: int = 20  # steps
    weight_decay: float = 0.01
    clip_norm: float = 1.0  # largest norm of the gradient, over all parameters
    checkpoint_every: int = 100  # steps
    keep_checkpoints: int = 2

    def rate(self, step: int) -> float:
        """Learning rate of step `step`, counted from 0."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        done = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.learning_rate * 0.5 * (1.0 + math.cos(math.pi * done))


def train(
    model: AnyModel,
    batches: Callable[[int], Sequence[AnyMicro]],
    loss_sum: Callable[[AnyModel, AnyMicro], torch.Tensor],
    spec: TrainSpec,
    checkpoints: Path | None = None,
    on_metric: OnMetric = lambda name, step, value: None,
    facts: Mapping[str, Fact] | None = None,
) -> None:
    """Train `model` in place up to step `spec.steps`, going on from the newest complete checkpoint in `checkpoints`.

    facts: what has to be the same for a run to go on from these checkpoints, by name. A step whose batch is empty changes
    nothing. Reports `loss` (of the whole batch, by its weight), `grad_norm` (before clipping), `learning_rate` and `weight`
    for every other step, and the `seconds` of each last. But for these a resumed run reports exactly what the uninterrupted
    one would have.
    Raises ResumeError, ValueError on a batch without weight, and FloatingPointError when the loss is not finite.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=spec.learning_rate, weight_decay=spec.weight_decay)
    first = 0
    if checkpoints:
        check_facts(checkpoints, facts or {})
        first = resume(model, optimizer, checkpoints)
    model.train()
    for step in range(first, spec.steps):
        began = time.monotonic()
        figures = _step(model, optimizer, trained, batches(step), loss_sum, spec, step)
        for name, value in figures.items():
            on_metric(name, step, value)
        on_metric("seconds", step, time.monotonic() - began)
        due = (step + 1) % spec.checkpoint_every == 0 or step + 1 == spec.steps
        if checkpoints and due:
            save(model, optimizer, checkpoints, step + 1, spec.keep_checkpoints)
    model.eval()


def accumulate(
    model: AnyModel,
    parameters: Sequence[torch.nn.Parameter],
    micros: Sequence[AnyMicro],
    loss_sum: Callable[[AnyModel, AnyMicro], torch.Tensor],
) -> tuple[float, float] | None:
    """Give the parameters the gradient of a batch: of its summed loss, divided by its weight. Returns loss and weight.

    micros: this process's part of the batch. None, and no gradient, where no process has anything.
    Raises ValueError where what there is has no weight.
    """
    weight, pieces = parallel.summed(sum(micro.weight for micro in micros), len(micros))
    if not pieces:
        return None
    if weight == 0:
        raise ValueError("nothing in the batch counts in the loss")
    total = 0.0
    for micro, counts in parallel.padded(micros, model):
        loss = loss_sum(model, micro) / weight * (1.0 if counts else 0.0)
        loss.backward()
        total += loss.item()
    parallel.sum_gradients(parameters)
    (total,) = parallel.summed(total)
    return total, weight


def _step(
    model: AnyModel,
    optimizer: torch.optim.Optimizer,
    parameters: Sequence[torch.nn.Parameter],
    micros: Sequence[AnyMicro],
    loss_sum: Callable[[AnyModel, AnyMicro], torch.Tensor],
    spec: TrainSpec,
    step: int,
) -> dict[str, float]:
    optimizer.zero_grad(set_to_none=True)
    try:
        found = accumulate(model, parameters, micros, loss_sum)
    except ValueError as error:
        raise ValueError(f"step {step}: {error}") from error
    if found is None:
        return {}
    loss, weight = found
    if not math.isfinite(loss):
        raise FloatingPointError(f"step {step}: the loss is {loss}")
    norm = torch.nn.utils.clip_grad_norm_(parameters, spec.clip_norm).item()
    if not math.isfinite(norm):
        raise FloatingPointError(f"step {step}: the norm of the gradient is {norm}")
    rate = spec.rate(step)
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()
    return {"loss": loss, "grad_norm": norm, "learning_rate": rate, "weight": weight}


def finished(folder: Path, steps: int) -> bool:
    """Whether a folder's newest checkpoint is of the last step."""
    return [path.name for path in _complete(folder)][-1:] == [_name(steps)]


def check_facts(folder: Path, facts: Mapping[str, Fact]) -> None:
    """Note what a folder's checkpoints are about, or find it there. Raises ResumeError where it is something else."""
    path = folder / FACTS
    if not _complete(folder) or not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        aside = path.with_suffix(f".{os.getpid()}")
        with aside.open("w") as file:
            json.dump(dict(facts), file, indent=2, sort_keys=True)
            file.flush()
            os.fsync(file.fileno())  # else a loss of power leaves the name without the words
        aside.replace(path)
        return
    try:
        then = json.loads(path.read_text())
    except ValueError:
        raise ResumeError(
            f"{path}: expected a JSON document that tells what the checkpoints are about, found one that was cut short: "
            "delete it where they are of these very settings and data, else begin in another folder"
        ) from None
    if then.get("stage") != facts.get("stage"):
        raise ResumeError(
            f"{folder}: the checkpoints there are of the stage {then.get('stage')}, expected {facts.get('stage')}: begin in "
            "another folder"
        )
    differing = [
        f"{name}: then {then.get(name)!r}, now {facts.get(name)!r}"
        for name in sorted({*then, *facts})
        if then.get(name) != facts.get(name)
    ]
    if differing:
        raise ResumeError(
            f"{folder}: the checkpoints there are of another run ({'; '.join(differing)}): give it back what it had, or "
            "begin in another folder"
        )


def save(model: torch.nn.Module, optimizer: torch.optim.Optimizer, folder: Path, step: int, keep: int) -> None:
    """Write the checkpoint of `step` finished steps aside, rename it, mark it complete; then drop all but `keep`.

    Of several processes the first one writes.
    """
    held = parallel.state(model, optimizer)
    if parallel.rank() > 0:
        return
    final = folder / _name(step)
    aside = folder / f".{final.name}.{os.getpid()}"
    for stale in (final, *folder.glob(".step-*")):  # of runs that were killed while they wrote
        shutil.rmtree(stale, ignore_errors=True)
    aside.mkdir(parents=True)
    state = held | {
        "step": step,
        "random": torch.get_rng_state(),
        "random_cuda": torch.cuda.get_rng_state_all(),
    }
    with (aside / "state.pt").open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    aside.rename(final)
    (final / _DONE).touch()
    for old in _complete(folder)[:-keep]:
        (old / _DONE).unlink()  # first, so that a kill in the middle leaves nothing that looks whole
        shutil.rmtree(old)


def resume(model: torch.nn.Module, optimizer: torch.optim.Optimizer, folder: Path) -> int:
    """Load the newest complete checkpoint of a folder; returns how many steps it has finished, 0 for none."""
    found = _complete(folder)
    if not found:
        return 0
    # Mapped, not read: every process of a host opens it.
    path = found[-1] / "state.pt"
    if not is_zipfile(path):
        raise ResumeError(
            f"{path}: expected a whole checkpoint, found a file that was cut short: delete its folder, and the training "
            "goes on from the one before"
        )
    state = torch.load(path, weights_only=True, map_location="cpu", mmap=True)
    parallel.set_state(model, optimizer, state)
    torch.set_rng_state(state["random"])
    if len(state["random_cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["random_cuda"])
    return state["step"]


def _name(step: int) -> str:
    return f"step-{step:08d}"


def _complete(folder: Path) -> list[Path]:
    """Complete checkpoints, oldest first."""
    return sorted(mark.parent for mark in folder.glob(f"step-*/{_DONE}"))
