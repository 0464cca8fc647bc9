"""One training loop for every stage: supervised fine-tuning, reinforcement learning and calibration.

The stage brings two functions. `batches(step)` gives the micro-batches of one optimiser step, as a pure function of the
step number, so that there is no reader to restore on resume. `loss_sum(model, micro)` gives a loss SUMMED over tokens.
The loop adds the micro-batches' gradients, divides once by the tokens of the whole batch, clips, and steps.

What a checkpoint holds wins on resume: weights, optimiser state, random state, step. Everything else comes from the
caller, so a resumed run may checkpoint more often or, knowingly, follow another schedule.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import torch

_DONE = "complete"  # written last: a checkpoint without it was cut short and does not count

OnMetric = Callable[[str, int, float], None]


class Micro(Protocol):
    """A piece of a batch that fits into memory. `tokens`: how many of its tokens count in the loss."""

    @property
    def tokens(self) -> int: ...


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
) -> None:
    """Train `model` in place up to step `spec.steps`, going on from the newest complete checkpoint in `checkpoints`.

    Reports `loss` (nats a token), `grad_norm` (before clipping), `learning_rate` and `tokens` for every step. A resumed
    run reports exactly what the uninterrupted one would have. Raises ValueError on a batch without a token that counts
    and FloatingPointError when the loss is not finite.
    """
    optimizer = torch.optim.AdamW(model.parameters(), lr=spec.learning_rate, weight_decay=spec.weight_decay)
    first = resume(model, optimizer, checkpoints) if checkpoints else 0
    model.train()
    for step in range(first, spec.steps):
        figures = _step(model, optimizer, batches(step), loss_sum, spec, step)
        for name, value in figures.items():
            on_metric(name, step, value)
        if checkpoints and ((step + 1) % spec.checkpoint_every == 0 or step + 1 == spec.steps):
            save(model, optimizer, checkpoints, step + 1, spec.keep_checkpoints)
    model.eval()


def _step(
    model: AnyModel,
    optimizer: torch.optim.Optimizer,
    micros: Sequence[AnyMicro],
    loss_sum: Callable[[AnyModel, AnyMicro], torch.Tensor],
    spec: TrainSpec,
    step: int,
) -> dict[str, float]:
    tokens = sum(micro.tokens for micro in micros)
    if tokens == 0:
        raise ValueError(f"step {step}: no token of the batch counts in the loss")
    total = 0.0
    optimizer.zero_grad(set_to_none=True)
    for micro in micros:
        loss = loss_sum(model, micro) / tokens
        loss.backward()
        total += loss.item()
    if not math.isfinite(total):
        raise FloatingPointError(f"step {step}: the loss is {total}")
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), spec.clip_norm).item()
    rate = spec.rate(step)
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()
    return {"loss": total, "grad_norm": norm, "learning_rate": rate, "tokens": float(tokens)}


def save(model: torch.nn.Module, optimizer: torch.optim.Optimizer, folder: Path, step: int, keep: int) -> Path:
    """Write the checkpoint of `step` finished steps aside, rename it, mark it complete; then drop all but `keep`."""
    final = folder / f"step-{step:08d}"
    aside = folder / f".{final.name}.{os.getpid()}"
    for stale in (aside, final):
        shutil.rmtree(stale, ignore_errors=True)
    aside.mkdir(parents=True)
    state = {
        "step": step,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
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
    return final


def resume(model: torch.nn.Module, optimizer: torch.optim.Optimizer, folder: Path) -> int:
    """Load the newest complete checkpoint of a folder; returns how many steps it has finished, 0 for none."""
    found = _complete(folder)
    if not found:
        return 0
    state = torch.load(found[-1] / "state.pt", weights_only=True, map_location="cpu")
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    torch.set_rng_state(state["random"])
    if state["random_cuda"]:
        torch.cuda.set_rng_state_all(state["random_cuda"])
    return state["step"]


def _complete(folder: Path) -> list[Path]:
    """Complete checkpoints, oldest first."""
    return sorted(mark.parent for mark in folder.glob(f"step-*/{_DONE}"))
