"""A process that trains: alone, or one of several that pyspark's TorchDistributor starts. Each function is the whole of it.

What they take is plain and picklable; importing this module starts nothing.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.engines.promise import EngineSpec
from models.language.prompts import CAME_WITH
from models.video.container import Limits
from models.video.frames import FrameSpec
from models.video.pool import DecodeSettings
from udfs.reading import sample_video
from udfs.stall import Watchdog, stalled

if TYPE_CHECKING:
    from models.training.clips import Clips
    from models.training.lora import LoraSpec
    from models.training.refinement import RefineSpec, Task
    from models.training.rounds import Store
    from models.training.trainer import Fact, OnMetric, TrainSpec
    from models.video.clip import Clip

JOURNAL = "figures.jsonl"
_FAILURE = "failure.json"
_NO_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")


@dataclass(frozen=True)
class Training:
    """What every stage needs.

    folder: the training's own, `model` in it is what comes out; start: the model to begin with; prompt: the instruction of
    the user's turn; cache_bytes: of decoded frames, each process's share; threads: of this process; sharded: see
    models/training/parallel.py; adapters: trained in place of all weights; before: the line before what a lesson says.
    reader: of the lessons, see models/training/reading.py. facts["stage"] names the section of the settings.
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
    adapters: LoraSpec | None = None
    before: str = CAME_WITH
    reader: str = "arrow"

    def clips(self) -> Clips:
        from models.training.clips import Clips
        from models.video.cache import FrameCache

        cache = FrameCache(self.folder / "frames", self.frames, self.cache_bytes)
        return Clips(cache, partial(_sample, self.frames, self.limits), self.decoding)


class CannotTrain(ValueError):
    """What stopped a training, in words for whoever asked for it; from whichever process."""


def attempt(folder: Path, process: Callable[..., None], *arguments: Any) -> None:
    """Run a process. Why it failed is left in the folder, too (see `failure`): of several processes it is lost else.

    Raises CannotTrain for what somebody has to change: settings, data, memory, room on the disk; anything else as it comes.
    """
    try:
        process(*arguments)
    except Exception as error:
        said = _advice(_section(process, arguments), error)
        # The first one says it: others fail for it. On a full disk nobody can.
        with suppress(OSError), (folder / _FAILURE).open("x") as file:
            json.dump(
                {"said": said or f"{type(error).__name__}: {error}"[:500], "asked_wrongly": said is not None}, file
            )
        if said is None:
            raise
        raise CannotTrain(said) from error


def failure(folder: Path) -> Exception | None:
    """What stopped the processes in a folder: CannotTrain, else RuntimeError; None where none said."""
    try:
        found = json.loads((folder / _FAILURE).read_text())
    except (FileNotFoundError, ValueError):
        return None
    return (CannotTrain if found["asked_wrongly"] else RuntimeError)(found["said"])


def forget_failure(folder: Path) -> None:
    (folder / _FAILURE).unlink(missing_ok=True)


def _advice(stage: str, error: Exception) -> str | None:
    """What somebody has to change; None where nobody knows."""
    import torch

    from models.engines.promise import EngineDead
    from models.training.clips import NothingDecodes, StoreSilent
    from models.training.reading import LostRows
    from models.training.rewards import RewardError
    from models.training.trainer import ResumeError

    first = (str(error).splitlines() or [type(error).__name__])[0][:200]
    if isinstance(error, StoreSilent):
        return f"{stage}: {error}: run it again when they can; what was learned up to the last checkpoint is kept"
    if isinstance(error, ResumeError | RewardError | NothingDecodes | LostRows):
        return str(error)
    if isinstance(error, FloatingPointError):
        return f"{stage}: {first}: lower {stage}.learning_rate, or begin from an earlier checkpoint in another folder"
    # torch writes a checkpoint itself, and says of a full disk where it stands in its file.
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    if full or "unexpected pos" in first:
        return f"{stage}: {first}: free room in --out; what was learned up to the last checkpoint is kept"
    if isinstance(error, torch.OutOfMemoryError | MemoryError) or any(word in str(error) for word in _NO_MEMORY):
        lower = f"{stage}.micro_batch or frames.max_pixels"
        if isinstance(error, EngineDead):
            lower = "refine.kv_cache_mb or engine.max_num_seqs"
        return f"{stage}: out of memory ({first}): lower {lower}; what was learned up to the last checkpoint is kept"
    return None


