"""Why a training stopped, in words for whoever has to change something, also out of a process that others wait for."""

from __future__ import annotations

import errno
import os

import pytest
import torch

from models.engines.promise import EngineDead
from models.training.reading import LostRows
from models.training.rewards import RewardError
from models.training.trainer import ResumeError
from udfs import training
from udfs.training import CannotTrain, attempt


def refine(error: Exception) -> None:
    raise error


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ResumeError("other data"), "other data"),
        (RewardError("refine.rewards.x: no number"), "refine.rewards.x: no number"),
        (LostRows("expected 9 rows, found 8"), "expected 9 rows, found 8"),
        (FloatingPointError("step 3: the loss is nan"), "step 3: the loss is nan: lower refine.learning_rate"),
        (MemoryError(), r"out of memory \(MemoryError\): lower refine.micro_batch or frames.max_pixels"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried"), "lower refine.micro_batch or frames.max_pixels"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: tried"), "lower refine.micro_batch"),
        (EngineDead("vllm failed in a step: CUDA out of memory"), "lower refine.kv_cache_mb or engine.max_num_seqs"),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), "No space left on device: free room in --out"),
        (RuntimeError("inline_container.cc:672] . unexpected pos 5113792 vs 5113680"), "free room in --out"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_what_somebody_has_to_change_is_said_in_one_line(tmp_path, error, said):
    with pytest.raises(CannotTrain, match=said) as raised:
        attempt(tmp_path, refine, error)
    assert "\n" not in str(raised.value)
    kept = training.failure(tmp_path)
    assert isinstance(kept, CannotTrain) and str(kept) == str(raised.value)


def test_what_nobody_can_help_comes_as_it_is_and_the_first_one_is_kept(tmp_path):
    with pytest.raises(RuntimeError, match="a fault of ours"):
        attempt(tmp_path, refine, RuntimeError("a fault of ours"))
    with pytest.raises(RuntimeError, match="the others left"):
        attempt(tmp_path, refine, RuntimeError("the others left"))
    kept = training.failure(tmp_path)
    assert not isinstance(kept, CannotTrain) and str(kept) == "RuntimeError: a fault of ours"
    training.forget_failure(tmp_path)
    assert training.failure(tmp_path) is None


def fine(folder):
    (folder / "done").touch()


def test_where_nothing_fails_nothing_is_left(tmp_path):
    attempt(tmp_path, fine, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["done"]
