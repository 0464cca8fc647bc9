"""What each stage of training is worth on the embedded benchmark: make ablation

    python -m benchmarks.ablation [--missing | --fresh] [--quick] [--models NAME,...] [--folder build/ablation]

Prints the table of what is known. --missing computes what is not, or was made otherwise than now, and goes on where it
was stopped; --fresh forgets its folder and what was known first; --quick: the models behind rows 1, 2 and 4 to 6 alone,
one seed.

Every model begins with the same `base` and learns by the jobs `align` and `refine`: 600 clips with teacher traces, 2,400
with labels alone. Each is then asked K = 4 times about 600 clips on which temperatures and the light calibrator are
fitted, and about 1,008 test clips of forms and kinds that nothing was trained on. One model and seed is one file in
benchmarks/results/ablation, with the digest of what it was made by: settings and models, not code.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from benchmarks import ablation_table
from benchmarks.ablation_table import FIGURES, ONLY_TESTED
from conf.sections import CONF, Settings
from conf.settings import load
from jobs import demo_data
from jobs.runtime import cli
from jobs.steps import recipes
from models import identity
from models.calibration import crossfit
from models.calibration.crossfit import Examples
from models.calibration.features import FeatureSpec, vector
from models.engines.asking import Task
from models.engines.process import close_engine, open_engine
from models.engines.rollouts import Rollouts
from models.evaluation.figures import Predictions, figures
from models.evaluation.methods import Case, Methods, Score
from models.handwriting import clips
from models.handwriting.rule import LABELS, label_argued
from models.handwriting.train import BASE, READING, SIGHT, train_base
from models.training import journal
from udfs.training import JOURNAL

PROJECT = Path(__file__).resolve().parents[1]
DOCUMENT = PROJECT / "docs" / "ablation.md"  # holds what is printed, and what can be said of it
RESULTS = PROJECT / "benchmarks" / "results" / "ablation"
CLIPS = RESULTS / "clips" / "test.json"  # whose hand and of what kind each test clip is, in the order of results
ALIGN, REFINE, CALIBRATE, TEST, SEED, K = 600, 2400, 600, 1008, 7, 4
_FOLDS = 5


@dataclass(frozen=True)
class Model:
    """How a model comes about. start: another model, or base; taught: the length of the teacher's traces, or labels of the
    first 600 clips or of all 3,000; None where it is refined on labels instead; settings: changed ones; seeds: how many
    trainings."""

    start: str
    taught: Literal["short", "medium", "long", "labels", "all labels"] | None
    settings: tuple[str, ...] = ()
    seeds: int = 1


_LONGER = ("align.steps=420",)
MODELS = {
    "direct": Model("base", "labels", _LONGER, seeds=3),
    "direct-all": Model("base", "all labels", ("align.steps=1260",)),
    "cold": Model("base", "medium", seeds=3),
    "form": Model("base", "medium", ("align.steps=60",)),  # a few answers in a hundred can be read: RL can begin
    "rl-only": Model("form", None),
    "refined": Model("cold", None, seeds=3),
    "refined-softmax": Model("cold", None, ("refine.objective=softmax",)),
    "refined-grpo": Model("cold", None, ("refine.objective=grpo",)),
    "refined-plain": Model("cold", None, ("refine.credit=trace", "refine.rewards={accuracy: 1, format: 1}")),
    "cold-more": Model("base", "medium", _LONGER),
    "refined-more": Model("cold-more", None),
    "cold-short": Model("base", "short"),
    "cold-long": Model("base", "long"),
    "refined-short": Model("cold-short", None),
    "refined-long": Model("cold-long", None),
}
QUICK = ("direct", "cold", "refined")
COSTS = ("seconds", "rollouts")
_LAST = 50  # steps, over which figures of a training are averaged


class Bench:
    """The lake that models learn from, the models, and the clips that they are asked about."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.settings = self._settings(folder / "lake")

    def lake(self, all_taught: bool) -> Path:
        """Clips with labels of the splits align and refine, ingested once; all_taught: all of them are of align."""
        root, data = self.folder / ("lake-all" if all_taught else "lake"), self.folder / "data"
        done = root.with_name(f"{root.name}.done")
        if not done.exists():
            demo_data.align(data, ALIGN, SEED)
            demo_data.refine(data, REFINE, SEED)
            for split in ("align", "refine"):
                labels = data / split / "labels.csv"
                if all_taught:
                    labels = labels.with_name("labels-align.csv")
                    labels.write_text(_as_align((data / split / "labels.csv").read_text()))
                self._job("ingest", root, source=str(data / split), labels=str(labels))
            done.touch()
        return root

    @cached_property
    def base(self) -> Path:
        """A model that has learned to read, to see and to say what it sees."""
        out = self.folder / "base"
        if not (self.folder / "base.done").exists():
            kept = self.folder / "base-checkpoints"
            train_base(out, SEED, lambda *phase: lambda *figure: None, READING, SIGHT, BASE, kept)
            (self.folder / "base.done").touch()
        return out

    def about(self, name: str) -> str:
        """Names what decides how a model comes out: its own settings and data, and those of what it begins with."""
        if name == "base":
            return identity.digest([SEED, *map(asdict, (READING, SIGHT, BASE))])
        how = MODELS[name]
        chosen = self._settings(self.folder, *how.settings)
        section = chosen.align if how.taught else chosen.refine
        told = [how.taught, ALIGN, REFINE, SEED, section.model_dump(exclude={"micro_batch", "kv_cache_mb"})]
        return identity.digest([*told, self.about(how.start)])

    def model(self, name: str, seed: int) -> tuple[Path, dict[str, float]]:
        """The folder of a model, made where it is not there, and figures of its training: seconds of its steps and rollouts,
        those of what it begins with included; of a refinement the share of groups that told nothing in the last steps."""
        if name == "base":
            return self.base, dict.fromkeys(COSTS, 0.0)
        how, out, about = MODELS[name], self.folder / f"{name}-{seed}", self.about(name)
        start, before = self.model(how.start, seed)
        done = out / "made.txt"
        if not done.exists() or done.read_text() != about:
            if done.exists():
                shutil.rmtree(out)
            root, arguments = self.lake(how.taught == "all labels"), {"start": str(start), "out": out, "seed": seed}
            if how.taught is None:
                self._job("refine", root, *how.settings, **arguments)
            elif "labels" in how.taught:
                self._job("align", root, *how.settings, direct=True, **arguments)
            else:
                self._teach(root, how.taught)
                self._job("align", root, *how.settings, **arguments)
            done.write_text(about)
        figures = journal.read(out / JOURNAL)
        took = {cost: before[cost] + sum(v for figure, _, v in figures if figure == cost) for cost in COSTS}
        collapse = [value for figure, _, value in figures if figure == "collapse"][-_LAST:]
        return out / "model", took | ({"collapse": float(np.mean(collapse))} if collapse else {})

    def measured(self, name: str, seed: int) -> dict[str, Any]:
        """What is known of a model, by the traces that it writes of clips that it has never seen."""
        folder, took = self.model(name, seed)
        test, truth, _ = self.asked(folder, "test", TEST)
        fitting, fitting_truth, _ = self.asked(folder, "calibrate", CALIBRATE)
        close_engine()
        traces = [trace for own in test for trace in own]
        found = _predictions(fitting, fitting_truth, test, truth)
        _write(CLIPS, {"hand": [case.cluster for case in truth], "kind": [_kind(case) for case in truth]})
        return {
            "model": name,
            "seed": seed,
            "k": K,
            "about": self.about(name),
            "methods": {method: figures_of(made, truth) for method, made in found.items()},
            "right": {method: "".join(map(str, right_of(made, len(truth)))) for method, made in found.items()},
            "parsed": float(np.mean([trace["status"] == "ok" for trace in traces])),
            "observed": _observed(test, truth),
            "contradicts": _contradicting(traces),
            "alike": _alike(test, truth),
            "tokens": float(np.mean([trace["tokens"] for trace in traces])),
            **took,
        }

    def asked(
        self, folder: Path, split: str, count: int, k: int = K
    ) -> tuple[list[list[dict[str, Any]]], list[Case], list[str]]:
        """K traces of each clip of a split, what is true of it, and its file."""
        out = self.folder / "data" / f"asked-{split}"
        clips.generate(out, split, count, SEED, workers=2)
        with (out / "labels.csv").open(newline="") as file:
            rows = sorted(csv.DictReader(file), key=lambda row: row["file"])[:count]  # others may have asked for more
        settings = self.settings.model_copy(
            update={"model": self.settings.model.model_copy(update={"path": str(folder)})}
        )
        plan = recipes.plan(recipes.of_settings(settings), settings)
        paths = {hashlib.sha256((out / row["file"]).read_bytes()).hexdigest(): (out / row["file"], row) for row in rows}
        tasks = [Task(video_id, str(path), tuple(range(k)), 0) for video_id, (path, _) in paths.items()]
        traces: dict[str, list[dict[str, Any]]] = {video_id: [] for video_id in paths}
        for row in Rollouts(plan, open_engine(plan.engine)).rows(tasks):
            traces[row["video_id"]].append(row)
        cases = [
            Case(video_id, (row["label"],), row["hand"], (("kind", row["kind"]), ("digits", row["digits"])))
            for video_id, (_, row) in paths.items()
        ]
        ordered = [sorted(own, key=lambda row: row["rollout_index"]) for own in traces.values()]
        return ordered, cases, [str(path) for path, _ in paths.values()]

    def _teach(self, root: Path, length: str) -> None:
        """The oracle's traces of that length become the newest teacher's."""
        path = self.folder / "data" / f"teacher-{length}.csv"
        demo_data.write_teacher(self.folder / "data" / "align", path, length)
        self._job("teach", root, file=str(path), by=f"oracle-{length}")

    def _job(self, name: str, root: Path, *overrides: str, **arguments: Any) -> None:
        cli.perform(name, self._settings(root, *overrides), **arguments)

    def _settings(self, root: Path, *overrides: str) -> Settings:
        return load(str(CONF / "handwriting.yaml"), [f"lake.root={root}", *overrides])


