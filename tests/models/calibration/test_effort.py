"""Few traces where they settle it, more where they do not; and what is said is right as often as it says."""

import numpy as np
import pytest

from models.calibration import calibrator, crossfit
from models.calibration.crossfit import Examples
from models.calibration.effort import EffortSpec, Step
from models.calibration.probabilities import softmax

LABELS = ("a", "b", "c")
SPEC = EffortSpec(LABELS, 0, steps=(Step("few", 2), Step("few", 6), Step("dense", 4)), agreement=1.0)


def trace(recipe: str, index: int, label: int) -> dict:
    known = {
        "observation": None,
        "think": None,
        "label_logprobs": None,
        "logprob_sum": None,
        "tokens": 1,
        "status": "ok",
    }
    return known | {"recipe_id": recipe, "rollout_index": index, "labels": [LABELS[label]]}


def videos(rows: int, seed: int) -> tuple[list[list[dict]], np.ndarray]:
    """Half of them are easy: nine of ten traces are right; of the others every second is, and two of three dense ones."""
    random = np.random.default_rng(seed)
    targets, found = random.integers(0, 3, rows), []
    for number, target in enumerate(targets):
        right = {"few": 0.9 if number % 2 else 0.5, "dense": 0.9 if number % 2 else 0.67}

        def say(recipe: str, count: int, target: int = target, right: dict = right) -> list[dict]:
            named = [target if random.random() < right[recipe] else int(random.integers(0, 3)) for _ in range(count)]
            return [trace(recipe, index, label) for index, label in enumerate(named)]

        found.append([*say("few", 6), *say("dense", 4)])
    return found, targets


@pytest.fixture(scope="module")
def fitted():
    given, targets = videos(600, 0)
    place = np.arange(600)
    examples = Examples(SPEC.matrix(given), targets, place % 5, place, place)
    return crossfit.effort(SPEC, 0.01, 0.8)(examples)


def test_easy_videos_stop_early_and_none_goes_on_beyond_the_plan(fitted):
    given, _ = videos(600, 1)
    stops = fitted.stops(SPEC.matrix(given))
    assert set(stops) == {0, 1, 2} or set(stops) == {0, 2}
    easy = np.arange(600) % 2 == 1
    assert (stops[easy] == 0).mean() > 1.5 * (stops[~easy] == 0).mean() > 0
    agree = [len({t["labels"][0] for t in own[:2]}) == 1 for own in given]
    assert all(agree[row] for row in np.flatnonzero(stops == 0))


def test_whether_a_video_goes_on_depends_on_nothing_that_comes_later(fitted):
    given, _ = videos(80, 2)
    stops = fitted.stops(SPEC.matrix(given))
    first = fitted.stops(SPEC.matrix([own[:2] for own in given]))
    assert np.array_equal(first, np.where(stops == 0, 0, -1))
    second = fitted.stops(SPEC.matrix([own[:6] for own in given]))
    assert np.array_equal(second, np.where(stops < 2, stops, -1))
    for own, stop in zip(given, stops, strict=True):
        taken = fitted.taken(own)
        assert len(taken) == (2, 6, 10)[stop]
        assert fitted.logits(SPEC.matrix([taken])) == pytest.approx(fitted.logits(SPEC.matrix([own])))
    assert fitted.taken(given[0][:1]) is None
    goes_on = next(own for own, stop in zip(given, stops, strict=True) if stop)
    with pytest.raises(ValueError, match="needs more traces"):
        fitted.logits(SPEC.matrix([goes_on[:2]]))


def test_it_is_right_as_often_as_it_says_after_each_step(fitted):
    given, targets = videos(3000, 3)
    features = SPEC.matrix(given)
    stops, probs = fitted.stops(features), softmax(fitted.logits(features))
    for step in set(stops):
        own = stops == step
        sure, right = probs[own].max(1).mean(), (probs[own].argmax(1) == targets[own]).mean()
        assert abs(sure - right) < 0.06, (step, own.sum(), sure, right)


def test_what_is_kept_says_the_same_again(fitted):
    manifest = calibrator.manifest(fitted, "few", 2)
    again = calibrator.load(manifest, calibrator.weights(fitted))
    features = SPEC.matrix(videos(50, 4)[0])
    assert np.array_equal(again.stops(features), fitted.stops(features))
    assert np.array_equal(again.logits(features), fitted.logits(features))


def test_steps_that_nobody_comes_to_are_there_all_the_same():
    given = [
        [trace("few", index, label) for index in range(6)] + [trace("dense", index, label) for index in range(4)]
        for label in [0, 1, 2] * 30
    ]
    targets, place = np.array([0, 1, 2] * 30), np.arange(90)
    made = crossfit.effort(SPEC, 0.01, 0.8)(Examples(SPEC.matrix(given), targets, place % 5, place, place))
    assert set(made.stops(SPEC.matrix(given))) == {0}
    unsure = [trace("few", 0, 0), trace("few", 1, 1)]
    assert made.taken(unsure) is None
