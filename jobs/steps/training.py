"""What the training stages share: the model to begin with, the lessons on this host, the processes, the registered model."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from fcntl import LOCK_EX, LOCK_NB, flock
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from pyspark.sql import DataFrame, Observation
from pyspark.sql import functions as F
from safetensors import SafetensorError, safe_open

import schemas.lessons
from conf.sections import Lora
from jobs.runtime.errors import Doubted, UsageError
from jobs.runtime.run import Run
from jobs.steps import boundary, recipes
from jobs.steps.metrics import metric_rows, write_once
from lake import parquet, storage
from models import identity
from models.training import journal
from models.training.lessons import COLUMNS, Lessons, file_of, write
from models.training.lora import LoraSpec
from models.training.parquet_lessons import materialise
from models.training.reading import missing
from models.training.trainer import FACTS, Fact, ResumeError, TrainSpec, check_facts, finished
from schemas.table import Table
from udfs.training import JOURNAL, CannotTrain, Training, attempt, failure, forget_failure, joined

_NAMES = 5  # ids in a message
_LESSONS = "lessons"
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


@contextmanager
def made(run: Run, out: Path) -> Iterator[Path]:
    """The folder of a training, there from now on, and this run's alone while it lasts.

    Raises UsageError where it cannot be, and where another run has it.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock = (out / "lock").open("a+")
    except OSError as error:
        raise UsageError(f"--out {out}: expected a folder, or room for one, found neither: {error.strerror}") from None
    with lock:
        try:
            flock(lock, LOCK_EX | LOCK_NB)  # goes with the process, however it ends
        except BlockingIOError:
            lock.seek(0)
            raise UsageError(f"--out {out}: run {lock.read().strip()} is at work there: wait for it") from None
        lock.truncate(0)
        lock.write(run.record.run_id)
        lock.flush()
        yield out


def check_start(run: Run, start: Path) -> None:
    """Raises UsageError where no engine could serve what comes of this model: see recipes.check_served."""
    model = run.settings.model.model_copy(update={"path": str(start), "adapter": None})
    settings = run.settings.model_copy(update={"model": model})
    recipes.check_served(recipes.of_settings(settings), settings)


def lessons(run: Run, folder: Path, rows: DataFrame) -> Lessons:
    """The rows (video_id, uri, said, text, labels) as a file of the training's own, with its dataset beside it where
    petastorm reads that; the driver holds a batch at a time.

    Raises UsageError where the reader cannot be had, StoreError where what Spark wrote does not come back whole.
    """
    reader, made, written = run.settings.training.reader, run.path(_LESSONS), Observation()
    if lacking := missing(reader):
        raise UsageError(f"training.reader: {lacking}")
    ordered = rows.select(*COLUMNS.names).orderBy("video_id", "text", "said")
    ordered.observe(written, F.count(F.lit(1)).alias("rows")).write.mode("overwrite").parquet(made)
    parts = parquet.batches(made, COLUMNS.names)
    found = Lessons(write(folder, (batch for part in parts for batch in part.to_batches())))
    if len(found) != written.get["rows"]:
        raise storage.StoreError(
            f"{made}: expected the {written.get['rows']} lessons that Spark wrote, found {len(found)}: run it again"
        )
    if reader == "petastorm":
        materialise(found.path)
    return found


def of_task(run: Run, labels: DataFrame) -> DataFrame:
    """Rows with `labels` but for those with one that the task has given up, which is told, and those without any: they teach
    nothing."""
    strange = F.array_except("labels", F.array(*map(F.lit, run.labels)))
    given_up = labels.select(F.explode(strange).alias("label")).groupBy("label").count().orderBy("label").collect()
    if given_up:
        listed = ", ".join(f"{row['label']} ({row['count']:,} rows)" for row in given_up)
        run.record.warn(f"labels that the task {run.task} does not have teach nothing: {listed}")
    return labels.where(F.size(strange) == 0)


