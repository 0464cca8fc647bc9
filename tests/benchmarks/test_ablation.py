"""The table of the ablation, from literal results; what its figures are fitted on."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from benchmarks import ablation, ablation_table
from benchmarks.ablation import MODELS
from benchmarks.ablation_table import DIFFERENCES, FIGURES, ROWS
from models.evaluation.methods import Case
from models.handwriting.rule import LABELS

CLIPS = {"hand": ["a", "a", "b", "b", "c", "c"], "kind": ["plain", "written"] * 3}


def result(model: str, seed: int, accuracy: float, right: str = "444444", about: str = "now") -> dict:
    figures = dict.fromkeys(FIGURES, 0.25) | {"accuracy": accuracy, "shifted": 0.5, "by_kind": {}}
    methods = ("single", "majority", "vote", "linear")
    return {
        "model": model,
        "seed": seed,
        "k": 4,
        "about": about,
        "methods": dict.fromkeys(methods, figures),
        "right": {method: right if method == "single" else "111111" for method in methods},
        "parsed": 1.0,
        "observed": 0.75,
        "contradicts": 0.125 if model != "direct" else None,
        "alike": 0.375,
        "tokens": 27.6,
        "rollouts": 4000.0,
        "seconds": 61.4,
    }


def tables(known: list[dict]) -> list[dict[str, dict[str, str]]]:
    """Both printed tables: row -> column -> cell."""
    found = []
    for table in ablation_table.text(known, dict.fromkeys(MODELS, "now"), CLIPS).split("\n\n")[:2]:
        heads, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
        found.append({row[0]: dict(zip(heads, row, strict=True)) for row in rows})
    return found


def test_rows_are_means_over_seeds_with_their_deviation_and_what_is_unknown_is_left_out():
    known = [result("direct", 0, 0.5), *(result("cold", seed, 0.4 + 0.1 * seed) for seed in range(3))]
    named = tables(known)[0]
    assert list(named) == [name for name, model, _ in ROWS if model in ("direct", "cold")]
    direct, cold = named["1 direct: the label alone"], named["2 cold start"]
    assert (direct["seeds"], direct["accuracy"], direct["rollouts"], direct["seconds"]) == ("1", "0.500", "4,000", "61")
    # It observes nothing, and no group told it anything.
    assert direct["contradicts"] == direct["digits right"] == direct["collapse"] == ""
    assert (cold["seeds"], cold["accuracy"], cold["contradicts"]) == ("3", "0.500 ± 0.100", "0.125 ± 0.000")


def test_differences_are_of_the_same_clips_over_hands_that_are_no_single_clips():
    known = [result("refined", 0, 1, "444444"), result("refined", 1, 1, "422422"), result("cold", 0, 1, "222222")]
    found = tables(known)[1]["4 less 2: RL"]
    # By clip the refined less the cold: .5, .25, .25 and again; by hand .375, .375, .25.
    assert found["seeds"] == "2 and 1" and found["accuracy"].startswith("+0.333 [")
    low, high = (float(end) for end in found["accuracy"].split("[")[1].strip("]").split(","))
    off = np.array([0.75, 0.75, 0.5]) - 2 / 3
    half = 4.303 * math.sqrt(3 / 2 * (off**2).sum()) / 6
    assert (low, high) == pytest.approx((1 / 3 - half, 1 / 3 + half), abs=2e-3)


def test_what_was_made_otherwise_than_now_is_left_out_and_named():
    text = ablation_table.text([result("cold", 0, 0.5, about="then")], dict.fromkeys(MODELS, "now"), CLIPS)
    assert "2 cold start" not in text and "made otherwise than now, left out: cold 0" in text


def test_every_row_has_a_model_and_every_model_a_way_to_base():
    named = {model for _, model, _ in ROWS} | {model for *_, one, other in DIFFERENCES for model, _ in (one, other)}
    assert named == set(MODELS)
    for name in MODELS:
        while name != "base":
            name = MODELS[name].start
    assert set(ablation.QUICK) <= set(MODELS)


def test_what_a_model_begins_with_is_part_of_what_it_is(tmp_path):
    bench = ablation.Bench(tmp_path)
    about = {name: bench.about(name) for name in MODELS}
    assert len(set(about.values())) == len(MODELS)


def test_what_is_kept_is_of_models_and_seeds_that_there_are_and_of_all_clips():
    found = ablation.known()
    assert found, "no results: make ablation MISSING=1"
    clips = json.loads(ablation.CLIPS.read_text())
    for kept in found:
        assert kept["seed"] < MODELS[kept["model"]].seeds
        assert {len(kept["right"][method]) for method in kept["methods"]} == {len(clips["hand"])}
        right = np.mean([int(digit) for digit in kept["right"]["single"]]) / kept["k"]
        assert right == pytest.approx(kept["methods"]["single"]["accuracy"])


def test_the_document_holds_what_is_printed(tmp_path):
    bench = ablation.Bench(tmp_path)
    about = {name: bench.about(name) for name in MODELS}
    printed = ablation_table.text(ablation.known(), about, json.loads(ablation.CLIPS.read_text()))
    said = ablation.DOCUMENT.read_text()
    assert ablation_table.inserted(said, printed) == said, "make ablation MISSING=1 writes it"
    assert said.count(ablation_table.MARK) == 2


def traces(truth: list[Case], sure: float, rng) -> list[list[dict]]:
    """Four of each case, whose labels are right for three in four cases and have that probability."""
    made = []
    for number, case in enumerate(truth):
        (own,) = case.truth
        said = own if number % 4 else LABELS[(LABELS.index(own) + 1) % 3]
        probs = {label: math.log(sure if label == said else (1 - sure) / 2) for label in LABELS}
        shown = {"status": "ok", "labels": [said], "observation": "1 2 3 4", "think": "", "label_logprobs": probs}
        spoken = [float(-rng.integers(1, 9)) for _ in range(4)]
        made.append([shown | {"rollout_index": k, "logprob_sum": spoken[k], "tokens": 9} for k in range(4)])
    return made


def test_temperatures_and_weights_know_nothing_of_the_test():
    rng = np.random.default_rng(0)
    cases = [Case(f"v{n}", (LABELS[n % 3],), f"hand {n % 12}", (("kind", "plain"),)) for n in range(96)]
    lies = [Case(case.video_id, (LABELS[(n + 1) % 3],), case.cluster, case.slices) for n, case in enumerate(cases)]
    fitting, test = traces(cases, 0.98, rng), traces(cases, 0.9, rng)
    told, lied = ablation._predictions(fitting, cases, test, cases), ablation._predictions(fitting, cases, test, lies)
    other = ablation._predictions(fitting, lies, test, cases)
    for method in ("single", "vote", "linear"):
        assert np.array_equal(told[method].probs, lied[method].probs), method
        assert not np.allclose(told[method].probs, other[method].probs), method
        assert told[method].right.mean() > 0.7 > lied[method].right.mean()
