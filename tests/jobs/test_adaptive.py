"""Given a plan of effort, then videos that two rollouts settle have two, the others four, and each is decided once."""

from __future__ import annotations

import shutil
from collections import Counter

import pytest
from support import Lake

from jobs.runtime.errors import UsageError
from jobs.steps import serving, shadowing
from lake.waves import Held
from models.calibration.calibrator import load

PLAN = ("effort.steps=[{n: 2}, {n: 4}]", "effort.agreement=1.0", "decide.coverage=0.6", "rollout.n=4")


@pytest.fixture(scope="module")
def adaptive(spark, clip_factory, tmp_path_factory):
    lake = Lake(tmp_path_factory.mktemp("effort") / "lake", "engine.per_cluster=1", "calibrate.kind=adaptive", *PLAN)
    history, uploads = clip_factory("calibrate", 36), lake.root.parent / "uploads"
    shutil.copytree(clip_factory("test", 12), uploads)
    lake.job("ingest", source=str(history), labels=str(history / "labels.csv"))
    lake.job("rollout", split="calibrate")
    lake.learned = lake.job("calibrate")
    lake.job("promote", force=True, calibrator=lake.learned.results["adaptive"]["calibrator_id"])
    lake.job("ingest", source=str(uploads))
    return lake


def traces_of(lake) -> Counter:
    return Counter(row["video_id"] for row in lake.rows("traces"))


def test_a_night_that_dies_between_two_steps_goes_on_where_it_was(adaptive, monkeypatch):
    def dies(run, recipe, k, left, then=None, later=()):
        if k == 4:
            raise RuntimeError("the machine is gone")
        whole(run, recipe, k, left, then, later)

    whole = serving.roll_out
    monkeypatch.setattr(serving, "roll_out", dies)
    with pytest.raises(RuntimeError, match="the machine is gone"):
        adaptive.job("nightly")
    settled = Counter(row["video_id"] for row in adaptive.rows("scores"))
    assert set(settled.values()) <= {1}
    monkeypatch.undo()
    night = adaptive.job("nightly")
    assert night.counts["videos_scored"] + night.counts["videos_quarantined"] == night.counts["videos_in_scope"]
    scores = adaptive.rows("scores")
    assert {row["scorer_id"] for row in scores} == {night.versions["scorer_id"]}
    assert len(scores) == len({row["video_id"] for row in scores}) == len(adaptive.rows("decisions")) == 48
    assert adaptive.job("nightly").counts["engines"] == 0


def test_each_video_has_the_rollouts_that_it_needed(adaptive):
    registry, calibrator_id = adaptive.at_hand().registry, adaptive.learned.results["adaptive"]["calibrator_id"]
    manifest = registry.calibrator("handwriting", calibrator_id)
    folder = adaptive.root / "registry" / "handwriting" / "calibrators" / calibrator_id
    calibrator = load(manifest, (folder / "weights.safetensors").read_bytes())
    uploaded = {row["video_id"] for row in adaptive.rows("videos")} - {
        row["video_id"] for row in adaptive.rows("labels")
    }
    made, scores = traces_of(adaptive), {row["video_id"]: row for row in adaptive.rows("scores")}
    traces = adaptive.rows("traces")
    for video_id in uploaded:
        own = sorted((row for row in traces if row["video_id"] == video_id), key=lambda row: row["rollout_index"])
        for row in own:
            row["label_logprobs"] = dict(row["label_logprobs"]) if row["label_logprobs"] else None
        assert made[video_id] == scores[video_id]["rollouts"] == len(calibrator.taken(own)) in (2, 4)
        assert (calibrator.taken(own[:2]) is not None) == (made[video_id] == 2)
    assert len(uploaded) == 12 and {made[video_id] for video_id in uploaded} == {2, 4}


def test_mistakes_are_told(adaptive):
    with pytest.raises(UsageError, match=r"needs a task of exclusive labels and effort.steps, two at least"):
        adaptive.job("calibrate", "effort.steps=[]")
    with pytest.raises(UsageError, match="expected each step to ask for more"):
        adaptive.job("calibrate", "effort.steps=[{n: 2}, {n: 2}]")
    with pytest.raises(UsageError, match=r"no labelled video .* has its 6 traces"):
        adaptive.job("calibrate", "effort.steps=[{n: 2}, {n: 6}]")


def test_a_shadow_scores_beside_the_live_versions_and_fails_alone(adaptive, clip_factory, capsys, monkeypatch):
    vote = adaptive.learned.results["vote"]["calibrator_id"]
    shadow = adaptive.job("shadow", calibrator=vote).versions["scorer_id"]
    night = adaptive.job("nightly", source=str(clip_factory("dev", 2)))
    assert night.counts["shadow_scores"] == night.counts["shadow_decisions"] == night.counts["videos_in_scope"] == 2
    assert night.versions["scorer_id"] != shadow
    shown = {row["scorer_id"] for row in adaptive.at_hand().view("current_scores").collect()}
    assert shadow not in shown and shadow in {row["scorer_id"] for row in adaptive.rows("scores")}

    def stopped(run, scorer, scope):
        if scorer.id == shadow:
            raise Held("a gate stopped it")
        whole(run, scorer, scope)

    whole = shadowing.bring
    monkeypatch.setattr(shadowing, "bring", stopped)
    night = adaptive.job("nightly", source=str(clip_factory("dev", 4)))
    assert night.counts["videos_scored"] == 2 and "shadow_scores" not in night.counts
    assert "the shadow failed, the live versions did not: a gate stopped it" in capsys.readouterr().err


def test_a_night_that_dies_over_its_shadow_leaves_it_to_the_next(adaptive, clip_factory, monkeypatch):
    class Killed(BaseException):
        """As a SIGKILL: nothing catches it."""

    def dying(run, scorer, scope):
        if scorer.id == shadow:
            raise Killed
        whole(run, scorer, scope)

    shadow, whole = adaptive.at_hand().registry.shadow("handwriting")["scorer_id"], shadowing.bring
    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(shadowing, "bring", dying)
        adaptive.job("nightly", source=str(clip_factory("dev", 6)))
    night = adaptive.job("nightly")
    assert night.counts["videos_in_scope"] == 0 and night.counts["shadow_decisions"] >= 2
    decided = {row["video_id"] for row in adaptive.rows("decisions") if row["scorer_id"] == shadow}
    live = {row["video_id"] for row in adaptive.rows("decisions") if row["scorer_id"] == night.versions["scorer_id"]}
    assert live == decided
    assert "shadow_decisions" not in adaptive.job("nightly").counts
    adaptive.job("shadow", none=True)
    assert adaptive.at_hand().registry.shadow("handwriting") is None
