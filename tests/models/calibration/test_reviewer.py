"""What a calibrator makes of the reviews of a video's traces."""

import numpy as np
import pytest

from models.calibration import calibrator
from models.calibration.features import FeatureSpec
from models.calibration.reviewer import ReviewerCalibrator, mean_of
from models.language.review import WORDING
from models.language.rule import code_of

LABELS = ("a", "b", "c")
ASKS = {"model": "m", "codes": ["A", "B", "C"], "wording": code_of(WORDING)}
MADE = ReviewerCalibrator(FeatureSpec(LABELS, 0), (0.5, 0.3, 0.2), ASKS)


def test_the_mean_is_of_distributions_over_the_codes_alone():
    # The second reviewer's codes share a hundredth of the vocabulary: that weighs no less.
    logprobs = np.log([[0.6, 0.2, 0.2], [0.001, 0.008, 0.001]])
    assert mean_of(logprobs) == pytest.approx([(0.6 + 0.1) / 2, (0.2 + 0.8) / 2, (0.2 + 0.1) / 2])
    assert mean_of(np.array([[-1000.0, -1001.0, -2000.0]])) == pytest.approx([0.7311, 0.2689, 0], abs=1e-4)


def test_probabilities_are_the_mean_at_its_temperature_or_the_prior_where_nothing_was_watched():
    assert calibrator.probs(MADE, {"reviewed": [0.7, 0.2, 0.1]}) == pytest.approx({"a": 0.7, "b": 0.2, "c": 0.1})
    assert calibrator.probs(MADE, {"reviewed": None}) == pytest.approx({"a": 0.5, "b": 0.3, "c": 0.2})
    assert np.isfinite(MADE.features({"reviewed": [1.0, 0.0, 0.0]})).all()


def test_it_comes_back_from_its_manifest_and_another_model_is_another_calibrator():
    manifest = calibrator.manifest(MADE, "recipe", 4)
    assert calibrator.load(manifest, calibrator.weights(MADE)) == MADE
    other = ReviewerCalibrator(MADE.spec, MADE.prior, MADE.asks | {"model": "n"})
    assert calibrator.manifest(other, "recipe", 4)["calibrator_id"] != manifest["calibrator_id"]


def test_one_that_was_told_traces_otherwise_is_refused():
    manifest = calibrator.manifest(MADE, "recipe", 4)
    manifest["asks"] = manifest["asks"] | {"wording": "0123"}
    with pytest.raises(ValueError, match="expected the code 0123 of "):
        calibrator.load(manifest, b"")
