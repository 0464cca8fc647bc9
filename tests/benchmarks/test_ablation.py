"""The table of the ablation, from literal results."""

from __future__ import annotations

from benchmarks import ablation
from benchmarks.ablation import _FIGURES, MODELS, ROWS, table


def result(model: str, seed: int, accuracy: float) -> dict:
    figures = dict.fromkeys(_FIGURES, 0.25) | {"accuracy": accuracy, "shifted": 0.5, "by_kind": {}}
    methods = dict.fromkeys(("single", "majority", "vote", "linear"), figures)
    shares = {"parsed": 1.0, "contradicts": 0.125 if model != "direct" else None, "alike": 0.375}
    return {
        "model": model,
        "seed": seed,
        "methods": methods,
        "tokens": 27.6,
        "rollouts": 4000.0,
        "seconds": 61.4,
    } | shares


def test_rows_are_means_over_seeds_with_their_deviation_and_what_is_unknown_is_left_out():
    found = {
        "direct": [result("direct", 0, 0.5)],
        "cold": [result("cold", seed, 0.4 + 0.1 * seed) for seed in range(3)],
    }
    heads, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table(found).splitlines()]
    named = {row[0]: dict(zip(heads, row, strict=True)) for row in rows}
    assert list(named) == [name for name, model, _ in ROWS if model in found]
    direct, cold = named["1 direct: the label alone"], named["2 cold start"]
    assert (direct["seeds"], direct["accuracy"], direct["rollouts"], direct["seconds"]) == ("1", "0.500", "4,000", "61")
    assert direct["contradicts"] == ""  # it observes nothing
    assert (cold["seeds"], cold["accuracy"], cold["contradicts"]) == ("3", "0.500 ± 0.100", "0.125 ± 0.000")


def test_every_row_has_a_model_and_every_model_a_way_to_base():
    assert {model for _, model, _ in ROWS} <= set(MODELS)
    for name in MODELS:
        while name != "base":
            name = MODELS[name].start
    assert set(ablation.QUICK) <= set(MODELS)


def test_what_is_kept_is_of_models_and_seeds_that_there_are():
    for model, kept in ablation.known().items():
        assert model in MODELS and {of["seed"] for of in kept} <= set(range(MODELS[model].seeds))
