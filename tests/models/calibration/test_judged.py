"""What was said of held-out videos: kept whole, compared video by video."""

import numpy as np
import pytest

from models.calibration.judged import Judged, common, differences, numbers

LABELS = ["a", "b", "c"]


def drawn(rows: int, seed: int, independent: bool = False) -> Judged:
    random = np.random.default_rng(seed)
    probs = random.dirichlet(np.ones(3), rows)
    targets = (random.random((rows, 3)) < 0.5).astype(np.int64) if independent else random.integers(0, 3, rows)
    return Judged(probs, targets, np.arange(rows) // 2, np.arange(rows) * 7)


@pytest.mark.parametrize("independent", [False, True])
def test_it_is_kept_whole_and_in_another_order_of_labels_says_the_same(independent):
    found = drawn(20, 0, independent)
    again = Judged.unpacked(found.packed())
    assert all(np.array_equal(getattr(again, name), value) for name, value in vars(found).items())
    turned = found.ordered(LABELS, ["c", "a", "b"])
    assert turned.probs[:, 0] == pytest.approx(found.probs[:, 2]) and turned.nll() == pytest.approx(found.nll())
    if not independent:
        assert [["c", "a", "b"][place] for place in turned.targets] == [LABELS[place] for place in found.targets]


def test_only_videos_that_both_know_and_hold_for_the_same_are_compared():
    one, other = drawn(20, 0), drawn(30, 1)
    other = Judged(other.probs, np.concatenate([one.targets, other.targets[20:]]), other.cluster, other.video)
    other.targets[3] = (other.targets[3] + 1) % 3  # relabelled since
    mine, theirs = common(one, other.of(np.random.default_rng(0).permutation(30)))
    assert len(mine.video) == 19 and 21 not in mine.video and np.array_equal(mine.video, theirs.video)
    assert np.array_equal(mine.targets, theirs.targets)


def test_what_is_worse_for_sure_shows_and_the_same_does_not():
    random, targets = np.random.default_rng(0), np.arange(300) % 3
    good = np.full((300, 3), 0.1) + 0.7 * np.eye(3)[targets]
    bad = np.full((300, 3), 0.1) + 0.7 * np.eye(3)[np.where(random.random(300) < 0.3, (targets + 1) % 3, targets)]
    costs, place = 1 - np.eye(3), np.arange(300)
    one, other = (Judged(probs, targets, place, place) for probs in (bad, good))
    found = differences(one, other, costs, 0.4)
    assert found["nll"].low > 0 and 0.2 < found["cost"].low < 0.3 < found["cost"].high < 0.4
    assert differences(other, other, costs, 0.4)["nll"].value == 0


def test_a_look_costs_what_it_costs_where_it_is_cheaper():
    probs, targets = np.array([[0.5, 0.5, 0.0], [0.9, 0.1, 0.0], [0.9, 0.1, 0.0]]), np.array([0, 0, 1])
    place = np.arange(3)
    assert Judged(probs, targets, place, place).spent(1 - np.eye(3), 0.4).tolist() == [0.4, 0.0, 1.0]


def test_numbers_are_the_same_for_ever():
    assert numbers(["a"]).tolist() == [912392414677810140] and numbers([]).dtype == np.int64
