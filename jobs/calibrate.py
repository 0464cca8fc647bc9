"""calibrate: train the calibrator on the traces of the split `calibrate` and register it as a candidate.

    deepintuit calibrate --conf conf/local.yaml [--set calibrate.kind=text] [--traces RECIPE] [--folds N]
    deepintuit calibrate --conf conf/local.yaml --set calibrate.kind=vlm|both --out FOLDER

Runs no rollouts: `deepintuit rollout --split calibrate` makes them; kinds vlm and both have a model review them. Beside what
calibrate.kind asks for, the tempered vote is registered: what every other calibrator has to beat in NLL, on videos that it
has not seen, by more than chance. Where it does not, the vote is nominated, and `promote` takes that. A candidate is live
only after `promote`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from pyspark.sql import functions as F

from jobs.runtime import cli
from jobs.runtime.errors import UsageError
from jobs.runtime.run import Run
from jobs.steps import candidates, imports, out_of_fold, recipes, scope
from jobs.steps.candidates import Candidate, Given
from jobs.steps.examples import check
from jobs.steps.metrics import metric_rows, write_once
from jobs.steps.recipes import Recipe
from models.calibration import calibrator, crossfit
from models.calibration.crossfit import Examples, HeldOut
from models.calibration.features import FeatureSpec
from models.calibration.judged import Judged, numbers
from models.calibration.probabilities import is_extreme
from models.calibration.rare import ENOUGH
from models.calibration.worth import VOTE, Worth, worth
from schemas.traces import STATUSES

TAKES_BUDGET = False
_NAMES = 5  # labels in a message
_MOST_VIDEOS = 200_000  # the driver holds their features; more would teach so small a model nothing
_MOST_TEXTS = 10_000  # of which it holds some thousand features each
_SHARES = 1 << 30
_MOSTLY = 0.5  # share of the traces
_HONEST = "not below 0 for sure: the vote is the honest choice, `promote` takes no other without --force"


def run(run: Run, arguments: argparse.Namespace) -> None:
    settings, kind = run.settings, run.settings.calibrate.kind
    if arguments.traces:
        recipe, plan = imports.recipe(run, arguments.traces), list[tuple[Recipe, int]]()
        k = recipe.imported
    else:
        plan = recipes.plan_of_settings(settings) if kind == "adaptive" else []
        recipe, k = plan[0] if plan else (recipes.of_settings(settings), settings.rollout.n)
        k = max([k, *(most for other, most in plan if other.id == recipe.id)])  # what the vote takes is not adaptive
    folds = arguments.folds or settings.calibrate.folds
    if folds < 2:
        raise UsageError("--folds: expected two at least, of which each is judged by what the others taught, found 1")
    mine = scope.of_split(run, "calibrate", recipe)
    most = _MOST_TEXTS if kind in ("text", "both") else _MOST_VIDEOS
    if mine.count > most:  # about so many; when more come, most of them are the same
        share = F.pmod(F.xxhash64("video_id"), F.lit(_SHARES)) < _SHARES * most // mine.count
        mine = scope.fix(run, "calibrate-on", mine.videos.where(share))
    given = candidates.given(run, mine, recipe, k, folds)
    voting = candidates.voting(run, given)
    examples = voting.examples
    run.record.add({"videos_train": len(examples), "clusters_train": len(np.unique(examples.cluster))})
    if not len(examples):
        raise UsageError(_nothing(run, recipe, k))
    datasets = {VOTE: check(run, given.rows, k)}
    say_traces(run, examples, given.plain)
    vote = crossfit.cross_fit(examples, voting.fit, run.labels)
    tried = {VOTE: voting}
    if kind in ("linear", "text"):
        tried[kind] = candidates.reading(run, given, vote)
        if kind == "linear":
            say_rare(run, examples, given.plain)
    elif kind == "adaptive":
        tried[kind] = candidates.adapting(run, given, plan)
        datasets[kind] = check(run, tried[kind].rows, sum({of.id: most for of, most in plan}.values()))
    elif kind in ("vlm", "both"):
        tried |= candidates.watching(run, given, arguments.out, arguments.seed)
    held_out = {
        name: vote if name == VOTE else crossfit.cross_fit(of.examples, of.fit, run.labels)
        for name, of in tried.items()
    }
    found = {name: worth_of(of, held_out[name], len(run.labels)) for name, of in tried.items()}
    better = {name: of.nll for name, of in found.items() if of and of.beats_vote and of.beats_constant}
    best = min(better, key=better.__getitem__, default=VOTE)
    figures: list[dict[str, Any]] = []
    for name, candidate in tried.items():
        made, known, own = candidate.fit(candidate.examples), found[name], held_out[name]
        made = replace(made, temperature=known.temperature) if known else made
        calibrator_id = register(
            run,
            candidate,
            given,
            made,
            known,
            own,
            datasets.get(name, datasets[VOTE]),
            plan if name == "adaptive" else (),
        )
        run.record.results[name] = {"calibrator_id": calibrator_id} | (known.json() if known else {})
        if arguments.folds and own is not None:
            run.record.results[name]["out_of_fold"] = out_of_fold.publish(
                run, calibrator_id, candidate.recipe.id, k, folds, candidate.rows, own, candidate.examples.video
            )
        figures += metrics_of(run, name, calibrator_id, known, len(candidate.examples))
    run.lake.registry.nominate(run.task, run.record.results[best]["calibrator_id"])
    run.record.versions |= {"recipe_id": recipe.id, "calibrator_id": run.record.results[best]["calibrator_id"]}
    write_once(run, figures)
    say(run, found, {name: len(of.examples) for name, of in tried.items()}, best, folds)


def _nothing(run: Run, recipe: Recipe, k: int) -> str:
    rolled = "" if recipe.imported else " and `deepintuit rollout --split calibrate`"
    others = [] if recipe.imported else imports.known(run)
    return (
        f"calibrate: no labelled video of the split calibrate has its {k} traces under recipe {recipe.id}; run `deepintuit "
        f"ingest --labels FILE --split calibrate`{rolled} first"
        + (f"; for imported traces give --traces, one of {', '.join(others)}" if others else "")
    )


def worth_of(candidate: Candidate, own: HeldOut | None, labels: int) -> Worth | None:
    """What a candidate is worth; nothing is known where all videos are in one fold."""
    return None if own is None else worth(own, candidate.vote, candidate.examples, labels)


def register(
    run: Run,
    candidate: Candidate,
    given: Given,
    made: calibrator.Calibrator,
    found: Worth | None,
    own: HeldOut | None,
    dataset: str,
    plan: Sequence[tuple[Recipe, int]],
) -> str:
    """Keep a candidate in the registry, with what is known of it now; returns its id. dataset: digest of what it comes
    from; plan: of effort, () of a fixed one."""
    of = candidate.examples
    held_out = None if own is None else Judged(own.probs, of.targets, of.cluster, numbers(of.video)).packed()
    manifest = (
        calibrator.manifest(made, candidate.recipe.id, plan[0][1] if plan else given.k)
        | _json(candidate.recipe)
        | {
            "task": run.task,
            "run_id": run.record.run_id,
            "created_at": datetime.now(UTC).isoformat(),
            "trained_on": {name: run.record.counts[name] for name in ("videos_train", "clusters_train")}
            | {"dataset": dataset, "folds": given.folds},
            "worth": found and found.json(),
        }
        | ({"plan": [_json(recipe) | {"rollouts": k} for recipe, k in plan]} if plan else {})
        | ({"reviewed": _json(given.recipe)} if candidate.recipe.reviewed else {})
    )
    run.lake.registry.save(run.task, manifest, calibrator.weights(made), held_out)
    return manifest["calibrator_id"]


def _json(recipe: Recipe) -> dict[str, Any]:
    return {
        "recipe_id": recipe.id,
        "recipe": recipe.json,
        "model_path": recipe.model_path,
        "adapter_path": recipe.adapter_path,
    }


def metrics_of(run: Run, kind: str, calibrator_id: str, found: Worth | None, videos: int) -> list[dict[str, Any]]:
    """Rows of the table metrics: a candidate's figures, of so many videos, and how far its NLL is from others'."""
    if found is None:
        return []
    known: dict[str, Any] = {"split": "calibrate", "videos": videos}
    rows = metric_rows(run, found.figures(), kind, version=calibrator_id, **known)
    for minus, less in (("constant", found.minus_constant), (VOTE, found.minus_vote)):
        if less is not None:
            rows += metric_rows(run, {"nll": less}, kind, version=calibrator_id, minus=minus, **known)
    return rows


def say_traces(run: Run, examples: Examples, spec: FeatureSpec) -> None:
    """Traces without an answer teach nothing; where most are, that is said."""
    names = spec.names
    shares = {name: examples.features[:, names.index(f"status/{name}")].mean() for name in STATUSES}
    if shares["ok"] < _MOSTLY:
        others = ", ".join(f"{name} {share:.0%}" for name, share in shares.items() if name != "ok" and share > 0)
        run.record.warn(
            f"only {shares['ok']:.0%} of the traces have a usable answer ({others}): look at them before anything else, "
            '`deepintuit sql "select status, text from traces limit 5"`; the prompt, the grammar or rollout.max_tokens may '
            "not fit the model"
        )


def say_rare(run: Run, examples: Examples, spec: FeatureSpec) -> None:
    """Labels with too few videos."""
    rare = crossfit.rare(spec, examples)
    for what, rows in (("with", rare.having), ("without", rare.lacking)):
        if rows:
            run.record.warn(
                f"fewer than {ENOUGH} videos to train on {what} the label {_listed(rows)}: there the calibrator mostly "
                "believes the traces; label more such videos of the split calibrate"
            )


def say(run: Run, found: Mapping[str, Worth | None], judging: Mapping[str, int], best: str, folds: int) -> None:
    """What came of it, and whether it is worth promoting; judging: videos that each was judged by."""
    clusters = run.record.counts["clusters_train"]
    for kind, of in found.items():
        if of is None:
            run.record.warn(
                f"{kind}: trained on {judging[kind]} videos of {clusters} sources, all in one fold: the temperature is 1 "
                "and nothing says how good it is; label more videos of the split calibrate"
            )
            continue
        run.record.say(
            f"{kind}: NLL {of.nll:.3f}, accuracy {of.accuracy:.3f}, temperature {of.temperature:.2f}, on {judging[kind]} "
            f"videos that it had not seen ({folds} folds)"
        )
        if is_extreme(of.temperature):
            run.record.warn(
                f"{kind}: its temperature is extreme ({of.temperature:.2f}): the traces say nothing of the labels, or are "
                "right in every case"
            )
        if not of.beats_constant:
            run.record.warn(
                f"{kind}: not known to be better than saying of every video how often each label comes (NLL "
                f"{of.nll - of.minus_constant.value:.3f}): `promote` refuses it"
            )
        if of.minus_vote:
            what = "the best" if kind == best else _HONEST
            run.record.say(f"{kind} minus vote, NLL: {of.minus_vote}; {what}")
    if (known := found[best]) and not known.beats_constant:
        run.record.say(f"calibrator {run.record.versions['calibrator_id']} ({best}): nothing better was found")
    else:
        run.record.say(
            f"calibrator {run.record.versions['calibrator_id']} ({best}): `deepintuit promote` makes it live"
        )


def _listed(rows: dict[str, int]) -> str:
    """Labels with their rows, in the order of the task; not more than a line holds."""
    first = ", ".join(f"{label} ({n})" for label, n in list(rows.items())[:_NAMES])
    return first if len(rows) <= _NAMES else f"{first} and {len(rows) - _NAMES} more"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--traces", metavar="RECIPE", help="of imported traces; without it, those that the settings describe"
    )
    parser.add_argument(
        "--folds",
        type=cli.positive,
        metavar="N",
        help="in place of calibrate.folds; and what is said of each video by what the others taught is written to scores",
    )
    parser.add_argument(
        "--out", type=Path, metavar="FOLDER", help="of the model of kind vlm or both; goes on where it stopped"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the model of kind vlm or both")


def main() -> int:
    return cli.main(["calibrate", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
