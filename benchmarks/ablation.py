"""What each stage of training is worth on the embedded benchmark: make ablation

    python -m benchmarks.ablation [--missing | --fresh] [--quick] [--models NAME,...] [--folder build/ablation]

Prints the table of what is known. --missing computes what is not, and goes on where it was stopped; --fresh forgets its
folder and what was known first; --quick: the models behind rows 1, 2 and 4 to 6 alone, one seed.

Every model begins with the same `base` and learns by the jobs `align` and `refine` on one lake: 600 clips with teacher
traces, 2,400 with labels alone. Each is then asked K = 4 times about 600 clips on which temperatures and the light
calibrator are fitted, and about 1,008 test clips of forms and kinds that nothing was trained on. One model and seed is one
file in benchmarks/results/ablation.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from conf.sections import CONF
from conf.settings import load
from jobs import demo_data
from jobs.runtime import cli
from jobs.steps import recipes
from models.calibration import crossfit
from models.calibration.crossfit import Examples
from models.calibration.features import FeatureSpec, vector
from models.engines.process import close_engine, open_engine
from models.engines.rollouts import Rollouts, Task
from models.evaluation.figures import Predictions, figures
from models.evaluation.methods import Case, Methods, Score
from models.handwriting import clips
from models.handwriting.rule import LABELS, label_argued
from models.handwriting.train import BASE, READING, SIGHT, train_base
from models.training import journal
from udfs.training import JOURNAL

PROJECT = Path(__file__).resolve().parents[1]
RESULTS = PROJECT / "benchmarks" / "results" / "ablation"
ALIGN, REFINE, CALIBRATE, TEST, SEED, K = 600, 2400, 600, 1008, 7, 4
ONLY_TESTED = ("occluded", "written")  # kinds of clips
_FOLDS = 5


@dataclass(frozen=True)
class Model:
    """How a model comes about. start: another model, or base; taught: "label", or the length of the teacher's traces, None
    where it is refined instead, by `objective`. seeds: how many trainings."""

    start: str
    taught: str | None = None
    objective: str | None = None
    seeds: int = 1


MODELS = {
    "direct": Model("base", "label", seeds=3),
    "cold": Model("base", "medium", seeds=3),
    "rl-only": Model("base", objective="clipped"),
    "refined": Model("cold", objective="clipped", seeds=3),
    "refined-softmax": Model("cold", objective="softmax"),
    "refined-grpo": Model("cold", objective="grpo"),
    "cold-short": Model("base", "short"),
    "cold-long": Model("base", "long"),
    "refined-short": Model("cold-short", objective="clipped"),
    "refined-long": Model("cold-long", objective="clipped"),
}
QUICK = ("direct", "cold", "refined")
# What is printed: name of the row, model, method.
ROWS = (
    ("1 direct: the label alone", "direct", "single"),
    ("2 cold start", "cold", "single"),
    ("3 RL only", "rl-only", "single"),
    ("4 cold start + RL, single", "refined", "single"),
    ("5 + majority of 4", "refined", "majority"),
    ("6 + tempered vote", "refined", "vote"),
    ("7 + light calibrator", "refined", "linear"),
    ("2b cold start + majority of 4", "cold", "majority"),
    ("2c cold start + light calibrator", "cold", "linear"),
    ("8 short traces, cold start", "cold-short", "single"),
    ("8 short traces + RL", "refined-short", "single"),
    ("8 long traces, cold start", "cold-long", "single"),
    ("8 long traces + RL", "refined-long", "single"),
    ("9 RL by softmax", "refined-softmax", "single"),
    ("9 RL by grpo", "refined-grpo", "single"),
)
_FIGURES = ("accuracy", "macro_f1", *(f"f1/{label}" for label in LABELS), "ece", "nll")


class Bench:
    """The lake that models learn from, the models, and the clips that they are asked about."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._data = folder, folder / "data"
        self.settings = load(str(CONF / "handwriting.yaml"), [f"lake.root={folder / 'lake'}"])

    @cached_property
    def lake(self) -> Path:
        """Clips with labels of the splits align and refine, ingested once."""
        done = self.folder / "lake.done"
        if not done.exists():
            demo_data.align(self._data, ALIGN, SEED)
            demo_data.refine(self._data, REFINE, SEED)
            for split in ("align", "refine"):
                source = self._data / split
                self._job("ingest", source=str(source), labels=str(source / "labels.csv"))
            done.touch()
        return self.folder / "lake"

    @cached_property
    def base(self) -> Path:
        """A model that has learned to read, to see and to say what it sees."""
        out = self.folder / "base"
        if not (self.folder / "base.done").exists():
            kept = self.folder / "base-checkpoints"
            train_base(out, SEED, lambda *phase: lambda *figure: None, READING, SIGHT, BASE, kept)
            (self.folder / "base.done").touch()
        return out

    def model(self, name: str, seed: int) -> tuple[Path, dict[str, float]]:
        """The folder of a model, made where it is not there, and what making it took: seconds of its steps,
        rollouts."""
        if name == "base":
            return self.base, {"seconds": 0.0, "rollouts": 0.0}
        how, out = MODELS[name], self.folder / f"{name}-{seed}"
        start, before = self.model(how.start, seed)
        took = out / "took.json"
        if not took.exists():
            _ = self.lake
            if how.objective:
                self._job("refine", f"refine.objective={how.objective}", start=str(start), out=out, seed=seed)
            elif how.taught == "label":
                self._job("align", direct=True, start=str(start), out=out, seed=seed)
            else:
                self._teach(str(how.taught))
                self._job("align", start=str(start), out=out, seed=seed)
            figures = journal.read(out / JOURNAL)
            sums = {name: sum(value for figure, _, value in figures if figure == name) for name in before}
            took.write_text(json.dumps(sums))
        mine = json.loads(took.read_text())
        return out / "model", {figure: before[figure] + mine[figure] for figure in mine}

    def measured(self, name: str, seed: int) -> dict[str, Any]:
        """What is known of a model, by the traces that it writes of clips that it has never seen."""
        folder, took = self.model(name, seed)
        test, truth = self._asked(folder, "test", TEST)
        fitting, fitting_truth = self._asked(folder, "calibrate", CALIBRATE)
        close_engine()
        alike = [len({_right(trace, case) for trace in own}) == 1 for own, case in zip(test, truth, strict=True)]
        traces = [trace for own in test for trace in own]
        return {
            "model": name,
            "seed": seed,
            "methods": _methods(fitting, fitting_truth, test, truth),
            "parsed": float(np.mean([trace["status"] == "ok" for trace in traces])),
            "contradicts": _contradicting(traces),
            "alike": float(np.mean(alike)),
            "tokens": float(np.mean([trace["tokens"] for trace in traces])),
            **took,
        }

    def _asked(self, folder: Path, split: str, count: int) -> tuple[list[list[dict[str, Any]]], list[Case]]:
        """K traces of each clip of a split, and what is true of it."""
        out = self._data / f"asked-{split}"
        clips.generate(out, split, count, SEED, workers=2)
        with (out / "labels.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        settings = self.settings.model_copy(
            update={"model": self.settings.model.model_copy(update={"path": str(folder)})}
        )
        plan = recipes.plan(recipes.of_settings(settings), settings)
        paths = {hashlib.sha256((out / row["file"]).read_bytes()).hexdigest(): (out / row["file"], row) for row in rows}
        tasks = [Task(video_id, str(path), tuple(range(K)), 0) for video_id, (path, _) in paths.items()]
        traces: dict[str, list[dict[str, Any]]] = {video_id: [] for video_id in paths}
        for row in Rollouts(plan, open_engine(plan.engine)).rows(tasks):
            traces[row["video_id"]].append(row)
        cases = [
            Case(video_id, (row["label"],), row["hand"], (("kind", row["kind"]),))
            for video_id, (_, row) in paths.items()
        ]
        return [sorted(own, key=lambda row: row["rollout_index"]) for own in traces.values()], cases

    def _teach(self, length: str) -> None:
        """The oracle's traces of that length become the newest teacher's."""
        path = self._data / f"teacher-{length}.csv"
        demo_data.write_teacher(self._data / "align", path, length)
        self._job("teach", file=str(path), by=f"oracle-{length}")

    def _job(self, name: str, *overrides: str, **arguments: Any) -> None:
        settings = load(str(CONF / "handwriting.yaml"), [f"lake.root={self.folder / 'lake'}", *overrides])
        cli.perform(name, settings, **arguments)


