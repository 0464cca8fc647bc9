"""What each kind of calibrator makes of a reasoning model's traces: make ablation

    python -m benchmarks.calibrators [--missing] [--only 'NAME;...'] [--folder build/ablation]

Prints the table of what is known; --missing computes what is not. The traces are those of models of `make ablation`
(seed 0): K = 8 of each of 4,800 clips of the split calibrate, of which 300 are for temperatures of what watches alone, and
of its 1,008 test clips. What watches the video (`vlm`, `both`) learns from four traces of each clip by the settings of
calibrate.vlm, as `calibrate` would, but for steps and learning rate (WATCHING); it begins as another model, or learns from
another one's traces, where its name says so. One row is one file in benchmarks/results/calibrators, with the digest of what
it was made by: settings and models, not code.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix, hstack

from benchmarks.ablation import CLIPS, PROJECT, TEST, Bench, figures_of, right_of
from jobs.steps import recipes
from models import identity
from models.calibration import crossfit
from models.calibration.both import BothSpec
from models.calibration.crossfit import Examples, Fit
from models.calibration.effort import EffortCalibrator, EffortSpec, Step
from models.calibration.features import FeatureSpec
from models.calibration.probabilities import fit_temperature, softmax
from models.calibration.text import TextSpec
from models.engines.asking import Task
from models.engines.process import close_engine, open_engine
from models.engines.reviews import ReviewPlan, Reviews
from models.evaluation import intervals
from models.evaluation.methods import Case, Methods, Score
from models.handwriting.rule import LABELS
from models.language.codes import choose
from models.language.review import BEFORE, DEFAULT_TEMPLATE, review_text, said

RESULTS = PROJECT / "benchmarks" / "results" / "calibrators"
DOCUMENT = PROJECT / "docs" / "calibrators.md"
LEARN, TEMPER, MOST, K = 4500, 300, 8, 4
STEPS = (2, 4, 8)
REWOUND = "rewound"  # the kind of clip that the reasoning model gets wrong in agreement with itself
# Chosen on 300 clips of calibrate and 300 of dev: over 2,100 clips 1,500 steps learn them by heart, 500 do not.
WATCHING = {"steps": 1300, "learning_rate": 3e-4}
_RULE, _FOLDS, _SEED = "models.handwriting.rule:label_argued", 5, 0
_FIGURES = ("accuracy", "macro_f1", "ece", "nll", "shifted")


@dataclass(frozen=True)
class Row:
    """kind: as of calibrate.kind, or single; writer: whose traces; begins: what a model that watches begins as; k: traces
    of a clip, those of a plan in all."""

    kind: str
    writer: str = "refined"
    begins: str = ""
    k: int = K


ROWS = {
    "single": Row("single"),
    "tempered vote": Row("vote"),
    "linear": Row("linear"),
    "text": Row("text"),
    "vlm, begins as the reasoning model": Row("vlm", begins="refined"),
    "vlm, begins as the aligned one": Row("vlm", begins="cold"),
    "vlm, begins as the base": Row("vlm", begins="base"),
    "both, begins as the reasoning model": Row("both", begins="refined"),
    "aligned model's traces: single": Row("single", "cold"),
    "aligned model's traces: linear": Row("linear", "cold"),
    "aligned model's traces: vlm, begins as the aligned one": Row("vlm", "cold", "cold"),
    "aligned model's traces: vlm, begins as the reasoning one": Row("vlm", "cold", "refined"),
    **{f"linear, K = {k}": Row("linear", k=k) for k in (1, 2, 8)},
    "adaptive, 2 then 4 then 8": Row("adaptive", k=8),
}
OWN = "vlm, begins as the reasoning model"
ALIEN = "aligned model's traces: vlm, begins as the reasoning one"
BOTH = "both, begins as the reasoning model"
DIFFERENCES = (
    (OWN, "single"),
    (OWN, "tempered vote"),
    (OWN, "linear"),
    (OWN, "text"),
    (OWN, "vlm, begins as the aligned one"),
    (OWN, "vlm, begins as the base"),
    (BOTH, "single"),
    (BOTH, "tempered vote"),
    (BOTH, "text"),
    (BOTH, OWN),
    (ALIEN, OWN),
    ("text", "linear"),
    ("adaptive, 2 then 4 then 8", "linear"),
)


@dataclass(frozen=True)
class Told:
    """Clips with their traces, by clip: what is true of them and where they lie."""

    traces: list[list[dict[str, Any]]]
    cases: list[Case]
    paths: list[str]

    def of(self, rows: slice, k: int) -> Told:
        return Told([own[:k] for own in self.traces[rows]], self.cases[rows], self.paths[rows])

    @property
    def targets(self) -> np.ndarray:
        return np.array([LABELS.index(case.truth[0]) for case in self.cases])


class Calibrators:
    """Makes rows, from the models in the ablation's folder."""

    def __init__(self, folder: Path) -> None:
        self.bench = Bench(folder)
        chosen = self.bench.settings.calibrate
        vlm = chosen.vlm.model_copy(update=WATCHING)
        self.settings = self.bench.settings.model_copy(update={"calibrate": chosen.model_copy(update={"vlm": vlm})})
        self.methods = Methods(LABELS, False)
        self._told: dict[tuple[str, str, int], Told] = {}

    @cached_property
    def codes(self) -> tuple[str, ...]:
        from transformers import AutoTokenizer  # decoders import this module, too, and need nothing so large

        return choose(AutoTokenizer.from_pretrained(self.bench.base, local_files_only=True), len(LABELS))

    @cached_property
    def text(self) -> str:
        return review_text(self.settings.labels.review or DEFAULT_TEMPLATE, self.settings.labels.labels, self.codes)

    def about(self, row: Row) -> str:
        """Names what decides how a row comes out."""
        chosen = self.settings.calibrate
        told = [row.kind, row.k, LEARN, TEMPER, MOST, chosen.l2, self.bench.about(row.writer)]
        if row.kind == "adaptive":
            told += [list(STEPS), self.settings.decide.coverage]
        if row.begins:
            told += [
                self.bench.about(row.begins),
                chosen.vlm.model_dump(exclude={"init", "micro_batch"}),
                self.text,
                BEFORE,
            ]
        return identity.digest(told)

    def told(self, writer: str, split: str, count: int) -> Told:
        """Traces of a model, asked once and kept."""
        if (writer, split, count) not in self._told:
            self._told[writer, split, count] = self._asked(writer, split, count)
        return self._told[writer, split, count]

    def _asked(self, writer: str, split: str, count: int) -> Told:
        path = self.bench.folder / "traces" / f"{writer}-{_SEED}-{split}-{count}-{MOST}.json"
        about = self.bench.about(writer)
        if not path.exists() or json.loads(path.read_text())["about"] != about:
            print(f"== traces of {writer}, {split}", file=sys.stderr, flush=True)
            folder, _ = self.bench.model(writer, _SEED)
            traces, cases, paths = self.bench.asked(folder, split, count, MOST)
            close_engine()
            path.parent.mkdir(exist_ok=True)
            kept = {"about": about, "traces": traces, "cases": [vars(case) for case in cases], "paths": paths}
            path.with_suffix(".part").write_text(json.dumps(kept))
            path.with_suffix(".part").replace(path)
        kept = json.loads(path.read_text())
        cases = [
            Case(of["video_id"], tuple(of["truth"]), of["cluster"], tuple(tuple(pair) for pair in of["slices"]))
            for of in kept["cases"]
        ]
        return Told(kept["traces"], cases, kept["paths"])

    def measured(self, name: str) -> dict[str, Any]:
        """What is known of a row, on test clips; temperatures and weights are of other clips."""
        row, began = ROWS[name], time.monotonic()
        given, test = self.told(row.writer, "calibrate", LEARN + TEMPER), self.told(row.writer, "test", TEST)
        test = test.of(slice(None), row.k)
        more: dict[str, Any] = {}
        if row.kind == "single":
            one = self.methods.of_traces(given.of(slice(None), row.k).traces)
            temperature = self.methods.temperature(one, given.cases)
            each = [
                self.methods.predictions(self.methods.of_traces(test.traces), test.cases, t) for t in (1.0, temperature)
            ]
        else:
            make = {"vlm": self._watching, "both": self._doing_both}.get(row.kind, self._reading)
            logits, temperature, more = make(row, given, test)
            each = [self._predictions(softmax(logits, t), test) for t in (1.0, temperature)]
        before, after = (figures_of(found, test.cases) for found in each)
        tokens = more.pop("tokens", None) or float(np.mean([sum(t["tokens"] for t in own) for own in test.traces]))
        return {
            "name": name,
            "about": self.about(row),
            "temperature": temperature,
            "before": {name: before[name] for name in _FIGURES},
            "after": {name: after[name] for name in _FIGURES},
            "right": "".join(map(str, right_of(each[1], len(test.cases)))),
            "k": row.k,
            "tokens": tokens / (row.k if row.kind == "single" else 1),
            "seconds": time.monotonic() - began,
            **more,
        }

    def _predictions(self, probs: np.ndarray, test: Told) -> Any:
        scores = [Score(dict(zip(LABELS, row, strict=True))) for row in probs]
        return self.methods.predictions(self.methods.of_scores(scores), test.cases)

    def _reading(self, row: Row, given: Told, test: Told) -> tuple[np.ndarray, float, dict[str, Any]]:
        """Logits of the test clips and the temperature of a kind that reads, and what it took."""
        given, l2 = given.of(slice(None), row.k), self.settings.calibrate.l2
        spec: FeatureSpec = FeatureSpec(LABELS, 0, False, _RULE)
        fits: dict[str, Callable[[], Fit]] = {
            "vote": lambda: crossfit.vote(FeatureSpec(LABELS, 0, False, _RULE), row.k),
            "linear": lambda: crossfit.linear(FeatureSpec(LABELS, 0, False, _RULE), l2),
        }
        if row.kind == "text":
            words = TextSpec(LABELS, 0, False, _RULE)
            spec, fits["text"] = words, lambda: crossfit.text(words)
        if row.kind == "adaptive":
            effort = EffortSpec(LABELS, 0, False, _RULE, tuple(Step("", k) for k in STEPS))
            spec, fits["adaptive"] = effort, lambda: crossfit.effort(effort, l2, self.settings.decide.coverage)
        fit = fits[row.kind]()
        examples = _examples(spec.matrix(_plain(given.traces)), given)
        held_out = crossfit.cross_fit(examples, fit, LABELS)
        assert held_out is not None
        made, asked = fit(examples), _plain(test.traces)
        more: dict[str, Any] = {}
        if isinstance(made, EffortCalibrator):
            taken = [made.taken(own) or own for own in asked]
            more["tokens"] = float(np.mean([sum(trace["tokens"] for trace in own) for own in taken]))
            more["rollouts"] = float(np.mean([len(own) for own in taken]))
        return made.logits(spec.matrix(asked)), held_out.temperature, more

    def _watching(self, row: Row, given: Told, test: Told) -> tuple[np.ndarray, float, dict[str, Any]]:
        """The same of a model that learned to review traces, where it is not made yet."""
        began = time.monotonic()
        tempering, logits = self._reviews(row, given, test)
        temperature = fit_temperature(tempering, given.targets[LEARN : LEARN + TEMPER])
        return logits, temperature, {"trained": time.monotonic() - began}

    def _doing_both(self, row: Row, given: Told, test: Told) -> tuple[np.ndarray, float, dict[str, Any]]:
        """The same of one that also reads what is reviewed: reading learns from what the reviewer has learned from."""
        began = time.monotonic()
        spec = BothSpec(LABELS, 0, False, _RULE)
        learning, tempering = given.of(slice(0, LEARN), K), given.of(slice(LEARN, LEARN + TEMPER), K)
        said = self._reviews(row, given, test)
        read = crossfit.text(spec.text)(_examples(spec.text.matrix(_plain(learning.traces)), learning))
        tempered, asked = (
            hstack([csr_matrix(own), spec.text.matrix(_plain(of.traces))]).tocsr()
            for own, of in zip(said, (tempering, test), strict=True)
        )
        made = crossfit.both(spec, read)(_examples(tempered, tempering))
        temperature = fit_temperature(made.logits(tempered), tempering.targets)
        return made.logits(asked), temperature, {"trained": time.monotonic() - began, "share": made.share}

    def _reviews(self, row: Row, given: Told, test: Told) -> tuple[np.ndarray, np.ndarray]:
        """Logarithms [N, L] of what the reviewer says of the clips for temperatures and of the test clips."""
        row = replace(row, kind="vlm")
        out, about = self.bench.folder / f"reviewer-{row.begins}-of-{row.writer}-{_SEED}", self.about(row)
        done = out / "made.txt"
        if not done.exists() or done.read_text() != about:
            self._train(row, given.of(slice(0, LEARN), K), out)
            done.write_text(about)
        found = [self._reviewed(out / "model", of) for of in (given.of(slice(LEARN, LEARN + TEMPER), K), test)]
        close_engine()
        return found[0], found[1]

    def _train(self, row: Row, given: Told, out: Path) -> None:
        from models.training.alignment import Example, align
        from models.training.trainer import TrainSpec

        start, _ = self.bench.model(row.begins, _SEED)
        chosen = self.settings.calibrate.vlm
        plan = self._plan(start)
        clips = [plan.decode(path, path, plan.frames, plan.limits) for path in given.paths]
        rows = [(at, trace) for at, own in enumerate(given.traces) for trace in own]

        def examples(step: int) -> list[Any]:
            epoch, place = divmod(step, -(-len(rows) // chosen.batch))
            order = np.random.default_rng((_SEED, epoch)).permutation(len(rows))
            due = [rows[at] for at in order[place * chosen.batch : (place + 1) * chosen.batch]]
            codes = [self.codes[given.targets[at]] for at, _ in due]
            return [
                Example(clips[at], self.text, code, said(trace), BEFORE)
                for (at, trace), code in zip(due, codes, strict=True)
            ]

        def told(name: str, step: int, value: float) -> None:
            if name == "loss" and step % 100 == 99:
                print(f"step {step + 1} of {chosen.steps}: loss {value:.3f}", file=sys.stderr, flush=True)

        spec = TrainSpec(chosen.steps, chosen.learning_rate, chosen.warmup, checkpoint_every=100)
        align(start, out / "model", examples, spec, chosen.micro_batch, out / "checkpoints", told, seed=_SEED)

    def _plan(self, folder: Path) -> ReviewPlan:
        chosen = self.settings.model.model_copy(update={"path": str(folder)})
        settings = self.settings.model_copy(update={"model": chosen})
        plan = recipes.plan(recipes.of_settings(settings), settings)
        return ReviewPlan(
            engine=plan.engine,
            frames=plan.frames,
            text=self.text,
            before=BEFORE,
            codes=dict(zip(LABELS, self.codes, strict=True)),
            decode=plan.decode,
            limits=plan.limits,
            decoding=plan.decoding,
        )

    def _reviewed(self, folder: Path, given: Told) -> np.ndarray:
        """Logarithm [N, L] of the mean over a clip's reviews."""
        plan = self._plan(folder)
        tasks = [
            Task(str(at), path, tuple(range(len(own))), 0, said={index: said(trace) for index, trace in enumerate(own)})
            for at, (path, own) in enumerate(zip(given.paths, given.traces, strict=True))
        ]
        probs: list[list[list[float]]] = [[] for _ in tasks]
        for row in Reviews(plan, open_engine(plan.engine)).rows(tasks):
            probs[int(row["video_id"])].append([float(np.exp(row["label_logprobs"][label])) for label in LABELS])
        return np.log(np.maximum([np.mean(own, axis=0) for own in probs], 1e-9))


def _plain(traces: list[list[dict[str, Any]]]) -> list[list[dict[str, Any]]]:
    return [[trace | {"recipe_id": ""} for trace in own] for own in traces]


def _examples(features: Any, told: Told) -> Examples:
    cluster = np.unique([case.cluster for case in told.cases], return_inverse=True)[1]
    return Examples(features, told.targets, cluster % _FOLDS, cluster, np.arange(len(cluster)))


def known() -> dict[str, dict[str, Any]]:
    """What was measured, by name."""
    found = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))]
    return {result["name"]: result for result in found}


