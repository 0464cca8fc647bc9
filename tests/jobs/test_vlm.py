"""Given labelled clips with traces, then a calibrator that watches them learns, is judged by the others, and scores."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from support import Lake

import models.handwriting

EMBEDDED = str(Path(models.handwriting.__file__).parent / "checkpoint")
VLM = (
    "calibrate.kind=vlm",
    f"calibrate.vlm.init={EMBEDDED}",
    "calibrate.vlm.steps=3",
    "calibrate.vlm.batch=4",
    "calibrate.folds=2",
)


@pytest.fixture(scope="module")
def watched(spark, clip_factory, tmp_path_factory):
    lake = Lake(tmp_path_factory.mktemp("vlm") / "lake", "engine.per_cluster=1", "rollout.n=2", *VLM)
    history, uploads = clip_factory("calibrate", 12), lake.root.parent / "uploads"
    shutil.copytree(clip_factory("test", 4), uploads)
    whole = sorted(uploads.glob("*.mp4"))[0]
    (uploads / "broken.mp4").write_bytes(whole.read_bytes()[:3000])
    lake.job("ingest", source=str(history), labels=str(history / "labels.csv"))
    lake.job("rollout", split="calibrate")
    lake.out = lake.root.parent / "reviewer"
    lake.run = lake.job("calibrate", out=lake.out)
    lake.job("promote", force=True, calibrator=lake.run.results["vlm"]["calibrator_id"])
    lake.night = lake.job("nightly", source=str(uploads))
    return lake


def test_it_learns_from_every_trace_of_all_folds_but_one_and_is_judged_by_that(watched):
    counts = watched.run.counts
    assert 0 < counts["videos_train"] < 12
    assert counts["lessons"] == 2 * counts["videos_train"] > 0
    assert {"vote", "vlm"} == watched.run.results.keys() - {"calibrate"}
    assert watched.run.results["vlm"]["nll"] > 0


def test_uploads_are_scored_by_it(watched):
    scores = watched.rows("scores")
    assert len(scores) == watched.night.counts["scores"] == watched.night.counts["videos_scored"] > 0
    for row in scores:
        assert sum(dict(row["probs"]).values()) == pytest.approx(1)
    assert len(watched.rows("decisions")) == len(scores)


def test_doing_it_again_changes_nothing(watched):
    again = watched.job("calibrate", out=watched.out)
    assert again.results["vlm"]["calibrator_id"] == watched.run.results["vlm"]["calibrator_id"]
    assert watched.job("nightly").counts.get("scores", 0) == 0