def _methods(
    fitting: list[list[dict]], fitting_truth: list[Case], test: list[list[dict]], truth: list[Case]
) -> dict[str, Any]:
    """Figures of each way to read the traces; temperatures and weights are fitted on other clips than these."""
    made = Methods(LABELS, False)
    singles = made.of_traces(test), made.temperature(made.of_traces(fitting), fitting_truth)
    votes = made.of_votes(test), made.temperature(made.of_votes(fitting), fitting_truth)
    spec = FeatureSpec(LABELS, 0, False, "models.handwriting.rule:label_argued")
    cluster = np.unique([case.cluster for case in fitting_truth], return_inverse=True)[1]
    examples = Examples(
        np.stack([vector(own, spec) for own in fitting]),
        np.array([LABELS.index(case.truth[0]) for case in fitting_truth]),
        cluster % _FOLDS,
        cluster,
    )
    fit = crossfit.linear(spec, load(str(CONF / "handwriting.yaml")).calibrate.l2)
    held_out = crossfit.cross_fit(examples, fit, LABELS)
    assert held_out is not None
    logits = fit(examples).logits(np.stack([vector(own, spec) for own in test])) / held_out.temperature
    probs = np.exp(logits - logits.max(1, keepdims=True))
    scores = [Score(dict(zip(LABELS, row / row.sum(), strict=True))) for row in probs]
    predictions = {
        "single": made.predictions(singles[0], truth, singles[1]),
        "majority": made.predictions(made.of_vote_shares(test), truth),
        "vote": made.predictions(votes[0], truth, votes[1]),
        "linear": made.predictions(made.of_scores(scores), truth),
    }
    return {name: _figures(found, truth) for name, found in predictions.items()}


