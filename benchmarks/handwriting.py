"""How good the embedded model, its votes and its calibrators are on the embedded benchmark: make bench

    python -m benchmarks.handwriting [--folder build/bench] [--fresh]

Plays the jobs on 1,020 clips to calibrate on and 1,008 to test on, and prints what `evaluate --diagnostics` finds. Goes on
where it was stopped. What comes out is kept in benchmarks/results/handwriting.json under the digest of what goes in (model,
clips, settings); while that is the same, the table is printed at once, unless --fresh. Writes docs/results.md.
"""

from __future__ import annotations

import argparse
import ast
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from conf.sections import CONF, Settings
from conf.settings import load
from jobs import demo_data
from jobs.runtime import cli
from jobs.steps import recipes
from models.evaluation.figures import BINS
from models.identity import digest

PROJECT = Path(__file__).resolve().parent.parent
RESULTS = PROJECT / "benchmarks" / "results" / "handwriting.json"
DOCUMENT = PROJECT / "docs" / "results.md"
CALIBRATE, TEST, SEED = 1020, 1008, 7  # whole turns of the kinds of clips
# Files whose code decides the figures, beside the model and the settings.
_DECIDE = (
    *(f"models/handwriting/{name}.py" for name in ("clips", "digits", "kinds", "rule", "scenes")),
    "models/calibration/*.py",
    "models/evaluation/*.py",
    "models/language/*.py",
    "models/video/*.py",
    "jobs/calibrate.py",
    "jobs/evaluate.py",
    "jobs/steps/comparison.py",
    "jobs/steps/deciding.py",
    "jobs/steps/facets.py",
    "jobs/steps/label_files.py",
    "jobs/steps/labelled.py",
    "jobs/steps/scoring.py",
    "jobs/steps/trace_quality.py",
    "udfs/calibrator.py",
    "udfs/trace_quality.py",
)
_SHOWN = ("accuracy", "macro_f1", "nll", "ece", "ece_debiased", "brier", "aurc", "auroc")
_WITH_ENDS = ("accuracy", "macro_f1", "nll")


def inputs(settings: Settings) -> dict[str, Any]:
    """What decides the figures: settings, recipe and model, clips, and the code that makes and measures them. Engines and
    the lake are taken to do what their tests say; `--fresh` measures whatever is known."""
    return {
        "recipe": recipes.of_settings(settings).json,
        "clips": {"calibrate": CALIBRATE, "test": TEST, "seed": SEED},
        "code": {pattern: _code(sorted(PROJECT.glob(pattern))) for pattern in _DECIDE},
        "calibrate": settings.calibrate.model_dump(mode="json"),
        "evaluate": settings.evaluate.model_dump(mode="json"),
        "rollouts": settings.rollout.n,
    }


def _code(files: Sequence[Path]) -> str:
    """Digest of what the code of some files does: comments, docstrings and layout are no part of it."""
    return digest({path.name: _stripped(ast.parse(path.read_text())) for path in files})


def _stripped(tree: ast.Module) -> str:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node, clean=False):
            node.body = node.body[1:]
    return ast.dump(tree)


