"""Given one lake over a whole night: history, rollouts, calibrate, promote, uploads, nightly, labels, evaluate.

The tests below read what the night left, most of them through delta-rs; then they run jobs again and look what did not
happen.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from datetime import UTC, datetime

import pytest
from support import PROJECT, Lake, last_json

from jobs.quality import lost
from jobs.runtime import cli
from lake.audit import audit
from lake.log import all_files
from lake.table import open_table
from models.engines.asking import seed_of
from schemas.facets import FACETS
from schemas.imports import IMPORTS
from schemas.inputs import INPUTS
from schemas.label_set import LabelSet
from schemas.rl_rollouts import RL_ROLLOUTS
from schemas.tables import TABLES
from schemas.texts import TEXTS

pytestmark = pytest.mark.timeout(2400)
LABELS = {"rising", "falling", "mixed"}


def test_every_listed_file_is_accounted_for(night):
    counts = night.runs["nightly"].counts
    assert counts["files_listed"] == 15
    assert (counts["videos_new"], counts["duplicates"], counts["quarantined"], counts["unchanged"]) == (12, 1, 2, 0)
    files = night.rows("files")
    assert len(files) == 36 + 15
    assert Counter(row["status"] for row in files) == {"ok": 49, "refused": 2}
    assert len(night.rows("videos")) == 48 == len({row["video_id"] for row in night.rows("videos")})


def test_refused_files_are_rows_of_quarantine_with_a_reason(night):
    refused = {row["row_key"].rpartition("/")[2]: row["reason"] for row in night.rows("quarantine")}
    assert refused == {"broken.mp4": "unreadable", "nothing.mp4": "empty_file"}


def test_every_video_has_its_traces_once(night):
    recipe_id = night.runs["rollout"].versions["recipe_id"]
    keys = [(row["video_id"], row["rollout_index"]) for row in night.rows("traces") if row["recipe_id"] == recipe_id]
    videos = {row["video_id"] for row in night.rows("videos")}
    assert Counter(keys) == Counter((video, index) for video in videos for index in range(4))


def test_a_dry_run_of_the_next_night_counts_what_is_new_and_leaves_nothing(night, clip_factory, tmp_path, capsys):
    before = {path for path in night.root.rglob("*") if path.is_file()}
    shutil.copy(sorted(clip_factory("calibrate", 36).glob("*.mp4"))[0], tmp_path / "another.mp4")
    words = ["nightly", "--dry-run", "--conf", night.conf, "--set", f"lake.root={night.root}", "--device", "cpu"]
    capsys.readouterr()
    assert cli.main(words) == 0
    told = last_json(capsys.readouterr().out)
    assert told["rows"] == {"videos_pending": 0, "rollouts_pending": 0} and told["time"]["device_hours"] == 0
    assert cli.main([*words, "--source", str(tmp_path)]) == 0
    told = last_json(capsys.readouterr().out)
    assert told["rows"] == {"videos_pending": 0, "rollouts_pending": 0, "files_new_at_most": 1}
    assert told["tokens"]["generated_at_most"] == 4 * 64 and told["time"]["device_hours"] > 0
    assert {path for path in night.root.rglob("*") if path.is_file()} == before


def test_traces_keep_their_contract(night):
    for row in night.rows("traces"):
        assert row["status"] in ("ok", "parse_error", "too_long")
        assert (row["label"] in LABELS) == (row["status"] == "ok")
        assert row["logprob_sum"] <= 0 and row["tokens"] > 0 and row["engine"] == "vllm"
        if row["status"] == "ok":
            assert set(dict(row["label_logprobs"])) == LABELS


def test_siblings_differ_and_seeds_come_from_keys(night):
    rows = night.rows("traces")
    assert all(row["seed"] == seed_of(0, row["video_id"], row["rollout_index"]) for row in rows)
    texts: dict[str, set] = {}
    for row in rows:
        texts.setdefault(row["video_id"], set()).add(row["text"])
    assert max(len(found) for found in texts.values()) > 1


def test_videos_in_scope_are_scored_quarantined_or_deferred(night):
    counts = night.runs["nightly"].counts
    assert counts["videos_in_scope"] == 48 == counts["videos_scored"]
    assert counts["videos_quarantined"] == counts["videos_deferred"] == 0
    scores = night.rows("scores")
    assert len(scores) == 48
    for row in scores:
        probs = dict(row["probs"])
        assert set(probs) == LABELS and sum(probs.values()) == pytest.approx(1, abs=1e-9)


def test_decisions_follow_their_rule(night):
    threshold = night.settings().decide.threshold
    decisions = night.rows("decisions")
    assert len(decisions) == 48
    for row in decisions:
        assert row["abstain"] == (row["label"] is None) == (row["reason"] != "clear")
        assert row["reason"] != "clear" or row["top_prob"] >= threshold


def test_evaluate_measures_every_method_with_intervals(night):
    results = night.runs["evaluate"].results["methods"]
    live, *others = results
    simple = ["greedy", "single", "majority"]
    methods = [*simple, *(f"{name} (tempered)" for name in simple)]
    assert live in ("vote", "linear") and others[: len(methods)] == methods
    seen = {name: results[name] for name in others[len(methods) :]}
    blinded = [f"greedy, {what}" for what in ("shuffled frames", "one frame", "no frames")]
    assert [*seen][-3:] == blinded and all(figures.keys() == {"accuracy", "answered"} for figures in seen.values())
    assert all(0 <= figures["accuracy"]["value"] <= figures["answered"]["value"] <= 1 for figures in seen.values())
    assert not {*blinded} & night.runs["evaluate"].results["differences"].keys()
    for figures in (results[name] for name in (live, *methods)):
        for name in ("accuracy", "nll", "brier", "aurc"):
            figure = figures[name]
            assert 0 <= figure["low"] <= figure["high"] and figure["value"] >= 0, (name, figure)
        assert figures["ece"]["value"] >= 0 and figures["ece"]["low"] is None
    run_id = night.runs["evaluate"].run_id
    rows = [row for row in night.rows("metrics") if row["run_id"] == run_id and row["slice"] == "all"]
    stored = {
        (row["method"], row["name"]): (row["value"], row["low"], row["high"]) for row in rows if row["minus"] == ""
    }
    assert stored[live, "nll"] == tuple(results[live]["nll"].values())


def test_every_wave_was_checked(night):
    waves = {row["wave_id"] for name in ("videos", "traces", "scores", "decisions") for row in night.rows(name)}
    checked = {row["wave_id"] for row in night.rows("quality")}
    assert waves <= checked
    assert all(row["success"] for row in night.rows("quality") if row["table"] in ("traces", "scores", "decisions"))


def test_every_row_refers_to_rows_that_are_there(night):
    assert lost(night.at_hand(), days=10) == []


def test_nothing_is_left_in_staging(night):
    assert list((night.root / "staging").iterdir()) == []


def test_every_run_ends_with_a_row(night):
    events: dict[str, set] = {}
    for row in night.rows("runs"):
        events.setdefault(row["run_id"], set()).add(row["event"])
    assert all("started" in found and "finished" in found for found in events.values())


def test_a_second_nightly_constructs_no_engine(night):
    again = night.job("nightly", source=str(night.uploads))
    assert again.counts["engines"] == 0 and again.counts["rollouts"] == 0
    assert again.counts["unchanged"] == 15 and again.counts["videos_in_scope"] == 0


def test_no_work_begins_after_the_deadline(night):
    before = len(night.rows("traces")), len(night.rows("scores"))
    past = datetime.now(UTC)
    rolled = night.job("rollout", "rollout.n=8", split="test", ends_at=past)
    assert rolled.deferred and rolled.counts["rollouts_pending"] > rolled.counts["engines"] == 0
    candidate = night.job("calibrate", "calibrate.l2=0.7").results["linear"]["calibrator_id"]
    scored = night.job("score", calibrator=candidate, ends_at=past)
    assert scored.deferred and scored.counts["scores"] == 0
    assert (len(night.rows("traces")), len(night.rows("scores"))) == before


def test_a_new_calibrator_costs_no_rollout(night):
    before = len(night.rows("traces"))
    trained = night.job("calibrate", "calibrate.l2=0.5").results["linear"]["calibrator_id"]
    assert trained not in {of["calibrator_id"] for of in night.runs["calibrate"].results.values()}
    scored = night.job("score", calibrator=trained)
    assert scored.counts["scores"] == 48 and scored.counts["engines"] == scored.counts["rollouts"] == 0
    assert len(night.rows("traces")) == before


def test_another_threshold_costs_no_model_pass(night):
    scored = night.job("score", "decide.threshold=0.95")
    assert scored.counts["decisions"] == 48
    assert scored.counts["scores"] == scored.counts["engines"] == scored.counts["rollouts"] == 0


def test_a_new_threshold_decides_the_archive_anew_by_backfill_alone(night):
    live, shown = night.runs["promote"].versions, night.at_hand().view("current_scores")
    other = night.job("promote", "decide.threshold=0.9", calibrator=live["calibrator_id"]).versions
    assert other["scorer_id"] == live["scorer_id"] and other["rule_id"] != live["rule_id"]
    try:
        quiet = night.job("nightly")
        assert quiet.counts["videos_in_scope"] == 0 and "decisions" not in quiet.counts
        assert {row["rule_id"] for row in shown.collect()} == {live["rule_id"]}  # what was live before is still shown
        asked = night.job("backfill")
        assert (asked.counts["estimated_videos"], asked.counts["estimated_scores"]) == (48, 0)
        done = night.job("backfill", yes=True)
        assert done.counts["decisions"] == 48 and done.counts["engines"] == done.counts["rollouts"] == 0
        assert {row["rule_id"] for row in night.at_hand().view("current_scores").collect()} == {other["rule_id"]}
    finally:
        night.job("promote", calibrator=live["calibrator_id"])


def test_scores_and_decisions_are_made_beside_the_rollouts(night):
    """Every wave of rollouts is followed by its scores; none waits for the last one."""
    run_id = night.runs["nightly"].run_id
    events = [row for row in night.rows("runs") if row["run_id"] == run_id and row["event"].startswith("wave")]
    kinds = [
        next(
            name
            for name in ("rollouts", "scores_landed", "files_landed", "decisions_landed")
            if name in dict(row["counts"])
        )
        for row in sorted(events, key=lambda row: row["event"])
    ]
    assert kinds[0] == "files_landed" and kinds[1] == "rollouts" and kinds[2] == "scores_landed"


def test_more_rollouts_add_exactly_the_missing(night):
    recipe_id = night.runs["rollout"].versions["recipe_id"]
    before = {(r["video_id"], r["rollout_index"]): r for r in night.rows("traces") if r["recipe_id"] == recipe_id}
    more = night.job("rollout", "rollout.n=8", split="test")
    assert more.versions["recipe_id"] == recipe_id
    assert more.counts["rollouts"] == 12 * 4
    after = {(r["video_id"], r["rollout_index"]): r for r in night.rows("traces") if r["recipe_id"] == recipe_id}
    added = Counter(video for video, index in after.keys() - before.keys())
    assert set(added.values()) == {4} and len(added) == 12
    assert all(after[key] == before[key] for key in before)
    assert {index for _, index in after.keys() - before.keys()} == {4, 5, 6, 7}


def test_training_the_calibrator_again_gives_the_same_one(night):
    assert night.job("calibrate").versions["calibrator_id"] == night.runs["calibrate"].versions["calibrator_id"]


def test_the_ten_queries_answer(night, spark):
    night.at_hand().register_views()
    text = (PROJECT / "docs" / "queries.sql").read_text()
    queries = [part.strip() for part in text.split(";") if part.strip()]
    assert len(queries) == 10
    for query in queries:
        assert spark.sql(query).collect(), query


def test_delta_rs_and_spark_read_the_same(night):
    lake = night.at_hand()
    for table in TABLES:
        rows = night.table(table.name)
        assert rows.num_rows == lake.read(table).count(), table.name
        assert set(rows.column_names) == {column.name for column in table.columns}


def test_every_table_keeps_its_contract(night):
    lake = night.at_hand()
    for table in TABLES:
        names = [name for name, _ in all_files(open_table(table, lake.root))]
        if not names:
            # nothing came in words, no fact beside the labels, nothing of another system; and a night learns nothing
            assert table in (TEXTS, INPUTS, FACETS, IMPORTS, RL_ROLLOUTS)
            continue
        found = audit(lake.read_files(table, names), table.contract(LabelSet(tuple(sorted(LABELS)))), table.key)
        assert not found.refused, (table.name, [r for r in found.results if not r["success"]])


# Two nightly drivers at once on a copy of that lake, new videos arriving between their starts.


def start(lake: Lake, source) -> subprocess.Popen:
    command = [sys.executable, str(PROJECT / "tests/jobs/rival.py"), str(lake.root), str(source)]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=PROJECT, env=environment, stdout=pipe, stderr=subprocess.DEVNULL, text=True)


@pytest.fixture(scope="module")
def raced(night, clip_factory, tmp_path_factory):
    """The night's lake after two rivals; `counts` holds what each of them counted."""
    lake = Lake(tmp_path_factory.mktemp("race") / "lake")
    shutil.copytree(night.root, lake.root)
    arriving = sorted(clip_factory("refine", 8).glob("*.mp4"))
    source = lake.root.parent / "arriving"
    source.mkdir()
    for clip in arriving[:5]:
        shutil.copy2(clip, source)
    first = start(lake, source)
    assert first.stdout.readline().strip() == "READY"
    for clip in arriving[5:]:
        shutil.copy2(clip, source)
    second = start(lake, source)
    outputs = [rival.communicate(timeout=400)[0] for rival in (first, second)]
    assert [first.returncode, second.returncode] == [0, 0], outputs
    lake.counts = [json.loads(output.strip().splitlines()[-1]) for output in outputs]
    lake.arrived = {path.name for path in arriving}
    return lake


