"""What the training stages share: the model to begin with, the lessons on this host, the processes, the registered model."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from pyspark.sql import DataFrame

from jobs.runtime.errors import UsageError
from jobs.runtime.run import Run
from jobs.steps import recipes
from jobs.steps.metrics import metric_rows, write_once
from lake import parquet, storage
from models import identity
from models.training import journal
from models.training.lessons import COLUMNS, Lessons, write
from models.training.trainer import Fact, TrainSpec
from schemas.table import Table
from udfs.training import FAILURE, JOURNAL, CannotTrain, Training, attempt, joined

_NAMES = 5  # ids in a message
BASE_JOURNAL = "base.jsonl"


def model_folder(run: Run, flag: str, name: str) -> Path:
    """The folder of a model by its path, or by its name or id in the registry. Raises UsageError if there is none."""
    found = run.lake.models.find(run.task, name)
    if found is None and Path(name).is_dir():
        return Path(name)
    if found is None:
        raise UsageError(
            f"{flag} {name}: expected a folder in Hugging Face layout or a registered model of task {run.task}, found "
            f"neither; registered: {', '.join(run.lake.models.aliases(run.task)) or 'none'}"
        )
    local = storage.local_path(found)
    if local is None:
        raise UsageError(
            f"{flag} {name}: expected a model on this host's disk, found {found}: copy it here, name the copy"
        )
    return local


def check_start(run: Run, start: Path) -> None:
    """Raises UsageError where no engine could serve what comes of this model: see recipes.check_served."""
    model = run.settings.model.model_copy(update={"path": str(start), "adapter": None})
    settings = run.settings.model_copy(update={"model": model})
    recipes.check_served(recipes.of_settings(settings), settings)


def lessons(run: Run, folder: Path, rows: DataFrame) -> Lessons:
    """The rows (video_id, uri, said, text, labels) as a file of the training's own; the driver holds a batch at a time."""
    made, path = run.path("lessons"), folder / "lessons.arrow"
    rows.select(*COLUMNS.names).orderBy("video_id", "text").write.mode("overwrite").parquet(made)
    parts = parquet.batches(made, COLUMNS.names)
    write(path, (batch for part in parts for batch in part.to_batches()))
    return Lessons(path)


def check_disjoint(run: Run, stage: str, found: Lessons, start: Path) -> None:
    """Raises UsageError, naming ids, where the model to begin with has learned from some of these videos already."""
    mine = set(found.ids())
    for manifest in run.lake.models.ancestry(run.task, recipes.model_digest(str(start))):
        common = [id for id in run.lake.models.trained_on(run.task, manifest["model_id"]) if id in mine]
        if common:
            raise UsageError(
                f"{stage}: expected videos that no earlier stage learned from, found {len(common)} that the model "
                f"{manifest['model_id']} ({manifest['stage']}) did: {', '.join(common[:_NAMES])}"
                + (" ..." if len(common) > _NAMES else "")
            )


def facts(run: Run, stage: str, start: Path, found: Lessons, seed: int, chosen: dict[str, Any]) -> dict[str, Fact]:
    """What has to stay the same while a training goes on over several runs; chosen: the stage's settings."""
    settings = run.settings
    told: dict[str, Any] = {
        "stage": stage,
        "task": run.task,
        "start": recipes.model_digest(str(start)),
        "lessons": len(found),
        "lessons_digest": found.digest,
        "seed": seed,
        "prompt": identity.digest(recipes.prompt_of(settings)),
        "frames": settings.frames.model_dump(),
        "grammar": settings.rollout.grammar,
        **{f"{stage}.{name}": value for name, value in chosen.items()},
    }
    plain = str | int | float | bool
    return {
        name: value if isinstance(value, plain) or value is None else json.dumps(value, sort_keys=True)
        for name, value in told.items()
    }


def training(run: Run, folder: Path, start: Path, spec: TrainSpec, told: dict[str, Fact]) -> Training:
    """What each process is given."""
    settings, limits = run.settings, recipes.limits(run.settings)
    cores = settings.training.threads or max(1, (os.cpu_count() or 1) // settings.training.processes)
    return Training(
        folder=folder,
        start=start,
        lessons=folder / "lessons.arrow",
        prompt=recipes.prompt_of(settings),
        spec=spec,
        facts=told,
        frames=recipes.frame_spec(settings.frames.model_dump(), str(start)),
        limits=limits,
        decoding=recipes.decoding(settings),
        cache_bytes=settings.training.cache_mb << 20,
        threads=cores,
        quiet=run.record.quiet,
        sharded=settings.training.parallel == "fsdp",
    )


def in_processes(run: Run, process: Callable[..., None], training: Training, *arguments: Any) -> None:
    """Run a training process, alone here or as several on this host. Raises UsageError for what somebody has to change."""
    number, failure = run.settings.training.processes, training.folder / FAILURE
    failure.unlink(missing_ok=True)
    try:
        if number == 1:
            attempt(training.folder, process, training, *arguments)
            return
        from pyspark.ml.torch.distributor import TorchDistributor

        on_gpu = torch.cuda.is_available()
        distributor = TorchDistributor(num_processes=number, local_mode=True, use_gpu=on_gpu)
        distributor.run(joined, training.folder, process, training, *arguments)
    except CannotTrain as error:
        raise UsageError(str(error)) from None
    except RuntimeError:
        if failure.exists():
            raise UsageError(failure.read_text()) from None
        raise


def training_id(run: Run, folder: Path) -> str:
    """Names the training in a folder: the id of the run that began it."""
    path = folder / "training_id"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(run.record.run_id)
    return path.read_text()


def register(
    run: Run,
    folder: Path,
    stage: str,
    alias: str,
    start: Path,
    found: Lessons,
    told: dict[str, Fact],
    tables: list[Table],
) -> str:
    """Put the model of a finished training into the registry and its figures into metrics; returns the model's id.

    Where the folder also holds the figures of a stage before it (BASE_JOURNAL), these go along.
    """
    model = folder / "model"
    model_id = recipes.model_digest(str(model))
    figures = journal.read(folder / JOURNAL)
    last = {name: value for name, _, value in figures}
    manifest = {
        "model_id": model_id,
        "task": run.task,
        "stage": stage,
        "parent": told["start"],
        "parent_path": str(start.resolve()),
        "settings": told,
        "tables": {table.name: run.lake.version(table) for table in tables},
        "videos": len(set(found.ids())),
        "figures": last,
        "libraries": {name: version(name) for name in ("torch", "transformers")},
        "run_id": run.record.run_id,
        "created_at": datetime.now(UTC).isoformat(),
    }
    run.lake.models.save(run.task, model, manifest, sorted(set(found.ids())), alias)
    phases = {stage: figures, "base": journal.read(folder / BASE_JOURNAL)}
    write_once(
        run,
        [
            row
            for phase, told_of in phases.items()
            for name, step, value in told_of
            for row in metric_rows(run, {name: value}, phase, step=step, version=model_id)
        ],
    )
    run.record.versions |= {"model_id": model_id, "parent": str(told["start"])}
    run.record.results[stage] = {
        "model_id": model_id,
        "folder": run.lake.models.folder(run.task, model_id),
        "last": last,
    }
    run.record.say(f"model {model_id} is registered as {alias}: `deepintuit rollout --model {alias}` uses it")
    return model_id