class Steps:
    """Jobs one after another, each done once."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        self._settings, self._file = settings, folder / "steps.json"
        self.done: dict[str, Any] = json.loads(self._file.read_text()) if self._file.exists() else {}

    def job(self, step: str, name: str, **arguments: Any) -> dict[str, Any]:
        """What the job said of itself, now or the last time. One that was stopped goes on: jobs do what is missing."""
        if step not in self.done:
            print(f"== {step}", file=sys.stderr, flush=True)
            began = time.monotonic()
            record = cli.perform(name, self._settings, **arguments).record
            self._note(step, {"counts": record.counts, "results": record.results}, began)
        return self.done[step]

    def data(self, step: str, make: Any, out: Path, count: int) -> None:
        if step not in self.done:
            print(f"== {step}", file=sys.stderr, flush=True)
            began = time.monotonic()
            make(out, count, SEED)
            self._note(step, {}, began)

    def _note(self, step: str, found: dict[str, Any], began: float) -> None:
        self.done[step] = found | {"seconds": round(time.monotonic() - began, 1)}
        aside = self._file.with_suffix(".tmp")
        aside.write_text(json.dumps(self.done))
        aside.replace(self._file)


def play(folder: Path, settings: Settings) -> dict[str, Any]:
    """All steps; what `evaluate` found, and the seconds that each step took."""
    folder.mkdir(parents=True, exist_ok=True)
    data, steps = folder / "data", Steps(folder, settings)
    steps.data("clips to calibrate on", demo_data.history, data, CALIBRATE)
    steps.data("clips to test on", demo_data.uploads, data, TEST)
    steps.job("history", "ingest", source=str(data / "history"), labels=str(data / "history" / "labels.csv"))
    steps.job("rollouts", "rollout", split="calibrate")
    trained = steps.job("calibrate", "calibrate")
    steps.job("promote", "promote")  # the best one, as far as `calibrate` knows
    steps.job("uploads", "ingest", source=str(data / "uploads"), labels=str(data / "uploads-labels.csv"))
    candidates = [of["calibrator_id"] for of in trained["results"].values()]
    judged = steps.job("evaluate", "evaluate", diagnostics=True, calibrator=candidates)
    seconds = {step: of["seconds"] for step, of in steps.done.items()}
    return {"found": judged, "calibrate": trained["results"], "seconds": seconds}


def tables(kept: Mapping[str, Any]) -> str:
    """The document: what was found, in Markdown."""
    found, counts = kept["found"]["results"], kept["found"]["counts"]
    first, sliced = next(iter(found["methods"])), list(next(iter(found["slices"].values()))["methods"])
    decide = {name: of for name, of in found["methods"].items() if name == first or name in found["differences"]}
    heads = [{"ece_debiased": "debiased"}.get(name, name) for name in _SHOWN]
    heads.insert(heads.index("ece") + 1, "ece by chance")
    rows = []
    for method, figures in decide.items():
        cells = [_cell(name, figures.get(name)) for name in _SHOWN]
        cells.insert(_SHOWN.index("ece") + 1, f"{found['chance_ece'][method]['p95']:.3f}")
        rows.append([method, *cells])
    bare = [
        [method, _cell("accuracy", figures["accuracy"]), _cell("answered", figures["answered"])]
        for method, figures in found["methods"].items()
        if method not in decide
    ]
    paired = [
        [method, *(_cell(name, figures[name]) for name in _WITH_ENDS)]
        for method, figures in found["differences"].items()
    ]
    parts: dict[str, list[list[str]]] = {}
    for part, of in found["slices"].items():
        facet, _, value = part.partition("=")
        cells = [_cell("accuracy", of["methods"][name]["accuracy"]) for name in sliced]
        parts.setdefault(facet, []).append([value, str(of["videos"]), *cells])
    fitted = ", ".join(f"{name} {value:.2f}" for name, value in found["temperatures"].items())
    traces = ", ".join(f"{name} {value:.3f}" for name, value in found["trace_quality"].items())
    said = [
        _table(["method", *heads], rows),
        f"{first} minus each other method, paired:",
        _table(["method", *_WITH_ENDS], paired),
        "What the model sees, and what it needs to see:",
        _table(["traces", "accuracy", "answered"], bare),
    ]
    for facet, by_value in parts.items():
        said += [f"Accuracy by {facet}:", _table([facet, "clips", *sliced], by_value)]
    said.append(
        f"{counts['videos']:,} test clips of {counts['clusters']} hands. Temperatures, fitted on the split calibrate: "
        f"{fitted}. Of the sampled traces, means (table trace_quality): {traces}."
    )
    return "\n\n".join(said)


def _table(heads: list[str], rows: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (heads, ["---"] * len(heads), *rows))


def _cell(name: str, figure: Mapping[str, float | None] | None) -> str:
    if figure is None or figure["value"] is None:
        return ""
    ends = name in _WITH_ENDS and figure["low"] is not None
    return f"{figure['value']:.3f}" + (f" [{figure['low']:.3f}, {figure['high']:.3f}]" if ends else "")


def document(kept: Mapping[str, Any]) -> str:
    minutes = sum(kept["seconds"].values()) / 60
    return f"""# What the embedded benchmark shows

    make bench

prints this page's tables, from `benchmarks/results/handwriting.json` while nothing that decides them has changed, and
measures anew otherwise ({minutes:.0f} minutes on the machine of that file). Digest of what went in: `{kept["digest"]}`.

How to read them. Test clips are of three forms, sheets that one person each filled in, on which nothing was trained,
tuned or calibrated; two kinds of clips (occluded, written) are met in the test alone. Between brackets: 95 % intervals by
a bootstrap over hands, which are parts of forms: how far figures would move with other clips of these forms. They do not
cover other people (three say little of that: see the accuracy by form), another training of the model, or other rollouts.
All rows are of the same clips; a rollout without a usable answer counts as wrong; of equally probable labels the first by
name is the answer, as in decisions. Compare the probabilities of calibrators (vote, linear) with tempered rows: a raw
vote share of 0 is taken as 1e-12. ece has {BINS} bins of equally many clips, fewer where confidences tie, and no
interval: noise only adds to it; "ece by chance" is what a perfectly calibrated method with the same confidences stays
below in 95 of 100 draws; "debiased" is the root of the squared error less what chance adds. nll, ece, brier and aurc:
smaller is better. greedy asks the model once for a clip, single looks at one of K samples, all others look at K.

{tables(kept)}
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=PROJECT / "build" / "bench", help="lakes and clips")
    parser.add_argument("--fresh", action="store_true", help="measure, whatever is known")
    asked = parser.parse_args()
    conf = str(CONF / "handwriting.yaml")
    named = digest(inputs(load(conf)))
    kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    if asked.fresh or kept.get("digest") != named:
        folder = asked.folder / named
        settings = load(conf, [f"lake.root={folder / 'lake'}"])
        kept = {"digest": named, "inputs": inputs(settings)} | play(folder, settings)
        RESULTS.write_text(json.dumps(kept, indent=1) + "\n")
    DOCUMENT.write_text(document(kept))
    print(tables(kept))
    return 0


if __name__ == "__main__":
    sys.exit(main())