def test_the_rivals_met(raced):
    assert sum(counts.get("collisions", 0) for counts in raced.counts) > 0


def test_no_video_is_lost_or_doubled(raced):
    videos = raced.rows("videos")
    assert Counter(row["video_id"] for row in videos).most_common(1)[0][1] == 1
    assert raced.arrived <= {row["uri"].rpartition("/")[2] for row in videos}
    files = Counter((row["uri"], row["etag"]) for row in raced.rows("files"))
    assert set(files.values()) == {1}


def test_every_rollout_is_there_once(raced, night):
    recipe_id = night.runs["rollout"].versions["recipe_id"]
    new = {row["video_id"] for row in raced.rows("videos")} - {row["video_id"] for row in night.rows("videos")}
    assert len(new) == 8
    found = Counter(
        (row["video_id"], row["rollout_index"])
        for row in raced.rows("traces")
        if row["video_id"] in new and row["recipe_id"] == recipe_id
    )
    assert found == Counter((video, index) for video in new for index in range(4))


def test_every_video_has_one_live_score_and_decision(raced, night):
    live = night.runs["promote"].versions
    videos = {row["video_id"] for row in raced.rows("videos")}
    scores = Counter(row["video_id"] for row in raced.rows("scores") if row["scorer_id"] == live["scorer_id"])
    assert scores == Counter(videos)
    decisions = Counter(
        row["video_id"]
        for row in raced.rows("decisions")
        if (row["scorer_id"], row["rule_id"]) == (live["scorer_id"], live["rule_id"])
    )
    assert decisions == Counter(videos)


def test_each_rival_accounts_for_its_files(raced):
    for counts in raced.counts:
        parts = ("unchanged", "duplicates", "videos_new", "quarantined", "deferred")
        assert counts["files_listed"] == sum(counts[name] for name in parts)
