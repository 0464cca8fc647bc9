"""Reviews (`calibrate.kind: vlm`): a model learns from labelled traces to say which label is right, and says it of others.

What it says of a trace is a rollout of one token under a recipe of its own, made, tried again and published like any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pyspark.sql import DataFrame
from pyspark.sql.pandas.types import from_arrow_schema
from transformers import AutoTokenizer

from jobs.runtime.errors import UsageError
from jobs.runtime.run import Run
from jobs.steps import recipes, training
from jobs.steps.recipes import Recipe
from lake import storage
from models import identity
from models.language.codes import choose
from models.language.review import BEFORE, DEFAULT_TEMPLATE, WORDING, review_text
from models.language.rule import code_of
from models.training.lessons import COLUMNS
from models.training.trainer import TrainSpec
from schemas.labels import LABELS
from schemas.splits import SPLITS
from schemas.texts import TEXTS
from schemas.traces import TRACES
from schemas.videos import VIDEOS
from udfs.reviewed import lessons_of
from udfs.training import align

_SECTION = "calibrate.vlm"
ALIAS = "reviewer"


def learn(run: Run, out: Path, recipe: Recipe, rows: DataFrame, ids: Sequence[str], seed: int) -> Recipe:
    """Fine-tune a model on traces of videos (columns video_id, uri, input_text, targets, traces with SAID), a lesson for
    each trace; register it, and return the recipe of its reviews. ids: of all videos that it learns from or is judged by.

    Raises UsageError for what somebody has to change.
    """
    settings, chosen = run.settings, run.settings.calibrate.vlm
    start = training.model_folder(run, f"{_SECTION}.init", chosen.init)
    read_at = training.versions(run, [VIDEOS, LABELS, SPLITS, TRACES, TEXTS])
    training.check_start(run, start)
    training.check_disjoint(run, "calibrate", ids, start)
    codes, text = _question(run, start)
    found = training.lessons(run, out, rows.mapInArrow(lessons_of(codes), from_arrow_schema(COLUMNS)))
    run.record.add({"lessons": len(found)})
    spec = TrainSpec(
        chosen.steps, chosen.learning_rate, chosen.warmup, checkpoint_every=settings.training.checkpoint_every
    )
    told = training.facts(run, _SECTION, start, found, seed, chosen.model_dump(exclude={"micro_batch", "init"}))
    told |= {"prompt": identity.digest([text, BEFORE]), "traces": recipe.id}
    work = replace(training.training(run, out, start, spec, told, chosen.lora), prompt=text, before=BEFORE)
    training.in_processes(run, align, work, chosen.batch, chosen.micro_batch, seed)
    training.register(run, out, "calibrate", ALIAS, start, found, told, read_at)
    model_id = recipes.model_digest(str(out / "model"))
    value = identity.review_recipe(
        model=model_id,
        reviewed=recipe.id,
        longest=settings.rollout.max_tokens,
        asks={"text": text, "before": BEFORE, "codes": codes, "wording": code_of(WORDING)},
        labels=settings.labels.labels,
        frames=settings.frames.model_dump(),
        dtype=settings.engine.dtype,
        texts=recipe.json.get("texts"),
    )
    folder = storage.local_path(run.lake.models.folder(run.task, model_id)) or out / "model"
    return Recipe(identity.digest(value), value, storage.absolute(str(folder)))


def _question(run: Run, folder: Path) -> tuple[dict[str, str], str]:
    """The codes of the labels for a model's tokenizer, and what is asked by them."""
    task = run.settings.labels
    try:
        codes = choose(AutoTokenizer.from_pretrained(folder, local_files_only=True), len(run.labels))
        return dict(zip(run.labels, codes, strict=True)), review_text(
            task.review or DEFAULT_TEMPLATE, task.labels, codes
        )
    except ValueError as error:
        raise UsageError(f"task {task.task}: {error}") from None
