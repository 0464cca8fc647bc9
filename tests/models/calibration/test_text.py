"""The calibrator that reads finds what traces say in words, and says nothing for sure where they say nothing."""

import numpy as np
import pytest

from models.calibration import calibrator, crossfit
from models.calibration.crossfit import Examples
from models.calibration.features import FeatureSpec
from models.calibration.probabilities import nll
from models.calibration.text import TextSpec

LABELS = ("a", "b")


def trace(index: int, label: str | None, text: str | None) -> dict:
    known = {"observation": None, "think": None, "label_logprobs": None, "logprob_sum": None, "tokens": None}
    said = {"status": "ok" if label else "parse_error", "labels": [label] if label else None}
    return known | said | {"rollout_index": index, "text": text}


def examples(spec, rows: int, told: float, independent: bool = False) -> Examples:
    """Half are a. Their word is `certainly` with so much of a chance where the answer is right, `perhaps` else; the answers
    of the second prompt are always right, those of the first by chance."""
    random = np.random.default_rng(0)
    targets = random.integers(0, 2, rows)
    videos = []
    for target in targets:
        guess = int(random.integers(0, 2))
        sure = random.random() < told if guess == target else random.random() >= told
        videos.append([trace(0, LABELS[guess], f"so it is {'certainly' if sure else 'perhaps'} {LABELS[guess]}")])
        if spec.prompts:
            videos[-1].append(trace(1, LABELS[target], "short"))
    truth = np.eye(2, dtype=np.int64)[targets] if independent else targets
    place = np.arange(rows)
    return Examples(spec.matrix(videos), truth, place % 5, place, place)


def lost(spec, found: Examples) -> float:
    logits = crossfit.out_of_fold(found, crossfit.text(spec))
    return float(nll(logits, found.targets, 1.0).mean())


def test_a_word_that_tells_when_answers_are_right_is_found():
    spec = TextSpec(LABELS, 0)
    assert lost(spec, examples(spec, 240, 0.95)) < 0.35  # by chance 0.69; by the word and the answer 0.20
    assert 0.6 < lost(spec, examples(spec, 240, 0.5)) < 0.8


def test_prompts_are_told_apart():
    spec, blind = TextSpec(LABELS, 0, prompts=2), TextSpec(LABELS, 0)
    assert lost(spec, examples(spec, 300, 0.5)) < 0.15
    assert len(spec.names) == len(blind.names) + 4


@pytest.mark.parametrize("independent", [False, True])
def test_what_is_kept_says_the_same_again(independent):
    spec = TextSpec(LABELS, 0, independent, prompts=2)
    found = examples(spec, 60, 0.9, independent)
    made = crossfit.text(spec)(found)
    manifest = calibrator.manifest(made, "r", 2)
    again = calibrator.load(manifest, calibrator.weights(made))
    assert np.array_equal(again.logits(found.features), made.logits(found.features))
    assert calibrator.manifest(crossfit.text(spec)(found), "r", 2) == manifest  # and learning is repeatable
    said = calibrator.probs(again, [trace(0, "a", "so it is certainly a"), trace(1, "a", "short")])
    assert said["a"] > 0.7 and (independent or sum(said.values()) == pytest.approx(1))


def test_a_label_that_nobody_has_is_improbable_and_one_that_all_have_is_not_sure():
    spec = TextSpec((*LABELS, "c"), 0)
    found = examples(spec, 50, 0.9)
    probs = np.exp(crossfit.text(spec)(found).logits(found.features))
    assert (probs[:, 2] / probs.sum(1) < 0.05).all()
    only = crossfit.text(spec)(found.of(found.targets == 0)).logits(found.features[:1])
    assert only.argmax() == 0 and 0.9 < np.exp(only[0, 0]) / np.exp(only).sum() < 0.99


def test_a_trace_without_words_is_a_row_like_any_other():
    spec = TextSpec(LABELS, 0, prompts=1)
    row = spec.matrix([[trace(0, None, None)]])
    assert row.shape == (1, spec.width) and np.isfinite(row.toarray()).all()
    assert row[0, spec.names.index("status/parse_error")] == 1


def test_what_every_calibrator_sees_comes_first():
    spec = TextSpec(LABELS, 0, prompts=3)
    assert spec.names[: len(FeatureSpec(LABELS, 0).names)] == FeatureSpec(LABELS, 0).names
