"""evaluate: how good the live versions are on a split, beside simpler ways to use the same model, and how sure that is.

    deepintuit evaluate --conf conf/local.yaml [--split dev] [--calibrator ID ...] [--diagnostics] [--judge]

greedy      one rollout at temperature 0, probabilities from the labels where its answer begins
single      one sampled rollout, averaged over the K of each video
majority    the label most of the K voted for; probabilities are vote shares, raw
<kind>      the live calibrator by its kind (linear, vote, ...), and with --calibrator others beside it

Each of the first three stands there once more at one temperature, fitted on the split calibrate: probabilities of
calibrators are compared with tempered ones. All rows are of the same videos; what gave no usable answer counts as wrong,
and of equally probable labels the first by name is the answer, as in decisions. Intervals are of a bootstrap over sources
(evaluate.cluster) or videos, and differences are paired.

--diagnostics adds what the model sees and follows: observations that are right, the labels that they imply, and the greedy
rollout on shuffled frames, on one frame, on none. These rows are no methods to decide by, and are held against nothing.
The table trace_quality gets a row for each trace; --judge asks the model what a trace's thinking argues for, in a task
without a rule of its own. Of independent labels each (video, label) pair is judged on its own. Rolls out and scores what is
missing.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from typing import Any

from jobs.runtime import cli
from jobs.runtime.errors import UsageError
from jobs.runtime.run import Run
from jobs.steps import drift, labelled, people, recipes, rules, scope, scorers, trace_quality
from jobs.steps.comparison import Comparison
from jobs.steps.metrics import write_once
from jobs.steps.recipes import Recipe
from jobs.steps.rollouts import roll_out, say_statuses
from jobs.steps.scope import Scope
from jobs.steps.scorers import Scorer
from jobs.steps.scoring import score_all
from jobs.steps.serving import bring
from models.calibration.features import Trace
from models.evaluation.methods import Case, Methods, Statements
from schemas.splits import STAGES

TAKES_BUDGET = False


@dataclass(frozen=True)
class Sample:
    """Labelled videos: those that figures are of, or those that temperatures are fitted on."""

    scope: Scope
    cases: list[Case]


@dataclass(frozen=True)
class Rolled:
    """The traces that are looked at: of a recipe the first k, and of its greedy twin one."""

    recipe: Recipe
    greedy: Recipe
    k: int


def run(run: Run, arguments: argparse.Namespace) -> None:
    trace_quality.check(run, arguments.judge)
    live = scorers.live(run)
    if live.recipe.imported and (arguments.diagnostics or arguments.judge):
        raise UsageError("evaluate: --diagnostics and --judge ask the model again; these traces are another system's")
    compared = [live, *_others(run, arguments.calibrator, live)]
    recipe, k = live.widest
    rolled = Rolled(recipe, recipe if recipe.imported else recipes.greedy(recipe), k)
    tested = _sample(run, "tested", arguments.split, rolled.recipe)
    tempered_on = _sample(run, "tempered-on", "calibrate", rolled.recipe)
    table = Comparison(Methods(run.labels, run.label_set.independent), arguments.split, tested.cases)
    run.record.add({"videos": len(tested.cases), "clusters": table.clusters})
    if not tested.cases:
        raise UsageError(
            f"evaluate: no labelled video in the split {arguments.split}; `deepintuit ingest --labels FILE --split "
            f"{arguments.split}`"
        )
    _say_what_is_shared(run, arguments.split, tested, tempered_on)
    for sample in () if rolled.recipe.imported else (tested, tempered_on):
        roll_out(run, rolled.greedy, 1, sample.scope)
        roll_out(run, rolled.recipe, rolled.k, sample.scope)  # a video whose text has changed has none
    for scorer in compared:
        # Videos that an earlier scorer knows and this one does not; what an adaptive one needs depends on what it has seen.
        (bring if scorer.is_adaptive else score_all)(run, scorer, tested.scope)
    who = trace_quality.judged_by(run, arguments.judge)
    trace_quality.judge(run, rolled.recipe, rolled.k, tested.scope, who)
    quality = labelled.quality_of(run, tested.scope, tested.cases, rolled.recipe.id, rolled.k, who.id)
    for scorer in compared:
        kind = scorer.manifest["kind"]
        name = kind if kind not in table.rows else f"{kind} {scorer.manifest['calibrator_id']}"
        scores = labelled.scores_of(run, tested.scope, tested.cases, scorer.id)
        table.add(name, table.methods.of_scores(scores), scorer.id)
    add_traces(run, table, rolled, tested, tempered_on)
    if arguments.diagnostics:
        add_diagnostics(run, table, rolled, tested, quality)
    result = table.result()
    write_once(run, result.metrics(run))
    run.record.versions |= live.versions  # whatever was rolled out or scored last
    run.record.results |= result.document() | {"trace_quality": (known := summed(quality))}
    run.record.results |= promises(run, live, tested)
    say_statuses(run)
    if not run.record.quiet:
        result.show(run)
        told = ", ".join(f"{name} {value:.3f}" for name, value in known.items())
        run.record.say(f"traces, judged by {who.by}: {told}; each has a row in the table trace_quality")


def promises(run: Run, live: Scorer, tested: Sample) -> dict[str, Any]:
    """Whether prediction sets hold what they promise, whether videos have changed, and what people made of those that were
    left to them."""
    if run.label_set.independent:
        held = None
    else:
        truth = {case.video_id: case.truth[0] for case in tested.cases}
        held = drift.coverage(run, live, tested.scope, truth, {case.video_id: case.cluster for case in tested.cases})
    moved, people_said = drift.drift(run, live), people.looks(run)
    drift.say(run, moved)
    run.record.say(str(people_said))
    return {"coverage": held and held.json(), "drift": moved, "people": people_said.json()}


def summed(quality: list[list[Trace]]) -> dict[str, float]:
    """The mean of everything that is known of traces: of what is true or false, the share."""
    traces = [trace for own in quality for trace in own]
    found = {}
    for name in labelled.QUALITIES:
        known = [float(trace[name]) for trace in traces if trace[name] is not None]
        if known:
            found[name] = sum(known) / len(known)
    return found


def _sample(run: Run, name: str, split: str, recipe: Recipe) -> Sample:
    return Sample(*labelled.labelled(run, name, scope.of_split(run, split, recipe)))


def _say_what_is_shared(run: Run, split: str, tested: Sample, tempered_on: Sample) -> None:
    """Figures on what something was taught with flatter it."""
    if split not in ("dev", "test"):
        run.record.warn(
            f"videos of the split {split} are there to teach with: their figures are no evidence of new ones"
        )
        return
    shared = {case.cluster for case in tested.cases} & {case.cluster for case in tempered_on.cases}
    if shared:
        run.record.warn(
            f"{len(shared)} sources ({', '.join(sorted(shared)[:3])}) have videos in {split} and in calibrate: figures may "
            "flatter; splits by source are fair"
        )


def _others(run: Run, ids: list[str], live: Scorer) -> list[Scorer]:
    """The scorers of other calibrators, under the rule of the settings. Raises UsageError for one that looks at other
    traces."""
    made = []
    for calibrator_id in ids:
        manifest = run.lake.registry.calibrator(run.task, calibrator_id)
        scorer = scorers.of_manifest(manifest, rules.of_settings(run, manifest), run.label_set)
        (recipe, k), (of_live, k_of_live) = scorer.widest, live.widest
        if (recipe.id, k) != (of_live.id, k_of_live):
            raise UsageError(
                f"--calibrator {calibrator_id}: it looks at {k} traces of recipe {recipe.id}, the live one at "
                f"{k_of_live} of {of_live.id}: `deepintuit compare` holds those against each other"
            )
        if scorer.id != live.id:
            made.append(scorer)
    return made


def add_traces(run: Run, table: Comparison, rolled: Rolled, tested: Sample, tempered_on: Sample) -> None:
    """greedy, single and majority, and each of them at a temperature fitted on the split calibrate."""
    methods = table.methods
    versions = {"greedy": rolled.greedy.id, "single": rolled.recipe.id, "majority": rolled.recipe.id}

    def statements_of(sample: Sample) -> dict[str, tuple[Statements, Statements]]:
        traces = labelled.traces_of(run, sample.scope, sample.cases, rolled.recipe.id, rolled.k)
        each = methods.of_traces(traces)
        # As they are, and as they are tempered: the shares of few votes are 0 too often for a logarithm.
        votes = methods.of_vote_shares(traces), methods.of_votes(traces)
        found = {"single": (each, each), "majority": votes}
        if rolled.recipe.imported:  # nobody can be asked again
            return found
        one = methods.of_traces(labelled.traces_of(run, sample.scope, sample.cases, rolled.greedy.id, 1))
        return {"greedy": (one, one)} | found

    found = statements_of(tested)
    for name, (plain, _) in found.items():
        table.add(name, plain, versions[name])
    if not tempered_on.cases:
        run.record.warn(
            "no labelled video in the split calibrate: nothing is tempered, and rows are not compared fairly"
        )
        return
    fitted, temperatures = statements_of(tempered_on), {}
    for name, (_, to_temper) in found.items():
        temperatures[name] = methods.temperature(fitted[name][1], tempered_on.cases)
        table.add(f"{name} (tempered)", to_temper, versions[name], temperatures[name])
    run.record.results["temperatures"] = temperatures


def add_diagnostics(run: Run, table: Comparison, rolled: Rolled, tested: Sample, quality: list[list[Trace]]) -> None:
    """What the model sees, whether it follows what it sees, and what it needs to see."""
    methods, cases, version = table.methods, tested.cases, rolled.recipe.id
    if any(trace["observation_label"] for own in quality for trace in own):
        implied = [[trace["observation_label"] and (trace["observation_label"],) for trace in own] for own in quality]
        table.add("implied by its observation", methods.of_answers(implied), version, bare=True)
    if any(trace["observation_right"] is not None for own in quality for trace in own):
        pairs = zip(cases, quality, strict=True)
        right = [[case.truth if trace["observation_right"] else None for trace in own] for case, own in pairs]
        table.add("observation right", methods.of_answers(right), version, bare=True)
    for name, blinded in recipes.blinded(rolled.greedy).items():
        roll_out(run, blinded, 1, tested.scope)
        traces = labelled.traces_of(run, tested.scope, cases, blinded.id, 1)
        table.add(f"greedy, {name}", methods.of_traces(traces), blinded.id, bare=True)


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
