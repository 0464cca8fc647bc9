"""What speaks against making a calibrator live: what it is worth by itself, and beside the one that is live."""

from __future__ import annotations

from typing import Any

import numpy as np

from jobs.runtime.errors import UsageError
from jobs.runtime.run import Run
from jobs.steps import rules
from lake.registry import RegistryError
from lake.storage import Damaged
from models.calibration import worth
from models.calibration.judged import Judged, common, differences

_FEW = 2  # sources, below which there is no interval


def doubt(run: Run, manifest: dict[str, Any]) -> str:
    """What speaks against a registered calibrator, "" for nothing. Raises UsageError for one of an earlier version."""
    if "worth" not in manifest:
        raise UsageError(
            f"calibrator {manifest['calibrator_id']} is of an earlier version, which noted nothing of how good it is: "
            "`deepintuit calibrate` makes one of today's"
        )
    known = manifest["worth"] and worth.parse(manifest["worth"])
    return worth.doubt(manifest["kind"], known) or _worse_than_live(run, manifest)


def _worse_than_live(run: Run, manifest: dict[str, Any]) -> str:
    """By how much it loses more than the live one on the videos that both were judged by; "" where it is not sure to."""
    try:
        live_id = run.lake.registry.live(run.task)["calibrator_id"]
        if live_id == manifest["calibrator_id"]:
            return ""
        live = run.lake.registry.calibrator(run.task, live_id)
        pair = _on_the_same(run, manifest, live, rules.judged_of(run, live))
    except RegistryError:  # nothing is live, or it is no more there
        return ""
    except Damaged as error:
        run.record.warn(f"nothing can be held against the live one: {error}")
        return ""
    if pair is None:
        run.record.warn(
            f"calibrator {manifest['calibrator_id']} cannot be held against the live one, {live_id}: they were judged by "
            "no videos of several sources in common, or by other labels; `deepintuit compare` holds their scores against "
            "each other"
        )
        return ""
    independent = manifest.get("mode") == "independent"
    labels = manifest["labels"]
    costs = None if independent else matrix(rules.costs_of(run), labels)
    found = differences(*pair, costs, run.settings.decide.review)
    told = ", ".join(f"{name} {value}" for name, value in found.items())
    run.record.results["minus_live"] = {name: value.json() for name, value in found.items()}
    run.record.say(
        f"minus the live one ({live_id}), on the {len(pair[0].video)} videos that both were judged by: {told}"
    )
    worse = [f"{name} {value}" for name, value in found.items() if value.low > 0]
    return f"worse than the live one, {live_id}: {', '.join(worse)} more" if worse else ""


def _on_the_same(
    run: Run, mine: dict[str, Any], other: dict[str, Any], theirs: Judged | None
) -> tuple[Judged, Judged] | None:
    """What two calibrators said of the videos that both were judged by; None where nothing can be compared."""
    own = rules.judged_of(run, mine)
    same = set(mine["labels"]) == set(other["labels"]) and mine.get("mode") == other.get("mode")
    if own is None or theirs is None or not same:
        return None
    pair = common(own, theirs.ordered(other["labels"], mine["labels"]))
    return pair if len(np.unique(pair[0].cluster)) >= _FEW else None


def matrix(costs: dict[str, dict[str, float]], labels: list[str]) -> np.ndarray:
    """Costs as numbers [L, L], of the right label by the one given."""
    return np.array([[costs[right][named] for named in labels] for right in labels])
