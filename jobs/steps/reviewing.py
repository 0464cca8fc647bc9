"""The calibrator that watches the video (`calibrate.kind: vlm`): what its model learns, and what it says of videos."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql.pandas.types import from_arrow_schema
from pyspark.sql.types import ArrayType, DoubleType, StructField, StructType
from transformers import AutoTokenizer

from jobs.runtime.errors import UsageError
from jobs.runtime.run import Run
from jobs.steps import recipes, training
from jobs.steps.recipes import Recipe
from models import identity
from models.engines.reviews import ReviewPlan
from models.language.codes import choose
from models.language.review import BEFORE, DEFAULT_TEMPLATE, WORDING, review_text
from models.language.rule import code_of
from models.training.lessons import COLUMNS
from models.training.trainer import TrainSpec
from schemas.labels import LABELS
from schemas.splits import SPLITS
from schemas.traces import TRACES
from schemas.videos import VIDEOS
from udfs.reading import sample_video
from udfs.reviewer import REVIEWED, lessons_of, review
from udfs.training import align

_SECTION = "calibrate.vlm"
ALIAS = "reviewer"


def learn(run: Run, out: Path, recipe: Recipe, rows: DataFrame, seed: int) -> dict[str, Any]:
    """Fine-tune the model on videos with their traces (columns video_id, uri, input_text, targets, traces), one lesson for
    each trace, and register it. Returns what the calibrator asks, and of which model, as JSON.

    Raises UsageError for what somebody has to change.
    """
    settings, chosen = run.settings, run.settings.calibrate.vlm
    start = training.model_folder(run, f"{_SECTION}.init", chosen.init)
    read_at = training.versions(run, [VIDEOS, LABELS, SPLITS, TRACES])
    training.check_start(run, start)
    codes, text = _question(run, start)
    taught = rows.mapInArrow(lessons_of(run.labels, codes), from_arrow_schema(COLUMNS))
    found = training.lessons(run, out, taught)
    training.check_disjoint(run, "calibrate", found, start)
    run.record.add({"lessons": len(found)})
    spec = TrainSpec(
        chosen.steps, chosen.learning_rate, chosen.warmup, checkpoint_every=settings.training.checkpoint_every
    )
    told = training.facts(run, _SECTION, start, found, seed, chosen.model_dump(exclude={"micro_batch", "init"}))
    told |= {"prompt": identity.digest([text, BEFORE]), "traces": recipe.id}
    work = training.training(run, out, start, spec, told, chosen.lora)
    work = replace(work, prompt=text, before=BEFORE)
    training.in_processes(run, align, work, chosen.batch, chosen.micro_batch, seed)
    training.register(run, out, "calibrate", ALIAS, start, found, told, read_at)
    return {
        "model": recipes.model_digest(str(out / "model")),
        "text": text,
        "before": BEFORE,
        "wording": code_of(WORDING),
        "reduction": "mean",
        "codes": list(codes),
        "frames": recipe.json["frames"],
        "dtype": settings.engine.dtype,
    }


def reviewed(run: Run, asks: dict[str, Any], rows: DataFrame) -> DataFrame:
    """Adds what the model says of each video (columns uri, input_text, traces at least); see udfs/reviewer.py. Runs it in
    the stage that reads this, on as many engines as rollouts have."""
    folder = training.model_folder(run, "the calibrator's model", asks["model"])
    plan = ReviewPlan(
        engine=replace(recipes.engine_of(run.settings, str(folder), asks["model"]), dtype=asks["dtype"]),
        frames=recipes.frame_spec(asks["frames"], str(folder)),
        text=asks["text"],
        before=asks["before"],
        codes=tuple(asks["codes"]),
        decode=sample_video,
        limits=recipes.limits(run.settings),
        decoding=recipes.decoding(run.settings),
        stall_seconds=run.settings.engine.stall_seconds,
    )
    made = StructType([*rows.schema.fields, StructField(REVIEWED.name, ArrayType(DoubleType()))])
    return rows.repartition(run.settings.engine.per_cluster).mapInArrow(review(plan), made)


def _question(run: Run, folder: Path) -> tuple[tuple[str, ...], str]:
    """The codes of the labels for a model's tokenizer, and what is asked by them."""
    task = run.settings.labels
    try:
        codes = choose(AutoTokenizer.from_pretrained(folder, local_files_only=True), len(run.labels))
        return codes, review_text(task.review or DEFAULT_TEMPLATE, task.labels, codes)
    except ValueError as error:
        raise UsageError(f"task {task.task}: {error}") from None
