"""What the ablation prints: a row for each model and way to read its traces, and what can be said of their differences."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from models.evaluation import intervals
from models.handwriting.rule import LABELS

FIGURES = ("accuracy", "macro_f1", *(f"f1/{label}" for label in LABELS), "ece", "nll")
ONLY_TESTED = ("occluded", "written")  # kinds of clips that nothing was trained on: the shift
# Name of the row, model, method.
ROWS = (
    ("1 direct: the label alone", "direct", "single"),
    ("1b direct, with the labels that RL has", "direct-all", "single"),
    ("2 cold start", "cold", "single"),
    ("3 RL alone, after 60 steps that teach the form", "rl-only", "single"),
    ("3a these 60 steps", "form", "single"),
    ("4 cold start + RL", "refined", "single"),
    ("5 + majority of 4", "refined", "majority"),
    ("6 + tempered vote", "refined", "vote"),
    ("7 + light calibrator", "refined", "linear"),
    ("1c direct + light calibrator", "direct", "linear"),
    ("2b cold start + majority of 4", "cold", "majority"),
    ("2c cold start + light calibrator", "cold", "linear"),
    ("2d longer cold start", "cold-more", "single"),
    ("4d longer cold start + RL", "refined-more", "single"),
    ("8 short traces, cold start", "cold-short", "single"),
    ("8 short traces + RL", "refined-short", "single"),
    ("8 long traces, cold start", "cold-long", "single"),
    ("8 long traces + RL", "refined-long", "single"),
    ("9 RL by softmax", "refined-softmax", "single"),
    ("9 RL by grpo", "refined-grpo", "single"),
    ("9 RL by clipped, accuracy and format alone, on whole traces", "refined-plain", "single"),
)
# What is said, of which kinds of clips (all, or the shift), of which row less which other: model and method.
DIFFERENCES = (
    ("4 less 2: RL", False, ("refined", "single"), ("cold", "single")),
    ("4 less 3: the cold start", False, ("refined", "single"), ("rl-only", "single")),
    ("4 less 1: reasoning and RL", False, ("refined", "single"), ("direct", "single")),
    ("4 less 1, kinds that only the test has", True, ("refined", "single"), ("direct", "single")),
    ("4 less 1b", False, ("refined", "single"), ("direct-all", "single")),
    ("4 less 1b, kinds that only the test has", True, ("refined", "single"), ("direct-all", "single")),
    ("4d less 2d: RL after a longer cold start", False, ("refined-more", "single"), ("cold-more", "single")),
    ("4d less 4: the longer cold start", False, ("refined-more", "single"), ("refined", "single")),
    ("5 less 4: majority", False, ("refined", "majority"), ("refined", "single")),
    ("7 less 6: the light calibrator", False, ("refined", "linear"), ("refined", "vote")),
    ("9 less 4: softmax", False, ("refined-softmax", "single"), ("refined", "single")),
    ("9 less 4: grpo", False, ("refined-grpo", "single"), ("refined", "single")),
    ("9 less 4: accuracy and format alone", False, ("refined-plain", "single"), ("refined", "single")),
)
MARK = "<!-- make ablation -->\n"
_SHARES = ("parsed", "observed", "contradicts", "alike", "collapse")
_COSTS = ("tokens", "rollouts", "seconds")

Results = Sequence[Mapping[str, Any]]


def text(known: Results, about: Mapping[str, str], clips: Mapping[str, Sequence[str]]) -> str:
    """Both tables in Markdown; what was made otherwise than now is left out, and named.

    about: by model, what names how it is made now; clips: hand and kind of each test clip, in the order of results.
    """
    found: dict[str, list[Mapping[str, Any]]] = {}
    for result in known:
        if about.get(result["model"]) == result["about"]:
            found.setdefault(result["model"], []).append(result)
    stale = sorted(f"{of['model']} {of['seed']}" for of in known if about.get(of["model"]) != of["about"])
    missing = [name for name in about if name not in found]
    notes = [
        f"{what}: {', '.join(names)}"
        for what, names in (("made otherwise than now, left out", stale), ("not known yet", missing))
        if names
    ]
    return "\n\n".join([rows(found), *([differences(found, clips)] if found else []), *notes])


def inserted(document: str, printed: str) -> str:
    """A document with these tables between its two marks."""
    before, _, rest = document.partition(MARK)
    return f"{before}{MARK}\n{printed}\n{MARK}{rest.partition(MARK)[2]}"


def rows(found: Mapping[str, Results]) -> str:
    """The rows whose models are known: means over seeds, with the deviation where there are several."""
    shares = ("parsed", "digits right", "contradicts", "siblings alike", "collapse")
    heads = ["", "seeds", *FIGURES, "shifted kinds", *shares, *_COSTS]
    lines = []
    for name, model, method in ROWS:
        own = found.get(model, ())
        if own:
            cells = [_cell(kept["methods"][method][figure] for kept in own) for figure in (*FIGURES, "shifted")]
            cells += [_cell(_share(kept, share) for kept in own) for share in _SHARES]
            cells += [f"{np.mean([kept[cost] for kept in own]):,.0f}" for cost in _COSTS]
            lines.append([name, str(len(own)), *cells])
    return _markdown(heads, lines)


def differences(found: Mapping[str, Results], clips: Mapping[str, Sequence[str]]) -> str:
    """Accuracy of one row less another on the same clips, mean over seeds, with a 95 % interval over the test's hands.

    Trainings are held fixed: how far other seeds would lie is the deviation of the rows.
    """
    lines = []
    for name, shift, one, other in DIFFERENCES:
        if one[0] in found and other[0] in found:
            mine = np.isin(clips["kind"], ONLY_TESTED) if shift else np.ones(len(clips["kind"]), bool)
            less = _right(found[one[0]], one[1]) - _right(found[other[0]], other[1])
            interval = intervals.mean(less[mine], np.unique(clips["hand"], return_inverse=True)[1][mine])
            seeds = f"{len(found[one[0]])} and {len(found[other[0]])}"
            lines.append([name, seeds, f"{interval.value:+.3f} [{interval.low:+.3f}, {interval.high:+.3f}]"])
    return _markdown(["row less row", "seeds", "accuracy"], lines)


def _right(own: Results, method: str) -> np.ndarray:
    """Share of each clip's predictions that are right, mean over seeds; method `single` has one for each sample."""
    each = [np.array(list(kept["right"][method]), float) / (kept["k"] if method == "single" else 1) for kept in own]
    return np.mean(each, axis=0)


def _share(kept: Mapping[str, Any], share: str) -> float | None:
    """What is known of it; of a model that was taught no observation a few stray ones say nothing."""
    return None if share == "observed" and kept["contradicts"] is None else kept.get(share)


def _cell(values: Iterable[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return ""
    spread = f" ± {np.std(known, ddof=1):.3f}" if len(known) > 1 else ""
    return f"{np.mean(known):.3f}{spread}"


def _markdown(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (heads, ["---"] * len(heads), *lines))