def text(found: dict[str, dict[str, Any]], clips: dict[str, Sequence[str]]) -> str:
    """Both tables in Markdown. clips: hand and kind of each test clip."""
    hands = np.unique(clips["hand"], return_inverse=True)[1]
    rewound = np.array(clips["kind"]) == REWOUND

    def right(name: str) -> np.ndarray:
        own = found[name]
        return np.array(list(own["right"]), float) / (own["k"] if ROWS[name].kind == "single" else 1)

    heads = [
        "",
        "accuracy",
        "macro F1",
        "shifted kinds",
        "rewound clips",
        "nll",
        "ece",
        "ece before its temperature",
        "T",
        "tokens a clip",
    ]
    lines = []
    for name in ROWS:
        if (own := found.get(name)) is not None:
            after, before = own["after"], own["before"]
            cells = [after["accuracy"], after["macro_f1"], after["shifted"], right(name)[rewound].mean()]
            cells += [after["nll"], after["ece"], before["ece"]]
            lines.append(
                [name, *(f"{cell:.3f}" for cell in cells), f"{own['temperature']:.2f}", f"{own['tokens']:.0f}"]
            )
    told = []
    for one, other in [(one, other) for one, other in DIFFERENCES if one in found and other in found]:
        less = right(one) - right(other)
        parts = [intervals.mean(less[of], hands[of]) for of in (np.ones_like(rewound), rewound, ~rewound)]
        told.append([f"{one} less {other}", *(f"{of.value:+.3f} [{of.low:+.3f}, {of.high:+.3f}]" for of in parts)])
    missing = [name for name in ROWS if name not in found]
    return "\n\n".join(
        [_markdown(heads, lines), _markdown(["row less row", "accuracy", "of rewound clips", "of the others"], told)]
        + ([f"not known yet: {'; '.join(missing)}"] if missing else [])
    )