def _predictions(
    fitting: list[list[dict]], fitting_truth: list[Case], test: list[list[dict]], truth: list[Case]
) -> dict[str, Predictions]:
    """What each way to read the traces says; temperatures and weights are fitted on other clips than these."""
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
        np.arange(len(cluster)),
    )
    fit = crossfit.linear(spec, load(str(CONF / "handwriting.yaml")).calibrate.l2)
    held_out = crossfit.cross_fit(examples, fit, LABELS)
    assert held_out is not None
    logits = fit(examples).logits(np.stack([vector(own, spec) for own in test])) / held_out.temperature
    probs = np.exp(logits - logits.max(1, keepdims=True))
    scores = [Score(dict(zip(LABELS, row / row.sum(), strict=True))) for row in probs]
    return {
        "single": made.predictions(singles[0], truth, singles[1]),
        "majority": made.predictions(made.of_vote_shares(test), truth),
        "vote": made.predictions(votes[0], truth, votes[1]),
        "linear": made.predictions(made.of_scores(scores), truth),
    }


def figures_of(found: Predictions, truth: list[Case]) -> dict[str, Any]:
    values = {name: float(value[0]) for name, value in figures(found, found.weight[None]).items() if name in FIGURES}
    weight, kinds = found.weight, np.array([_kind(case) for case in truth])[found.case]

    def share(own: np.ndarray) -> float:
        return float((found.right * weight)[own].sum() / weight[own].sum())

    by_kind = {str(kind): share(kinds == kind) for kind in np.unique(kinds)}
    return values | {"shifted": share(np.isin(kinds, ONLY_TESTED)), "by_kind": by_kind}


