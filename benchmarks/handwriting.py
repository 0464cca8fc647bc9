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
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from conf.settings import CONF, Settings, load
from jobs import demo_data
from jobs.runtime import cli
from jobs.steps import recipes
from models.evaluation.figures import BINS
from models.identity import digest

PROJECT = Path(__file__).resolve().parent.parent
RESULTS = PROJECT / "benchmarks" / "results" / "handwriting.json"
DOCUMENT = PROJECT / "docs" / "results.md"
CALIBRATE, TEST, SEED = 1020, 1008, 7  # whole turns of the kinds of clips
_DECIDE = ("handwriting", "calibration", "evaluation", "language")  # rooms of models/ whose code makes the figures
_SHOWN = ("accuracy", "macro_f1", "nll", "ece", "ece_debiased", "brier", "aurc", "auroc")
_WITH_ENDS = ("accuracy", "macro_f1", "nll")


def inputs(settings: Settings) -> dict[str, Any]:
    """All that decides the figures."""
    code = {name: _code(PROJECT / "models" / name) for name in _DECIDE}
    return {
        "recipe": recipes.of_settings(settings).json,
        "clips": {"calibrate": CALIBRATE, "test": TEST, "seed": SEED},
        "code": code,
        "calibrate": settings.calibrate.model_dump(),
        "evaluate": settings.evaluate.model_dump(),
        "rollouts": settings.rollout.n,
    }


def _code(folder: Path) -> str:
    """Digest of what the code of a folder does: comments and layout are no part of it."""
    parsed = {path.name: ast.dump(ast.parse(path.read_text())) for path in sorted(folder.glob("*.py"))}
    return digest(parsed)


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
    """All steps; what `evaluate` found, with the traces' quality and the seconds that each step took."""
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
    return {"found": judged, "calibrate": trained["results"], "quality": quality(settings), "seconds": seconds}


def quality(settings: Settings) -> dict[str, float]:
    """Of the sampled traces of the test clips: shares, and means where they are known."""
    from deltalake import DeltaTable

    rows = (
        DeltaTable(str(Path(settings.lake.root) / "tables" / "trace_quality"))
        .to_pyarrow_dataset()
        .to_table()
        .to_pandas()
    )
    names = ("follows", "consistent", "observed", "repetition", "surprise", "doubt", "dissent", "tokens")
    return {name: float(rows[name].dropna().astype(float).mean()) for name in names}


def tables(kept: Mapping[str, Any]) -> str:
    """The document: what was found, in Markdown."""
    found, counts = kept["found"]["results"], kept["found"]["counts"]
    first, sliced = next(iter(found["methods"])), list(next(iter(found["slices"].values()))["methods"])
    heads = [name.replace("ece_debiased", "ece less chance") for name in _SHOWN]
    rows = [
        [method, *(_cell(name, figures.get(name)) for name in _SHOWN)] for method, figures in found["methods"].items()
    ]
    paired = [
        [method, *(_cell(name, figures[name]) for name in _WITH_ENDS)]
        for method, figures in found["differences"].items()
    ]
    parts = [
        [
            part.partition("=")[2],
            str(of["videos"]),
            *(_cell("accuracy", of["methods"][name]["accuracy"]) for name in sliced),
        ]
        for part, of in found["slices"].items()
    ]
    fitted = ", ".join(f"{name} {value:.2f}" for name, value in found["temperatures"].items())
    traces = ", ".join(f"{name} {value:.3f}" for name, value in kept["quality"].items())
    return "\n\n".join(
        [
            _table(["method", *heads], rows),
            f"{first} minus each other method, paired:",
            _table(["method", *_WITH_ENDS], paired),
            "Accuracy by kind of clip:",
            _table(["kind", "clips", *sliced], parts),
            f"{counts['videos']:,} test clips of {counts['sources']} hands. Temperatures, fitted on the split calibrate: "
            f"{fitted}. Of the sampled traces, means (table trace_quality): {traces}.",
        ]
    )


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

How to read them. Test clips are of hands that nothing was trained, tuned or calibrated on; two kinds of clips (occluded,
written) are met in the test alone. Between brackets: 95 % intervals by a bootstrap over hands. All rows are of the same
clips; a rollout without a usable answer counts as wrong. Compare the probabilities of calibrators (vote, linear) with
tempered rows. ece has {BINS} bins of equally many clips; "less chance" is without what a perfectly calibrated method with
the same confidences would show on so many clips. nll, ece, brier and aurc: smaller is better. `vote` is the tempered
majority as the lake serves it; its ties go by slug, those of `majority` to the label that is more probable on average.

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
