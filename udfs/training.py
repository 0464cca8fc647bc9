"""A process that trains: alone, or one of several that pyspark's TorchDistributor starts. Each function is the whole of it.

What they take is plain and picklable; importing this module starts nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.engines.promise import EngineSpec
from models.video.container import Limits
from models.video.frames import FrameSpec
from models.video.pool import DecodeSettings
from udfs.reading import sample_video

if TYPE_CHECKING:
    from models.training.clips import Clips
    from models.training.refinement import RefineSpec, Task
    from models.training.rounds import Store
    from models.training.trainer import Fact, OnMetric, TrainSpec
    from models.video.clip import Clip

JOURNAL, FAILURE = "figures.jsonl", "failure.txt"
_NO_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")


@dataclass(frozen=True)
class Training:
    """What every stage needs.

    folder: the training's own, `model` in it is what comes out; start: the model to begin with; prompt: the instruction of
    the user's turn; cache_bytes: of decoded frames on this host; threads: of this process; sharded: see
    models/training/parallel.py.
    """

    folder: Path
    start: Path
    lessons: Path
    prompt: str
    spec: TrainSpec
    facts: dict[str, Fact]
    frames: FrameSpec
    limits: Limits
    decoding: DecodeSettings
    cache_bytes: int
    threads: int
    quiet: bool
    sharded: bool = False

    def clips(self) -> Clips:
        from models.training.clips import Clips
        from models.video.cache import FrameCache

        cache = FrameCache(self.folder / "frames", self.frames, self.cache_bytes)
        return Clips(cache, partial(_sample, self.frames, self.limits), self.decoding)


class CannotTrain(ValueError):
    """What stopped a training, in words for whoever asked for it; from whichever process."""


def attempt(folder: Path, process: Callable[..., None], *arguments: Any) -> None:
    """Run a process. What somebody has to change is left in the folder, too: of several processes it is lost else.

    Raises CannotTrain for settings, data and memory; anything else as it comes.
    """
    import torch

    from models.training.clips import NothingDecodes
    from models.training.rewards import RewardError
    from models.training.trainer import ResumeError

    try:
        process(*arguments)
        return
    except (ResumeError, RewardError, NothingDecodes) as error:
        said = str(error)
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not any(word in str(error) for word in _NO_MEMORY):
            raise
        said = (
            f"{process.__name__}: out of memory ({str(error).splitlines()[0][:200]}): lower {process.__name__}.micro_batch, "
            "rollout.max_tokens or frames.max_pixels; what was learned up to the last checkpoint is kept"
        )
    (folder / FAILURE).write_text(said)
    raise CannotTrain(said)


def joined(folder: Path, process: Callable[..., None], *arguments: Any) -> None:
    """`attempt` as one of several processes, whose numbers and meeting place are in the environment (torchrun)."""
    import torch
    from torch import distributed

    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    distributed.init_process_group("cpu:gloo,cuda:nccl" if on_gpu else "gloo")  # figures are summed on the CPU
    try:
        attempt(folder, process, *arguments)
    finally:
        distributed.destroy_process_group()


def align(training: Training, batch: int, micro_batch: int, seed: int) -> None:
    """Stage 1: fine-tune on the lessons' texts, `batch` of them a step."""
    import transformers

    from models.training import alignment, parallel
    from models.training.alignment import Example
    from models.training.lessons import Lessons, in_epochs
    from models.video.clip import Clip

    _prepare(training.threads)
    transformers.logging.disable_progress_bar()
    lessons = Lessons(training.lessons)
    journal = _journal(training, "align", ("loss",))
    with training.clips() as clips:

        def examples(step: int) -> list[Example]:
            due = parallel.share([lessons[int(row)] for row in in_epochs(len(lessons), batch, seed, step)])
            shown = zip(due, clips.of(due), strict=True)
            return [Example(c, training.prompt, one.text, one.said) for one, c in shown if isinstance(c, Clip)]

        alignment.align(
            training.start,
            training.folder / "model",
            examples,
            training.spec,
            micro_batch,
            training.folder / "checkpoints",
            journal,
            training.facts,
            training.sharded,
        )


def refine(training: Training, spec: RefineSpec, task: Task, engine: EngineSpec, store: Store) -> None:
    """Stage 2: reinforcement learning on the lessons' labels."""
    import torch
    import transformers

    from models.engines.process import open_engine
    from models.training import parallel
    from models.training.lessons import Lessons
    from models.training.model import load, save_bfloat16
    from models.training.refinement import Refinement
    from models.training.trainer import train

    cores = os.sched_getaffinity(0)
    transformers.logging.disable_progress_bar()
    running = open_engine(engine)
    # vLLM takes the cores for itself and leaves one thread.
    os.sched_setaffinity(0, cores)
    _prepare(training.threads)
    model, processor = load(training.start)
    model = parallel.sharded(model) if training.sharded else model
    reference = load(training.start)[0].requires_grad_(False) if spec.objective == "grpo" else None
    journal = _journal(training, "refine", ("success", "reward", "loss"))
    torch.manual_seed(spec.seed)
    with training.clips() as clips:
        lessons = Lessons(training.lessons)
        stage = Refinement(spec, task, lessons, clips.of, model, processor, running, store, reference, journal)
        checkpoints = training.folder / "checkpoints"
        train(model, stage.batches, stage.loss_sum, training.spec, checkpoints, journal, training.facts)
    save_bfloat16(model, processor, training.folder / "model")


def _prepare(threads: int) -> None:
    import torch

    torch.set_num_threads(threads)


def _journal(training: Training, name: str, said: tuple[str, ...]) -> OnMetric:
    """Figures are those of all processes together: the first one keeps them."""
    from models.training import parallel
    from models.training.journal import Journal

    if parallel.rank() > 0:
        return lambda name, step, value: None
    return Journal(training.folder / JOURNAL, name, training.spec.steps, said, training.quiet)


def _sample(frames: FrameSpec, limits: Limits, what: tuple[str, str]) -> Clip:
    uri, video_id = what
    return sample_video(uri, video_id, frames, limits)