def check_lessons(run: Run, stage: str, found: Lessons) -> None:
    """Hold what was read by `lessons` against its contract. Raises Doubted, with ids, where it is not what to learn from."""
    written = stage == "align"
    rows, asked = run.lake.spark.read.parquet(run.path(_LESSONS)), schemas.lessons
    boundary.check(run, stage, rows, asked.contract(stage, run.label_set, written), asked.key(written))
    counts = found.by_label()
    run.record.add({f"lessons_{label}": counts.get(label, 0) for label in run.labels})
    if sum(counts.values()) < len(found):  # what nobody has labelled may be anything
        return
    if len(counts) == 1 and not run.label_set.independent and len(run.labels) > 1:
        raise Doubted(
            f"{stage}: expected lessons of several labels, found {next(iter(counts))} alone ({len(found):,}): there is "
            "nothing to tell it from"
        )
    if lacking := [label for label in run.labels if not counts.get(label)]:
        run.record.warn(f"{stage}: no lesson of {', '.join(lacking)}")


def check_disjoint(run: Run, stage: str, ids: Iterable[str], start: Path) -> None:
    """Raises UsageError, naming ids, where the model to begin with has learned from some of these videos already."""
    mine = set(ids)
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


def training(
    run: Run, folder: Path, start: Path, spec: TrainSpec, told: dict[str, Fact], lora: Lora | None
) -> Training:
    """What each process is given."""
    settings, limits = run.settings, recipes.limits(run.settings)
    cores = settings.training.threads or max(1, (os.cpu_count() or 1) // settings.training.processes)
    return Training(
        folder=folder,
        start=start,
        lessons=file_of(folder, str(told["lessons_digest"])),
        prompt=recipes.prompt_of(settings),
        spec=spec,
        facts=told,
        frames=recipes.frame_spec(settings.frames.model_dump(), str(start)),
        limits=limits,
        decoding=recipes.decoding(settings),
        cache_bytes=(settings.training.cache_mb << 20) // settings.training.processes,
        threads=cores,
        quiet=run.record.quiet,
        sharded=settings.training.parallel == "fsdp",
        adapters=LoraSpec(lora.rank, lora.alpha) if lora else None,
        reader=settings.training.reader,
    )


def in_processes(run: Run, process: Callable[..., None], training: Training, *arguments: Any) -> None:
    """Run a training process, alone here or as several on this host; not where its last step is done already.

    Raises UsageError for what somebody has to change.
    """
    number, checkpoints = run.settings.training.processes, training.folder / "checkpoints"
    try:
        check_facts(checkpoints, training.facts)
    except ResumeError as error:
        raise UsageError(f"{error}{_other_lessons(training)}") from None
    if finished(checkpoints, training.spec.steps) and (training.folder / "model").is_dir():
        run.record.say(f"all {training.spec.steps} steps are done: nothing to train")
        return
    devices = torch.cuda.device_count()
    if 0 < devices < number:
        raise UsageError(f"training.processes: expected at most one for each of {devices} devices, found {number}")
    forget_failure(training.folder)
    try:
        if number == 1:
            attempt(training.folder, process, training, *arguments)
            return
        from pyspark.ml.torch.distributor import TorchDistributor

        # Devices are `joined`'s business: Spark would look for those of its own driver.
        distributor = TorchDistributor(num_processes=number, local_mode=True, use_gpu=False)
        distributor.run(joined, training.folder, process, training, *arguments)
    except CannotTrain as error:
        raise UsageError(str(error)) from None
    except RuntimeError as error:
        found = failure(training.folder) if number > 1 else None
        if isinstance(found, CannotTrain):
            raise UsageError(str(found)) from None
        raise found or error from None


def _other_lessons(training: Training) -> str:
    """Which videos came or went since the checkpoints of a folder were written, in words; nothing where none did."""
    then = str(json.loads((training.folder / "checkpoints" / FACTS).read_text()).get("lessons_digest"))
    if not file_of(training.folder, then).exists() or then == training.facts["lessons_digest"]:
        return ""
    before, now = (set(Lessons(path).ids()) for path in (file_of(training.folder, then), training.lessons))
    changes = {"new": now - before, "gone": before - now}
    told = [f"{len(ids)} {what}: {', '.join(sorted(ids)[:_NAMES])}" for what, ids in changes.items() if ids]
    return f"; of the videos {'; '.join(told)}" if told else "; the videos are the same, with other labels or texts"


def training_id(run: Run, folder: Path, told: dict[str, Fact]) -> str:
    """Names a training: the id of the run that began it in this folder, over these data and with these settings."""
    path, about = folder / "training_ids.json", identity.digest(told)
    try:
        known = json.loads(path.read_text()) if path.exists() else {}
    except ValueError:
        raise UsageError(
            f"{path}: expected a JSON document, found one that was cut short: delete it, and the same command goes on; its "
            "figures are then noted under another id"
        ) from None
    if about not in known:
        known[about] = run.record.run_id
        storage.write(str(path), json.dumps(known, indent=1).encode())
    return known[about]


def versions(run: Run, tables: list[Table]) -> dict[str, int]:
    """Versions of the tables as of now: before they are read."""
    return {table.name: run.lake.version(table) for table in tables}


def _check_whole(model: Path) -> None:
    """Raises UsageError where a file of weights cannot be read: what has lain there since may have been damaged."""
    for path in sorted(model.glob("*.safetensors")):
        try:
            with safe_open(path, "pt"):
                pass
        except (SafetensorError, OSError) as error:
            raise UsageError(
                f"{path}: expected the weights of a finished training, found a file that cannot be read ({error}): delete "
                f"{model}, and the same command writes it anew from the last checkpoint"
            ) from None


def register(
    run: Run,
    folder: Path,
    stage: str,
    alias: str,
    start: Path,
    found: Lessons,
    told: dict[str, Fact],
    read_at: dict[str, int],
) -> None:
    """Put the model of a finished training into the registry under a name, and its figures into metrics; once.

    read_at: versions of the tables that the lessons come from. Where the folder also holds the figures of a stage before it
    (BASE_JOURNAL), these go along.
    """
    model, models = folder / "model", run.lake.models
    _check_whole(model)
    model_id = recipes.model_digest(str(model))
    figures, ids = journal.read(folder / JOURNAL), sorted(set(found.ids()))
    last = {name: value for name, _, value in figures}
    run.record.versions |= {"model_id": model_id, "parent": str(told["start"])}
    run.record.results[stage] = {"model_id": model_id, "folder": models.folder(run.task, model_id), "last": last}
    known = models.known(run.task, model_id)
    if known is not None:
        models.save(run.task, model, known, ids, alias)  # mends what was cut, and gives a name that a kill left out
        run.record.say(f"model {model_id} is registered already")
        return
    manifest = {
        "model_id": model_id,
        "task": run.task,
        "stage": stage,
        "parent": told["start"],
        "parent_path": str(start.resolve()),
        "settings": told,
        "tables": read_at,
        "videos": len(ids),
        "figures": last,
        "libraries": {name: version(name) for name in ("torch", "transformers")},
        "training_id": training_id(run, folder, told),
        "run_id": run.record.run_id,
        "created_at": datetime.now(UTC).isoformat(),
    }
    phases = {stage: figures, "base": journal.read(folder / BASE_JOURNAL)}
    write_once(
        run,
        [
            row
            for phase, told_of in phases.items()
            for name, step, value in told_of
            for row in metric_rows(run, {name: value}, phase, step=step, version=model_id)
        ],
        of=model_id,
    )
    models.save(run.task, model, manifest, ids, alias)
    use = f": `deepintuit rollout --model {alias}` uses it" if stage != "calibrate" else ""
    run.record.say(f"model {model_id} is registered as {alias}{use}")
