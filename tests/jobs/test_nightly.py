"""What is new to a night: what no live versions have decided yet, whatever an earlier night left undone, and how."""

from __future__ import annotations

import shutil

import pytest
from support import Lake

from benchmarks import archive
from jobs.steps import files, scoring

ARCHIVED, UPLOADED = 40, 6


@pytest.fixture(scope="module")
def made(spark, clip_factory, tmp_path_factory):
    """A lake with live versions and an archive that they have decided, into which uploads came in two waves."""
    root = tmp_path_factory.mktemp("nightly") / "lake"
    archive.make(root, ARCHIVED, workers=1)
    lake = Lake(root, *archive.overrides_of(root)[1:])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "FILES_PER_WAVE", UPLOADED // 2)
        lake.job("ingest", source=str(clip_factory("test", UPLOADED)))
    return lake


@pytest.fixture
def lake(made, tmp_path):
    """One of one's own."""
    shutil.copytree(made.root, tmp_path / "lake")
    return Lake(tmp_path / "lake", *made.overrides)


def scope_of(run) -> tuple[int, int, int]:
    return tuple(run.counts.get(f"videos_{name}", 0) for name in ("in_scope", "scored", "deferred"))


def noted(lake):
    """How far the nights say they came."""
    return lake.at_hand().registry.scored_up_to(lake.settings().task)


def test_what_a_night_leaves_the_next_takes_on_and_nothing_twice(lake):
    lake.job("maintain")  # the files in which the videos came are others now
    before = noted(lake)
    first = lake.job("nightly", max_videos=2)
    assert scope_of(first) == (6, 2, 4) and first.deferred
    (day,) = noted(lake).open_days
    today = max(row["ingested_on"] for row in lake.rows("videos"))
    assert noted(lake).version > before.version and day == today.isoformat()
    assert scope_of(lake.job("nightly")) == (4, 4, 0)
    assert noted(lake).open_days == before.open_days == ()
    assert scope_of(lake.job("nightly")) == (0, 0, 0)
    decided = [row["video_id"] for row in lake.rows("decisions")]
    assert len(decided) == len(set(decided)) == ARCHIVED + UPLOADED


def test_a_night_that_died_between_scores_and_decisions_is_finished_by_the_next(lake, monkeypatch):
    def die(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(scoring, "_decide", die)
        with pytest.raises(KeyboardInterrupt):
            lake.job("nightly")
    assert len(lake.rows("scores")) == ARCHIVED + UPLOADED and len(lake.rows("decisions")) == ARCHIVED
    next_night = lake.job("nightly")
    assert scope_of(next_night) == (6, 6, 0)
    assert [next_night.counts[name] for name in ("rollouts", "scores", "decisions")] == [0, 0, 6]


def test_what_a_rule_decided_that_was_never_live_is_new_all_the_same(lake):
    lake.job("rollout")
    tried = lake.job("score", "decide.threshold=0.99")
    assert tried.counts["scores"] == 6 and tried.counts["decisions"] >= 6
    night = lake.job("nightly")
    assert scope_of(night) == (6, 6, 0) and night.counts["scores"] == 0 and night.counts["decisions"] == 6