def _markdown(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (heads, ["---"] * len(heads), *lines))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=PROJECT / "build" / "ablation", help="models, clips and traces")
    parser.add_argument("--missing", action="store_true", help="compute what is not known")
    parser.add_argument("--only", default="", metavar="NAME;...", help="these rows alone")
    asked = parser.parse_args()
    names = asked.only.split(";") if asked.only else list(ROWS)
    if unknown := set(names) - set(ROWS):
        parser.error(f"--only: expected some of {'; '.join(ROWS)}, found {'; '.join(sorted(unknown))}")
    bench = Calibrators(asked.folder.resolve())
    there = {name: own for name, own in known().items() if name in ROWS and own["about"] == bench.about(ROWS[name])}
    for name in names if asked.missing else ():
        if name not in there:
            print(f"== {name}", file=sys.stderr, flush=True)
            there[name] = bench.measured(name)
            RESULTS.mkdir(parents=True, exist_ok=True)
            path = RESULTS / f"{''.join(c if c.isalnum() else '-' for c in name)}.json"
            path.write_text(json.dumps(there[name], indent=1) + "\n")
    printed = text(there, json.loads(CLIPS.read_text()))
    if asked.missing:
        from benchmarks.ablation_table import inserted

        DOCUMENT.write_text(inserted(DOCUMENT.read_text(), printed))
    print(printed)
    return 0


if __name__ == "__main__":
    sys.exit(main())