def _kind(case: Case) -> str:
    return dict(case.slices)["kind"]


def right_of(found: Predictions, cases: int) -> list[int]:
    """How many of a case's predictions are right."""
    return np.bincount(found.case, weights=found.right, minlength=cases).astype(int).tolist()


def _alike(traces: Sequence[Sequence[Mapping[str, Any]]], truth: Sequence[Case]) -> float:
    """The share of clips whose traces are all right or all wrong."""
    pairs = zip(traces, truth, strict=True)
    return float(np.mean([len({_right(trace, case) for trace in own}) == 1 for own, case in pairs]))


def _observed(traces: Sequence[Sequence[Mapping[str, Any]]], truth: Sequence[Case]) -> float | None:
    """Of traces with an observation, the share in which it is what the clip shows; None without such traces."""
    right = [
        trace["observation"].split() == dict(case.slices)["digits"].split()
        for own, case in zip(traces, truth, strict=True)
        for trace in own
        if trace["observation"]
    ]
    return float(np.mean(right)) if right else None


def _right(trace: Mapping[str, Any], case: Case) -> bool:
    return trace["status"] == "ok" and tuple(trace["labels"]) == case.truth


def _contradicting(traces: Sequence[Mapping[str, Any]]) -> float | None:
    """Of the traces with an answer, and an observation that argues for a label, the share in which the two differ; None
    without such traces."""
    pairs = [(label_argued(trace["observation"] or ""), trace["label"]) for trace in traces if trace["status"] == "ok"]
    telling = [seen != answered for seen, answered in pairs if seen is not None]
    return float(np.mean(telling)) if telling else None


def _as_align(labels: str) -> str:
    """A labels file with all its clips in the split align."""
    rows = list(csv.DictReader(labels.splitlines()))
    out = io.StringIO()
    writer = csv.DictWriter(out, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(row | {"split": "align"} for row in rows)
    return out.getvalue()


def _write(path: Path, found: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(".part")
    aside.write_text(json.dumps(found, indent=1) + "\n")
    aside.replace(path)


def known() -> list[dict[str, Any]]:
    """What was measured, one of every model and seed."""
    return [json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))]


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
    about = {name: bench.about(name) for name in MODELS}
    there = {(found["seed"], found["model"]) for found in known() if found["about"] == about.get(found["model"])}
    for seed, name in sorted(set(wanted) - there, key=lambda item: (item[0], names.index(item[1]))):
        if asked.missing or asked.fresh:
            print(f"== {name}, seed {seed}", file=sys.stderr, flush=True)
            _write(RESULTS / f"{name}-{seed}.json", bench.measured(name, seed))
    printed = ablation_table.text(known(), about, json.loads(CLIPS.read_text()) if CLIPS.exists() else {})
    if asked.missing or asked.fresh:
        DOCUMENT.write_text(ablation_table.inserted(DOCUMENT.read_text(), printed))
    print(printed)
    return 0


if __name__ == "__main__":
    sys.exit(main())