def _figures(found: Predictions, truth: list[Case]) -> dict[str, Any]:
    values = {name: float(value[0]) for name, value in figures(found, found.weight[None]).items() if name in _FIGURES}
    kinds = {
        kind: np.array([dict(case.slices)["kind"] == kind for case in truth])[found.case] for kind in _kinds(truth)
    }
    weight = found.weight
    by_kind = {kind: float((found.right * weight)[own].sum() / weight[own].sum()) for kind, own in kinds.items()}
    shifted = np.any([kinds[kind] for kind in ONLY_TESTED], axis=0)
    values["shifted"] = float((found.right * weight)[shifted].sum() / weight[shifted].sum())
    return values | {"by_kind": by_kind}


def _kinds(truth: Sequence[Case]) -> list[str]:
    return sorted({dict(case.slices)["kind"] for case in truth})


def _right(trace: Mapping[str, Any], case: Case) -> bool:
    return trace["status"] == "ok" and tuple(trace["labels"]) == case.truth


def _contradicting(traces: Sequence[Mapping[str, Any]]) -> float | None:
    """Of the traces with an answer, and an observation that argues for a label, the share in which the two differ; None
    without such traces."""
    pairs = [(label_argued(trace["observation"] or ""), trace["label"]) for trace in traces if trace["status"] == "ok"]
    telling = [seen != answered for seen, answered in pairs if seen is not None]
    return float(np.mean(telling)) if telling else None


def known() -> dict[str, list[dict[str, Any]]]:
    """What was measured, by model."""
    found: dict[str, list[dict[str, Any]]] = {}
    for path in sorted(RESULTS.glob("*.json")):
        kept = json.loads(path.read_text())
        found.setdefault(kept["model"], []).append(kept)
    return found


def table(found: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """The rows whose models are known, in Markdown: means over seeds, with the deviation where there are several."""
    heads = [
        "",
        "seeds",
        *_FIGURES,
        "shifted kinds",
        "parsed",
        "contradicts",
        "collapse",
        "tokens",
        "rollouts",
        "seconds",
    ]
    rows = [heads, ["---"] * len(heads)]
    for name, model, method in ROWS:
        own = found.get(model, ())
        if own:
            cells = [_cell([kept["methods"][method][figure] for kept in own]) for figure in (*_FIGURES, "shifted")]
            cells += [_cell([kept[figure] for kept in own]) for figure in ("parsed", "contradicts", "alike")]
            cells += [f"{np.mean([kept[figure] for kept in own]):,.0f}" for figure in ("tokens", "rollouts", "seconds")]
            rows.append([name, str(len(own)), *cells])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)


def _cell(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return ""
    spread = f" ± {np.std(known, ddof=1):.3f}" if len(known) > 1 else ""
    return f"{np.mean(known):.3f}{spread}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=PROJECT / "build" / "ablation", help="lake, clips and models")
    compute = parser.add_mutually_exclusive_group()
    compute.add_argument("--missing", action="store_true", help="compute what is not known")
    compute.add_argument("--fresh", action="store_true", help="compute all of it, what is known, too")
    parser.add_argument("--quick", action="store_true", help=f"{', '.join(QUICK)} alone, one seed")
    parser.add_argument("--models", default="", metavar="NAME,...", help="these alone")
    asked = parser.parse_args()
    names = asked.models.split(",") if asked.models else list(QUICK if asked.quick else MODELS)
    if unknown := set(names) - set(MODELS):
        parser.error(f"--models: expected some of {', '.join(MODELS)}, found {', '.join(sorted(unknown))}")
    wanted = [(seed, name) for name in names for seed in range(1 if asked.quick else MODELS[name].seeds)]
    if asked.fresh:
        shutil.rmtree(asked.folder, ignore_errors=True)
        for seed, name in wanted:
            (RESULTS / f"{name}-{seed}.json").unlink(missing_ok=True)
    bench = Bench(asked.folder.resolve())
    for seed, name in sorted(wanted, key=lambda item: item[0]) if asked.missing or asked.fresh else ():
        path = RESULTS / f"{name}-{seed}.json"
        if not path.exists():
            print(f"== {name}, seed {seed}", file=sys.stderr, flush=True)
            RESULTS.mkdir(parents=True, exist_ok=True)
            aside = path.with_suffix(".part")
            aside.write_text(json.dumps(bench.measured(name, seed), indent=1) + "\n")
            aside.replace(path)
    print(table(known()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
