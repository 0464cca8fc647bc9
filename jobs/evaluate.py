"""evaluate: how good the live versions are on a split, beside simpler ways to use the same model, and how sure that is.

    deepintuit evaluate --conf conf/local.yaml [--split dev] [--calibrator ID ...] [--diagnostics] [--judge]

greedy      one rollout at temperature 0, probabilities from the labels where its answer begins
single      one sampled rollout, averaged over the K of each video
majority    the label most of the K voted for (ties: the more probable one on average); probabilities are vote shares
<kind>      the live calibrator by its kind (linear, vote, ...), and with --calibrator others beside it

Each of the first three stands there once more at one temperature, fitted on the split calibrate: probabilities of
calibrators are compared with tempered ones. All rows are of the same videos; what gave no usable answer counts as wrong,
with equal probabilities. Intervals are of a bootstrap over sources (evaluate.cluster) or videos, and differences are paired.

--diagnostics adds what the model sees and follows: observations that are right, the labels that they imply, and the greedy
rollout on shuffled frames, on one frame, on none. The table trace_quality gets a row for each trace; --judge asks the model
what a trace's thinking argues for, in a task without a rule of its own. Of independent labels each (video, label) pair is
judged on its own. Rolls out and scores what is missing.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass

from jobs.runtime import cli
from jobs.runtime.errors import UsageError
from jobs.runtime.run import Run
from jobs.steps import judging, recipes, scope, scorers, trace_quality
from jobs.steps.comparison import Comparison
from jobs.steps.figures import note
from jobs.steps.recipes import Recipe
from jobs.steps.rollouts import roll_out, say_statuses
from jobs.steps.scope import Scope
from jobs.steps.scorers import Scorer
from jobs.steps.scoring import score_all
from models.evaluation.methods import Case, Methods, Statements
from schemas.splits import STAGES

TAKES_BUDGET = False


@dataclass(frozen=True)
class Sample:
    """Labelled videos: those that figures are of, or those that temperatures are fitted on."""

    scope: Scope
    cases: list[Case]


@dataclass(frozen=True)
class Asked:
    """The traces that are looked at: of a recipe the first k, and of its greedy twin one."""

    recipe: Recipe
    greedy: Recipe
    k: int


def run(run: Run, arguments: argparse.Namespace) -> None:
    trace_quality.check(run, arguments.judge)
    live = scorers.live(run)
    compared = [live, *_others(run, arguments.calibrator, live)]
    asked = Asked(live.recipe, recipes.greedy(live.recipe), live.rollouts)
    judged = _sample(run, "judged", arguments.split, asked.recipe)
    tuned = _sample(run, "tuned", "calibrate", asked.recipe)
    run.record.add({"videos": len(judged.cases), "sources": len({case.source for case in judged.cases})})
    if not judged.cases:
        raise UsageError(
            f"evaluate: no labelled video in the split {arguments.split}; `deepintuit ingest --labels FILE --split "
            f"{arguments.split}`"
        )
    for sample in (judged, tuned):
        roll_out(run, asked.greedy, 1, sample.scope)
        roll_out(run, asked.recipe, asked.k, sample.scope)  # a video whose text has changed has none
    for scorer in compared:
        score_all(run, scorer, judged.scope)  # videos that an earlier scorer knows and this one does not
    trace_quality.judge(run, asked.recipe, asked.k, judged.scope, arguments.judge)
    table = Comparison(Methods(run.labels, run.label_set.independent), judged.cases)
    for scorer in compared:
        kind = scorer.manifest["kind"]
        name = kind if kind not in table.rows else f"{kind} {scorer.manifest['calibrator_id']}"
        table.add(name, table.methods.of_probs(judging.probs_of(run, judged.scope, judged.cases, scorer.id)))
    add_traces(run, table, asked, judged, tuned)
    if arguments.diagnostics:
        add_diagnostics(run, table, asked, judged)
    found = table.found()
    note(run, found.metrics(run))
    run.record.results |= found.document()
    say_statuses(run)
    if not run.record.quiet:
        found.show(run)


def _sample(run: Run, name: str, split: str, recipe: Recipe) -> Sample:
    return Sample(*judging.labelled(run, name, scope.stage(run, split, recipe)))


def _others(run: Run, ids: list[str], live: Scorer) -> list[Scorer]:
    """The scorers of other calibrators, under the live rule. Raises UsageError for one that looks at other traces."""
    made = []
    for calibrator_id in ids:
        manifest = run.lake.registry.calibrator(run.task, calibrator_id)
        scorer = scorers.of_manifest(manifest, run.settings.decide, run.label_set)
        if (scorer.recipe.id, scorer.rollouts) != (live.recipe.id, live.rollouts):
            raise UsageError(
                f"--calibrator {calibrator_id}: it looks at {scorer.rollouts} traces of recipe {scorer.recipe.id}, the live "
                f"one at {live.rollouts} of {live.recipe.id}: `deepintuit compare` holds those against each other"
            )
        if scorer.id != live.id:
            made.append(scorer)
    return made


def add_traces(run: Run, table: Comparison, asked: Asked, judged: Sample, tuned: Sample) -> None:
    """greedy, single and majority, and each of them at a temperature fitted on the split calibrate."""
    methods = table.methods

    def said(of: Sample) -> dict[str, tuple[Statements, Statements]]:
        one = methods.of_traces(judging.traces_of(run, of.scope, of.cases, asked.greedy.id, 1))
        traces = judging.traces_of(run, of.scope, of.cases, asked.recipe.id, asked.k)
        each = methods.of_traces(traces)
        # As they are, and as they are tempered: the shares of few votes are 0 too often for a logarithm.
        votes = methods.of_votes(traces, raw=True), methods.of_votes(traces, raw=False)
        return {"greedy": (one, one), "single": (each, each), "majority": votes}

    found = said(judged)
    for name, (plain, _) in found.items():
        table.add(name, plain)
    if not tuned.cases:
        run.record.warn(
            "no labelled video in the split calibrate: nothing is tempered, and rows are not compared fairly"
        )
        return
    fitted, temperatures = said(tuned), {}
    for name, (_, to_temper) in found.items():
        temperatures[name] = methods.temperature(fitted[name][1], tuned.cases)
        table.add(f"{name} (tempered)", to_temper, temperatures[name])
    run.record.results["temperatures"] = temperatures


def add_diagnostics(run: Run, table: Comparison, asked: Asked, judged: Sample) -> None:
    """What the model sees, whether it follows what it sees, and what it needs to see."""
    methods, cases = table.methods, judged.cases
    quality = judging.quality_of(run, judged.scope, cases, asked.recipe.id, asked.k)
    if any(trace["implied"] for own in quality for trace in own):
        implied = [[trace["implied"] and (trace["implied"],) for trace in own] for own in quality]
        table.add("implied by its observation", methods.of_answers(implied), bare=True)
    if any(trace["observed"] is not None for own in quality for trace in own):
        pairs = zip(cases, quality, strict=True)
        right = [[case.truth if trace["observed"] else None for trace in own] for case, own in pairs]
        table.add("observation right", methods.of_answers(right), bare=True)
    for name, blinded in recipes.blinded(asked.greedy).items():
        roll_out(run, blinded, 1, judged.scope)
        traces = judging.traces_of(run, judged.scope, cases, blinded.id, 1)
        table.add(name, methods.of_traces(traces))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--split", choices=STAGES, default="test", help="labelled videos of which stage (default test)")
    parser.add_argument(
        "--calibrator",
        action="append",
        default=[],
        metavar="ID",
        help="a registered one beside the live one; repeatable",
    )
    parser.add_argument("--diagnostics", action="store_true", help="what the model sees, follows and needs to see")
    parser.add_argument("--judge", action="store_true", help="ask the model what each trace's thinking argues for")


def main() -> int:
    return cli.main(["evaluate", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
