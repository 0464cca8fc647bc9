"""Given labelled clips with traces, then a model learns to review them, is judged by others, and scores what comes in."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from support import Lake

import models.handwriting
from jobs.runtime.errors import UsageError

EMBEDDED = str(Path(models.handwriting.__file__).parent / "checkpoint")
K = 2
VLM = (
    "calibrate.kind=vlm",
    f"calibrate.vlm.init={EMBEDDED}",
    "calibrate.vlm.steps=3",
    "calibrate.vlm.batch=4",
    "calibrate.folds=2",
    "decide.threshold=0.0",
    "training.reader=petastorm",
)


@pytest.fixture(scope="module")
def watched(spark, clip_factory, tmp_path_factory):
    lake = Lake(tmp_path_factory.mktemp("vlm") / "lake", "engine.per_cluster=1", f"rollout.n={K}", *VLM)
    history, uploads = clip_factory("calibrate", 12), lake.root.parent / "uploads"
    shutil.copytree(clip_factory("test", 4), uploads)
    lake.job("ingest", source=str(history), labels=str(history / "labels.csv"))
    lake.job("rollout", split="calibrate")
    lake.out = lake.root.parent / "reviewer"
    lake.run = lake.job("calibrate", out=lake.out)
    lake.job("promote", force=True, calibrator=lake.run.results["vlm"]["calibrator_id"])
    lake.job("ingest", source=str(uploads))
    gone = sorted(uploads.glob("*.mp4"))[0]
    lake.gone, lake.bytes = gone, gone.read_bytes()
    gone.write_bytes(b"no video any more")  # what was ingested cannot be watched
    lake.night = lake.job("nightly")
    return lake


def reviews(lake, **of) -> list[dict]:
    recipes = {row["recipe_id"] for row in lake.rows("recipes") if json.loads(row["json"])["origin"] == "review"}
    return [row for row in lake.rows("traces") if row["recipe_id"] in recipes]


def test_it_learns_from_every_trace_of_all_folds_but_one_and_is_judged_by_that(watched):
    manifest = watched.at_hand().registry.calibrator("handwriting", watched.run.results["vlm"]["calibrator_id"])
    model = watched.at_hand().models.manifest("handwriting", manifest["recipe"]["model"])
    taught = set(watched.at_hand().models.trained_on("handwriting", manifest["recipe"]["model"]))
    judging = {row["video_id"] for row in watched.rows("labels")} - taught
    assert watched.run.counts["lessons"] == K * len(taught) and model["stage"] == "calibrate"
    assert taught and judging and len(taught | judging) == 12
    assert manifest["reviewed"]["recipe_id"] == manifest["recipe"]["reviewed"] == watched.run.versions["recipe_id"]
    assert watched.run.counts["reviews"] == K * len(judging)


def test_uploads_are_scored_by_the_mean_of_its_reviews(watched):
    scores = {row["video_id"]: row for row in watched.rows("scores")}
    assert len(scores) == watched.night.counts["videos_scored"] == 12 + 4
    temperature = watched.run.results["vlm"]["temperature"]
    for video_id, score in scores.items():
        own = [dict(row["label_logprobs"]) for row in reviews(watched) if row["video_id"] == video_id and row["label"]]
        if not own:
            continue
        shares = [{label: 2.718281828459045**value for label, value in each.items()} for each in own]
        mean = {label: sum(each[label] / sum(each.values()) for each in shares) / len(own) for label in shares[0]}
        powers = {label: p ** (1 / temperature) for label, p in mean.items()}
        expected = {label: p / sum(powers.values()) for label, p in powers.items()}
        assert dict(score["probs"]) == pytest.approx(expected, rel=1e-6) and score["rollouts"] == K


def test_what_cannot_be_watched_is_left_to_people_and_named(watched):
    (lost,) = {row["video_id"] for row in reviews(watched) if row["status"] == "decode_error"}
    decided = {row["video_id"]: row for row in watched.rows("decisions")}
    assert decided[lost]["reason"] == "no_usable_trace" and decided[lost]["abstain"]
    assert [row["reason"] for video_id, row in decided.items() if video_id != lost] == ["clear"] * 15
    assert watched.night.counts["review_status_decode_error"] == K


def test_doing_it_again_asks_nothing_and_changes_nothing(watched):
    again = watched.job("calibrate", out=watched.out)
    assert again.results["vlm"] == watched.run.results["vlm"] and again.counts["reviews"] == 0
    assert watched.job("nightly").counts["engines"] == 0


def test_more_rollouts_have_only_the_new_ones_reviewed(watched):
    before = len(reviews(watched))
    watched.job("rollout", f"rollout.n={K + 1}", split="calibrate")
    more = watched.job("calibrate", f"rollout.n={K + 1}", out=watched.root.parent / "of-three")
    # Another model learned from more traces; its reviews are others, those of the first stay.
    assert more.counts["lessons"] == (K + 1) * watched.run.counts["lessons"] // K
    assert len(reviews(watched)) == before + more.counts["reviews"]


@pytest.mark.parametrize(
    ("overrides", "arguments", "said"),
    [
        ((), {}, "kind: vlm trains a model: expected --out FOLDER"),
        (
            ("calibrate.vlm.init=nobody",),
            {"out": "OUT"},
            "calibrate.vlm.init nobody: expected a folder in Hugging Face",
        ),
        (("calibrate.vlm.steps=4",), {"out": "SAME"}, "calibrate.vlm.steps: then 3, now 4"),
    ],
)
def test_mistakes_are_told(watched, tmp_path, overrides, arguments, said):
    places = {"OUT": tmp_path / "new", "SAME": watched.out}
    given = {name: places[value] for name, value in arguments.items()}
    with pytest.raises(UsageError) as told:
        watched.job("calibrate", *overrides, **given)
    assert said in str(told.value)


def test_reading_beside_watching_scores_also_what_cannot_be_watched(watched):
    done = watched.job("calibrate", "calibrate.kind=both", out=watched.out)
    # The model is the one that is there, and its reviews are.
    assert done.results["vlm"] == watched.run.results["vlm"] and done.counts["reviews"] == 0
    both = done.results["both"]["calibrator_id"]
    made = watched.at_hand().registry.calibrator("handwriting", both)
    assert made["kind"] == "both" and made["reviews"] == made["recipe_id"] != made["reviewed"]["recipe_id"]
    night = watched.job("score", calibrator=both)
    assert night.counts["scores"] == 12 + 4 and night.counts["engines"] == 0
    scores = {row["video_id"]: row for row in watched.rows("scores") if row["scorer_id"] == night.versions["scorer_id"]}
    assert {row["rollouts"] for row in scores.values()} == {2 * K}
    (lost,) = {row["video_id"] for row in reviews(watched) if row["status"] == "decode_error"}
    decided = {
        row["video_id"]: row for row in watched.rows("decisions") if row["scorer_id"] == night.versions["scorer_id"]
    }
    assert set(decided) == set(scores) and scores[lost]["rollouts_ok"] <= K


def test_a_reviewer_that_was_cut_is_told_before_any_engine_starts_and_mended_by_its_training(watched, clip_factory):
    manifest = watched.at_hand().registry.calibrator("handwriting", watched.run.results["vlm"]["calibrator_id"])
    weights = Path(manifest["model_path"]) / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    before = len(watched.rows("traces"))
    with pytest.raises(UsageError, match="expected the model"):
        watched.job("nightly", source=str(clip_factory("dev", 2)))
    assert len(watched.rows("traces")) == before  # no rollout was made for nothing
    watched.job("calibrate", out=watched.out)
    assert weights.read_bytes() == whole
    assert watched.job("nightly").counts["videos_scored"] == 2


def test_it_can_learn_adapters_alone(watched):
    lora = "calibrate.vlm.lora={rank: 2, alpha: 4}"
    done = watched.job("calibrate", lora, out=watched.root.parent / "adapted")
    manifest = watched.at_hand().registry.calibrator("handwriting", done.results["vlm"]["calibrator_id"])
    model = watched.at_hand().models.manifest("handwriting", manifest["recipe"]["model"])
    assert model["settings"]["calibrate.vlm.lora"] == '{"alpha": 4, "rank": 2}'
    # Other weights than those that were trained whole, so other reviews, one of each trace of the same fold.
    assert done.counts["reviews"] == watched.run.counts["reviews"] > 0
    assert done.results["vlm"]["calibrator_id"] != watched.run.results["vlm"]["calibrator_id"]
