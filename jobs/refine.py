"""refine: stage 2, reinforcement learning of the reasoning model by rule rewards on the split `refine`.

    deepintuit refine --out build/refined --conf conf/local.yaml [--start aligned]

Labels are all it needs: the model writes the traces. Begins with the model that `align` registered, unless --start names
another. Goes on where it stopped if OUT is there; what it drew is in the table rl_rollouts, its figures in metrics. The
result is registered as `refined`. Uses the settings refine, training, frames and decode.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.runtime import cli
from jobs.runtime.errors import UsageError
from jobs.runtime.run import Run
from jobs.steps import recipes, scope, training
from jobs.steps.estimate import training as estimates
from jobs.steps.inputs import with_inputs
from jobs.steps.rounds import Rounds
from models.engines.promise import Sampling
from models.language.rule import code_of, load_rule
from models.training import journal
from models.training.refinement import RefineSpec, Task
from models.training.rewards import RewardError, rewards
from models.training.trainer import TrainSpec
from schemas.labels import LABELS
from schemas.splits import SPLITS
from schemas.texts import TEXTS
from schemas.videos import VIDEOS
from udfs.training import JOURNAL, refine

TAKES_BUDGET = False
COSTS_ONLY = {"micro_batch", "kv_cache_mb"}  # settings that change nothing of what is learned


def task_of(run: Run) -> Task:
    """What the rollouts are asked and judged by. Raises UsageError for a reward that cannot be had."""
    settings, chosen = run.settings, run.settings.refine
    try:
        judged_by = rewards(chosen.rewards, *chosen.length)
    except RewardError as error:
        raise UsageError(str(error)) from None
    if chosen.credit == "segment" and not judged_by.about_what_is_seen(bool(settings.labels.rule)):
        raise UsageError(
            "refine.credit: expected a reward about what is seen, evidence (of a task with a rule) or one of yours, found "
            f"{', '.join(chosen.rewards)}: observations would be taught their format alone; `trace` teaches all by all"
        )
    return Task(
        recipes.prompt_of(settings),
        settings.rollout.grammar,
        run.labels,
        run.label_set.independent,
        load_rule(settings.labels.rule) if settings.labels.rule else None,
        judged_by,
        Sampling(1.0, 1.0, settings.rollout.max_tokens, settings.rollout.stop),
    )


def drawn_by(run: Run) -> dict[str, Any]:
    """What decides rollouts and rewards beside the section refine; code by its digest."""
    settings = run.settings
    named = [name if ":" in name else f"{RewardError.__module__}:{name}" for name in settings.refine.rewards]
    own = [name for name in (settings.labels.rule, *named) if name]
    return {
        "max_tokens": settings.rollout.max_tokens,
        "stop": settings.rollout.stop,
        "engine": settings.engine.kind,
        "dtype": settings.engine.dtype,
        "code": {name: code_of(name) for name in own},
    }


def labelled(run: Run) -> DataFrame:
    """The labelled videos of the split refine: columns of lessons.COLUMNS, without a text to learn."""
    mine = scope.of_split(run, "refine")
    labels = run.lake.view("current_labels").where(F.col("task") == run.task)
    asked = mine.videos.select("video_id", "uri").join(labels.select("video_id", "labels"), "video_id")
    shown = with_inputs(run, list(run.settings.rollout.texts.items()), training.of_task(run, asked))
    return shown.select(
        "video_id", "uri", F.col("input_text").alias("said"), F.lit(None).cast("string").alias("text"), "labels"
    )


def estimate(run: Run, arguments: argparse.Namespace) -> None:
    """--dry-run."""
    estimates.estimate(run, arguments, "refine", arguments.start, lambda: labelled(run))


def run(run: Run, arguments: argparse.Namespace) -> None:
    with training.made(run, arguments.out) as out:
        train(run, arguments, out)


def train(run: Run, arguments: argparse.Namespace, out: Path) -> None:
    settings, chosen = run.settings, run.settings.refine
    start = training.model_folder(run, "--start", arguments.start)
    training.check_start(run, start)
    task = task_of(run)
    read_at = training.versions(run, [VIDEOS, LABELS, SPLITS, TEXTS])
    lessons = training.lessons(run, out, labelled(run))
    run.record.add({"lessons": len(lessons)})
    if not len(lessons):
        raise UsageError("refine: no labelled video in the split refine: ingest some with --split refine")
    training.check_lessons(run, "refine", lessons)
    training.check_disjoint(run, "refine", lessons.ids(), start)
    learned = chosen.model_dump(exclude=COSTS_ONLY) | drawn_by(run)
    told = training.facts(run, "refine", start, lessons, arguments.seed, learned)
    spec = TrainSpec(
        chosen.steps,
        chosen.learning_rate,
        chosen.warmup,
        weight_decay=0.0,
        checkpoint_every=settings.training.checkpoint_every,
    )
    rounds = Rounds(run.lake.root, training.training_id(run, out, told), run.record.run_id, run.record.note_id)
    training.in_processes(
        run,
        refine,
        training.training(run, out, start, spec, told, chosen.lora),
        RefineSpec(
            objective=chosen.objective,
            credit=chosen.credit,
            groups=chosen.groups,
            rollouts=chosen.rollouts,
            updates=chosen.updates,
            refills=chosen.refills,
            tau=chosen.tau,
            low=chosen.clip_low,
            high=chosen.clip_high,
            cap=chosen.importance_cap,
            beta=chosen.beta,
            micro_batch=chosen.micro_batch,
            seed=arguments.seed,
        ),
        task,
        recipes.engine_of(settings, str(start), str(told["start"]), chosen.kv_cache_mb),
        settings.engine.stall_seconds,
        rounds,
    )
    check_learned(out)
    training.register(run, out, "refine", "refined", start, lessons, told, read_at)


def check_learned(out: Path) -> None:
    """Raises UsageError where no step had a gradient: the model is the one that it began with, which needs no other name."""
    figures = journal.read(out / JOURNAL)
    if figures and not any(value > 0 for name, _, value in figures if name == "grad_norm"):
        raise UsageError(
            f"refine: learned nothing in {out}: expected rollouts of one video to differ in their rewards, found them alike "
            "at every step; the model is the one that it began with, so none is registered. Where `success` is 0 it needs a "
            "longer cold start (`align`), or a reward that some rollouts get"
        )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--start",
        default="aligned",
        metavar="MODEL",
        help="folder, or name or id of a registered model (default aligned)",
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FOLDER", help="goes on where it stopped if it is there"
    )
    parser.add_argument("--seed", type=int, default=0)


def main() -> int:
    return cli.main(["refine", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
