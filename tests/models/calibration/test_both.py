"""Watching and reading, weighed: what each of them is sure of counts as much as it has been right."""

from __future__ import annotations

import numpy as np
import pytest

from models.calibration import crossfit
from models.calibration.both import BothSpec
from models.calibration.calibrator import load, manifest, probs, weights
from models.calibration.crossfit import Examples
from models.calibration.probabilities import softmax

LABELS, K = ("a", "b"), 2
SPEC = BothSpec(LABELS, 0, reviews="v")


def trace(recipe_id: str, index: int, label: str, sure: float, text: str) -> dict:
    logprobs = {of: float(np.log(sure if of == label else 1 - sure)) for of in LABELS}
    known = {"status": "ok", "labels": [label], "observation": "", "think": "", "logprob_sum": -1.0, "tokens": 4}
    return known | {"recipe_id": recipe_id, "rollout_index": index, "label_logprobs": logprobs, "text": text}


def video(right: str, reviewer: float, reader: float, rng: np.random.Generator) -> list[dict]:
    """Reviews and words that are right as often as that."""
    other = {"a": "b", "b": "a"}[right]
    seen = right if rng.random() < reviewer else other
    word = (right if rng.random() < reader else other) * 3
    reviews = [trace("v", index, seen, 0.9, "1") for index in range(K)]
    return reviews + [trace("r", index, "a", 0.5, f"it is {word}") for index in range(K)]


def examples(count: int, reviewer: float, reader: float, seed: int) -> tuple[Examples, list[list[dict]]]:
    rng = np.random.default_rng(seed)
    targets = np.arange(count) % 2
    videos = [video(LABELS[target], reviewer, reader, rng) for target in targets]
    rows = np.arange(count)
    return Examples(SPEC.matrix(videos), targets, rows % 4, rows, rows.astype(str)), videos


@pytest.fixture(scope="module")
def reader():
    rng = np.random.default_rng(1)
    targets = np.arange(200) % 2
    written = [[t for t in video(LABELS[y], 0.5, 0.8, rng) if t["recipe_id"] == "r"] for y in targets]
    rows = np.arange(200)
    return crossfit.text(SPEC.text)(Examples(SPEC.text.matrix(written), targets, rows % 4, rows, rows.astype(str)))


WEIGHED = [(0.95, 0.5, 0.7, 1.0), (0.5, 0.95, 0.0, 0.3), (0.8, 0.8, 0.1, 0.9)]


@pytest.mark.parametrize(("reviewer", "read", "low", "high"), WEIGHED)
def test_who_is_right_more_often_weighs_more(reader, reviewer, read, low, high):
    of, _ = examples(400, reviewer, read, seed=2)
    assert low <= crossfit.both(SPEC, reader)(of).share <= high


def test_together_they_are_right_more_often_than_either(reader):
    made = crossfit.both(SPEC, reader)(examples(400, 0.8, 0.8, seed=2)[0])
    of, _ = examples(2000, 0.8, 0.8, seed=3)
    nll = -np.log(softmax(made.logits(of.features))[np.arange(2000), of.targets]).mean()
    for share in (0.0, 1.0):
        alone = softmax(type(made)(SPEC, reader, share).logits(of.features))
        assert nll < -np.log(alone[np.arange(2000), of.targets]).mean() - 0.02


def test_what_was_kept_says_the_same(reader):
    of, videos = examples(40, 0.8, 0.8, seed=4)
    made = crossfit.both(SPEC, reader)(of)
    again = load(manifest(made, "v", K), weights(made))
    assert again.spec == SPEC and again.share == made.share
    assert probs(again, videos[0]) == probs(made, videos[0])
    assert probs(made, list(reversed(videos[0]))) == pytest.approx(probs(made, videos[0]))


def test_where_nothing_could_be_watched_the_words_decide(reader):
    made = crossfit.both(SPEC, reader)(examples(400, 0.9, 0.8, seed=2)[0])
    blind = [
        trace("v", index, "a", 0.5, "")
        | {"status": "decode_error", "labels": None, "label_logprobs": None, "tokens": 0}
        for index in range(K)
    ]
    said = probs(made, blind + [trace("r", index, "a", 0.5, "it is bbb") for index in range(K)])
    assert said["b"] > 0.5
