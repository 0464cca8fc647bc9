"""The decision rule that the settings describe, for one calibrator; what it needs of held-out videos is looked up."""

from __future__ import annotations

from typing import Any

from safetensors import SafetensorError

from jobs.runtime.errors import UsageError
from jobs.runtime.run import Run
from jobs.steps.deciding import Rule
from jobs.steps.scorers import Scorer, of_manifest
from lake import storage
from models.calibration import rules
from models.calibration.judged import Judged
from schemas.scorers import SCORERS
from udfs.calibrator import open_calibrator


def scorer(run: Run, manifest: dict[str, Any]) -> Scorer:
    """A registered calibrator under the rule of the settings. Raises UsageError as `of_settings` and `of_manifest`."""
    return of_manifest(manifest, of_settings(run, manifest), run.label_set)


def registered(run: Run, manifest: dict[str, Any]) -> Scorer:
    """The same, whole as its digest says and noted in the table scorers. Raises storage.Damaged, too."""
    open_calibrator(run.lake.registry.folder(run.task, manifest["calibrator_id"]))
    found = scorer(run, manifest)
    run.register(SCORERS, found.id, found.json)
    return found


def of_settings(run: Run, manifest: dict[str, Any]) -> Rule:
    """The rule as plain JSON, see deciding.Rule. Raises UsageError where it cannot be had."""
    decide, labels = run.settings.decide, tuple(manifest["labels"])
    if run.label_set.independent and (decide.by != "threshold" or decide.sets != "mass"):
        raise UsageError(
            f"decide: expected by: threshold and sets: mass in a task of independent labels, found {decide.by} and "
            f"{decide.sets}"
        )
    rule: Rule = {"coverage": decide.coverage}
    if decide.by == "threshold":
        rule |= {"threshold": decide.threshold}
    elif decide.by == "precision":
        at_least = rules.for_precision(_judged(run, manifest), labels, decide.precision)
        if never := [label for label, least in at_least.items() if least > 1]:
            run.record.warn(
                f"decide.precision {decide.precision:g}: no threshold is known to reach it for {', '.join(never)}, which "
                "people decide; label more videos of the split calibrate, or ask for less"
            )
        rule |= {"by": "precision", "precision": decide.precision, "at_least": at_least}
    else:
        rule |= {"by": "cost", "review": decide.review, "costs": costs_of(run)}
    if decide.sets != "mass":
        up_to = rules.conformal(_judged(run, manifest), labels, decide.coverage, decide.sets, decide.per_label)
        if loose := [label for label, strange in up_to.items() if strange > 1]:
            run.record.warn(
                f"decide.coverage {decide.coverage:g}: too few videos to promise it for {', '.join(loose)}, which every "
                "prediction set holds; label more videos of the split calibrate, or ask for less"
            )
        rule |= {"sets": decide.sets, "up_to": up_to}
    return rule


def leaves_all_to_people(rule: Rule) -> bool:
    """Whether no label can be probable enough under a rule of precision."""
    at_least = rule.get("at_least") or {}
    return bool(at_least) and all(least > 1 for least in at_least.values())


def costs_of(run: Run) -> dict[str, dict[str, float]]:
    """What giving a label costs: right label -> label given -> cost. Raises UsageError for a label that is none."""
    given, labels = run.settings.decide.costs, run.labels
    if unknown := {*given, *(named for of in given.values() for named in of)} - set(labels):
        raise UsageError(f"decide.costs: expected labels of task {run.task}, found {', '.join(sorted(unknown))}")
    return {
        right: {named: given.get(right, {}).get(named, float(named != right)) for named in labels} for right in labels
    }


def _judged(run: Run, manifest: dict[str, Any]) -> Judged:
    found = judged_of(run, manifest)
    if found is None:
        raise UsageError(
            f"decide: by precision and conformal sets need what calibrator {manifest['calibrator_id']} said of videos that "
            "it had not seen, found nothing: label videos of several sources, `deepintuit calibrate`"
        )
    return found


def judged_of(run: Run, manifest: dict[str, Any]) -> Judged | None:
    """What a calibrator said of videos that it had not seen; None where nothing is known. Raises storage.Damaged."""
    data = run.lake.registry.held_out(run.task, manifest)
    if data is None:
        return None
    try:
        return Judged.unpacked(data)
    except (SafetensorError, TypeError) as error:
        raise storage.Damaged(
            f"held_out.safetensors of calibrator {manifest['calibrator_id']}: expected what it said of held-out videos, "
            f"found something else ({error}): `deepintuit calibrate` with the settings of that time writes it anew"
        ) from None