def _section(process: Callable[..., None], arguments: Sequence[Any]) -> str:
    """The section of the settings that a process is about."""
    stages = [str(given.facts["stage"]) for given in arguments if isinstance(given, Training)]
    return stages[0] if stages else process.__name__


def joined(folder: Path, process: Callable[..., None], *arguments: Any) -> None:
    """`attempt` as one of several processes, whose numbers and meeting place are in the environment (torchrun)."""
    rank = int(os.environ["LOCAL_RANK"])
    devices = os.environ.get("CUDA_VISIBLE_DEVICES")
    # Its own device alone, before anything looks: an engine takes the first one that it sees. No device is none to hide.
    os.environ["CUDA_VISIBLE_DEVICES"] = devices.split(",")[rank] if devices else str(rank)
    import torch
    from torch import distributed

    # Figures are summed on the CPU. Others wait while the first one writes a checkpoint.
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    distributed.init_process_group(backend, timeout=timedelta(hours=2))
    try:
        attempt(folder, process, *arguments)
    finally:
        distributed.destroy_process_group()


def align(training: Training, batch: int, micro_batch: int, seed: int) -> None:
    """Stage 1: fine-tune on the lessons' texts, `batch` of them a step."""
    import torch
    import transformers

    from models.training import alignment, parallel
    from models.training.alignment import Example
    from models.training.reading import Epochs, open_reader
    from models.video.clip import Clip

    _prepare(training.threads)
    transformers.logging.disable_progress_bar()
    torch.manual_seed(seed)
    reader = open_reader(training.reader, training.lessons)
    epochs = Epochs(reader, batch, seed, parallel.rank(), parallel.size())
    journal = _journal(training, _section(align, (training,)), ("loss",))
    with training.clips() as clips:

        def examples(step: int) -> list[Example]:
            due = epochs.due(step)
            return [
                Example(clip, training.prompt, lesson.text, lesson.said, training.before)
                for lesson, clip in zip(due, clips.of(due), strict=True)
                if isinstance(clip, Clip)
            ]

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
            training.adapters,
            seed,
        )


def refine(
    training: Training, spec: RefineSpec, task: Task, engine: EngineSpec, stall_seconds: float, store: Store
) -> None:
    """Stage 2: reinforcement learning on the lessons' labels; an engine silent for `stall_seconds` ends the process."""
    import torch
    import transformers

    from models.engines.process import open_engine
    from models.training import parallel
    from models.training.attempts import Attempts
    from models.training.model import load, save_bfloat16
    from models.training.reading import everything, open_reader
    from models.training.refinement import Refinement
    from models.training.trainer import train

    cores = os.sched_getaffinity(0)
    transformers.logging.disable_progress_bar()
    running = open_engine(engine)
    # vLLM takes the cores for itself and leaves one thread.
    os.sched_setaffinity(0, cores)
    _prepare(training.threads)
    model, processor = load(training.start, training.adapters, spec.seed)
    model = parallel.sharded(model) if training.sharded else model
    reference = load(training.start)[0].requires_grad_(False) if spec.objective == "grpo" else None
    journal = _journal(training, "refine", ("success", "reward", "loss"))
    torch.manual_seed(spec.seed)
    with training.clips() as clips:
        lessons = everything(open_reader(training.reader, training.lessons))
        attempts = Attempts(training.folder / "drawing.json")
        stage = Refinement(
            spec,
            task,
            lessons,
            clips.of,
            model,
            processor,
            running,
            store,
            reference,
            journal,
            attempts,
            lambda steps: Watchdog(stall_seconds, stalled).watch(steps),
        )
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
