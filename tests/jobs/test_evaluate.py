"""Given labelled videos with planted traces, what calibrate, promote, evaluate and compare make of them. No model runs."""

from __future__ import annotations

import hashlib
import random

import pytest
from support import Lake
from synthetic import land, site, trace, video_id, videos

from jobs.runtime.errors import Doubted, UsageError
from jobs.steps import recipes
from lake.registry import RegistryError
from models.identity import canonical

pytestmark = pytest.mark.timeout(1200)
SLUGS, K = ("cat", "dog", "fox"), 4
SETTINGS = f"""
rollout: {{n: {K}}}
calibrate: {{kind: vote}}
ingest: {{labels: {{facets: {{kind: kind, who: writer, seen: seen}}}}}}
evaluate: {{slices: [kind], cluster: writer, observation: seen}}
"""
RULE = "rule: animals:label_argued\n"


def planted(rng: random.Random, truth: str, kind: str) -> tuple[str, dict[str, float]]:
    """What a trace says: right in 85 of 100, at night never; and always sure of itself."""
    said = truth if kind == "day" and rng.random() < 0.85 else rng.choice([slug for slug in SLUGS if slug != truth])
    return said, {slug: 0.96 if slug == said else 0.02 for slug in SLUGS}


def filled(folder, count: dict[str, int], seed: int = 0, task: str = "animals", more: str = "") -> Lake:
    """A lake with so many labelled videos a stage, five of a writer, one writer in nine at night, of the test in four."""
    lake = Lake(folder / "lake", conf=site(folder, task, SLUGS, more=more, settings=SETTINGS))
    rng, lines, traces = random.Random(seed), ["file,label,split,kind,who,seen"], []
    recipe = recipes.of_settings(lake.settings())
    names = [f"{stage}{number:04}" for stage, size in count.items() for number in range(size)]
    land(lake, **videos(names))
    lake.truth, lake.said, lake.kinds = {}, {}, {}
    for number, name in enumerate(names):
        truth, kind, sound = (
            SLUGS[number % 3],
            "night" if number // 5 % (4 if name.startswith("test") else 9) == 3 else "day",
            ("meow", "woof", "yip")[number % 3],
        )
        lines.append(f"{name},{truth},{name[:-4]},{kind},{name[:-4]}-w{number // 5},{sound}")
        lake.truth[name], lake.kinds[name] = truth, kind
        lake.said[name] = [planted(rng, truth, kind) for _ in range(K)]
        for index, (said, probs) in enumerate(lake.said[name]):
            seen = "woof" if index == 0 else sound  # the first one sees a dog, whatever is there
            parts = {"label": said, "labels": [said], "observation": seen, "think": seen, "text": "a b c a b c"}
            traces.append(trace(name, task, recipe.id, index, probs, **parts))
        said, probs = lake.said[name][0]
        traces.append(trace(name, task, recipes.greedy(recipe).id, 0, probs, label=said, labels=[said]))
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    lake.job("ingest", labels=str(folder / "labels.csv"))
    land(lake, traces=traces)
    return lake


@pytest.fixture(scope="module")
def judged(spark, tmp_path_factory):
    """A whole chain from labels to figures."""
    lake = filled(tmp_path_factory.mktemp("animals"), {"calibrate": 150, "test": 90}, more=RULE)
    lake.runs = {job: lake.job(job) for job in ("calibrate", "promote", "evaluate")}
    return lake


def test_facts_of_the_labels_file_are_in_the_lake(judged):
    facts = {(row["external_id"], row["name"]): row["value"] for row in judged.rows("facets")}
    assert len(facts) == 240 * 3 and facts["test0000", "writer"] == "test-w30"
    assert judged.runs["calibrate"].counts == {"videos_train": 150, "clusters_train": 30}


def test_each_method_is_there_once_as_it_is_and_once_tempered(judged):
    found = judged.runs["evaluate"].results
    names = ["greedy", "single", "majority"]
    assert list(found["methods"]) == ["vote", *names, *(f"{name} (tempered)" for name in names)]
    assert found["temperatures"].keys() == set(names) and min(found["temperatures"][name] for name in names[:2]) > 1
    for name in names:
        plain, tempered = found["methods"][name], found["methods"][f"{name} (tempered)"]
        assert tempered["nll"]["value"] < plain["nll"]["value"]
        assert tempered["accuracy"] == plain["accuracy"]
    # The calibrator is the tempered vote itself, so nothing is between them.
    nothing = dict.fromkeys(("value", "low", "high"), pytest.approx(0, abs=1e-12))
    assert found["differences"]["majority (tempered)"]["nll"] == nothing
    assert found["differences"]["single"]["nll"]["high"] < 0


def test_figures_are_those_of_the_planted_traces(judged):
    tested = [name for name in judged.truth if name.startswith("test")]
    right = [said == judged.truth[name] for name in tested for said, _ in judged.said[name]]
    figure = judged.runs["evaluate"].results["methods"]["single"]["accuracy"]
    assert figure["value"] == pytest.approx(sum(right) / len(right))
    assert figure["low"] < figure["value"] < figure["high"]
    assert judged.runs["evaluate"].counts["videos"] == 90 and judged.runs["evaluate"].counts["clusters"] == 18


def test_a_planted_error_is_found_in_its_slice(judged):
    slices = judged.runs["evaluate"].results["slices"]
    assert {part: of["videos"] for part, of in slices.items()} == {"kind=day": 65, "kind=night": 25}
    by_day, at_night = (slices[f"kind={kind}"]["methods"]["vote"]["accuracy"] for kind in ("day", "night"))
    assert at_night["value"] == 0 and at_night["high"] < 0.6 < by_day["low"]


def test_figures_with_their_intervals_are_rows_of_metrics(judged):
    run_id = judged.runs["evaluate"].run_id
    rows = {
        (r["method"], r["minus"], r["slice"], r["name"]): r for r in judged.rows("metrics") if r["run_id"] == run_id
    }
    whole = judged.runs["evaluate"].results["methods"]["vote"]["nll"]
    found = rows["vote", "", "all", "nll"]
    assert (found["value"], found["low"], found["high"], found["videos"]) == (*whole.values(), 90)
    assert rows["vote", "", "kind=night", "accuracy"]["videos"] == 25
    assert rows["vote", "single", "all", "nll"]["value"] < 0
    versions = {method: row["version"] for (method, *_), row in rows.items()}
    live = judged.runs["promote"].versions
    assert {row["split"] for row in rows.values()} == {"test"}
    assert (versions["vote"], versions["single"]) == (live["scorer_id"], live["recipe_id"])
    assert len(set(versions.values())) == 3 and None not in versions.values()


def test_what_evaluate_notes_of_itself_are_the_live_versions(judged):
    live = judged.runs["promote"].versions
    assert judged.runs["evaluate"].versions.items() >= live.items()
    linear = judged.job("calibrate", "calibrate.kind=linear").results["linear"]["calibrator_id"]
    assert judged.job("evaluate", calibrator=[linear]).versions.items() >= live.items()


def test_every_candidate_has_its_figures_in_metrics(judged):
    done = judged.job("calibrate", "calibrate.kind=linear")
    rows = [row for row in judged.rows("metrics") if row["run_id"] == done.run_id]
    found = {(row["method"], row["minus"]) for row in rows if row["name"] == "nll"}
    assert found == {("vote", ""), ("vote", "constant"), ("linear", ""), ("linear", "constant"), ("linear", "vote")}
    assert {row["version"] for row in rows} == {done.results[kind]["calibrator_id"] for kind in ("vote", "linear")}


def test_every_sampled_trace_is_judged_once(judged):
    rows = judged.rows("trace_quality")
    assert len(rows) == 90 * K == judged.runs["evaluate"].counts["traces_judged"]
    for row in rows:
        name = next(name for name in judged.truth if video_id(name) == row["video_id"])
        said = judged.said[name][row["rollout_index"]][0]
        sound = (
            "woof" if row["rollout_index"] == 0 else {"cat": "meow", "dog": "woof", "fox": "yip"}[judged.truth[name]]
        )
        argued = {"meow": "cat", "woof": "dog"}.get(sound)
        assert (row["judged_by"], row["think_label"], row["observation_label"]) == ("rule", argued, argued)
        assert row["follows_think"] == row["follows_observation"] == (None if argued is None else argued == said)
        assert row["observation_right"] == (row["rollout_index"] > 0 or judged.truth[name] == "dog")
        others = [other for index, (other, _) in enumerate(judged.said[name]) if index != row["rollout_index"]]
        assert row["sibling_disagreement"] == pytest.approx(sum(other != said for other in others) / (K - 1))
        tokens = 10 + row["rollout_index"]
        assert row["repetition"] == pytest.approx(1 / 4) and row["token_nll"] == pytest.approx(3 / tokens)
    again = judged.job("evaluate")
    assert "traces_judged" not in again.counts and again.counts["rollouts"] == 0
    summed = again.results["trace_quality"]
    assert summed["repetition"] == pytest.approx(1 / 4) and 0 < summed["observation_right"] < 1
    # What somebody else makes of the same traces is another row of them, and no part of these figures.
    unknown = {"judged_by": "nobody", "judge_id": "0" * 16, "think_label": None, "follows_think": None}
    others = [row | unknown | {"repetition": 1.0} for row in rows]
    land(judged, trace_quality=[row | {"observation_label": None, "follows_observation": None} for row in others])
    assert len(judged.rows("trace_quality")) == 2 * 90 * K
    assert judged.job("evaluate").results["trace_quality"] == summed


def test_other_splits_and_calibrators_can_be_looked_at(judged):
    linear = judged.job("calibrate", "calibrate.kind=linear").results["linear"]["calibrator_id"]
    found = judged.job("evaluate", split="calibrate", calibrator=[linear])
    assert list(found.results["methods"])[:2] == ["vote", "linear"] and found.counts["videos"] == 150
    with pytest.raises(UsageError, match="no labelled video in the split dev"):
        judged.job("evaluate", split="dev")
    with pytest.raises(RegistryError, match="has no calibrator 0123"):
        judged.job("evaluate", calibrator=["0123"])
    with pytest.raises(UsageError, match="--judge: the task animals has a rule of its own"):
        judged.job("evaluate", judge=True)


def test_what_is_known_of_a_calibrator_is_what_was_found_last(judged):
    """Given a calibrator of the same id, when it is told which videos belong together, then its gate looks at that."""
    found = {}
    for cluster in ("null", "writer"):
        done = judged.job("calibrate", f"evaluate.cluster={cluster}")
        manifest = judged.at_hand().registry.calibrator("animals", done.versions["calibrator_id"])
        found[cluster] = manifest["calibrator_id"], manifest["worth"]["minus_constant"]
        assert manifest["run_id"] == done.run_id
    (one, alone), (same, together) = found["null"], found["writer"]
    assert one == same
    assert together["high"] - together["low"] > alone["high"] - alone["low"]


def test_a_calibrator_of_other_labels_is_refused_before_anything_starts(judged, tmp_path):
    now = Lake(judged.root, conf=site(tmp_path, "animals", (*SLUGS[:2], "cow"), more=RULE, settings=SETTINGS))
    for job in ("promote", "evaluate", "nightly"):
        with pytest.raises(
            UsageError, match="the task is now without fox and with cow; roll out, calibrate and promote"
        ):
            now.job(job)


def test_what_traces_are_held_against_can_be_told_later(judged):
    """Given traces that were judged, when a setting says what there was to see, then they are judged by that, too."""
    blind = judged.job("evaluate", "evaluate.observation=null")
    assert blind.counts["traces_judged"] == 90 * K and "observation_right" not in blind.results["trace_quality"]
    assert "observation_right" in judged.job("evaluate").results["trace_quality"]


def test_small_samples_are_said_aloud(spark, tmp_path, capfd):
    lake = filled(tmp_path, {"calibrate": 60, "test": 10}, seed=1)
    lake.job("calibrate")
    lake.job("promote", force=True)
    from jobs.runtime import cli

    cli.perform("evaluate", lake.settings())
    said = capfd.readouterr().err
    assert "the videos are of 2 sources only: intervals of so few tell little" in said
    assert "with so few videos chance alone shows up to" in said
    assert "10 videos of 2 sources" in said
    cli.perform("evaluate", lake.settings("evaluate.cluster=null"))
    assert "10 videos: the accuracy of vote is known to +-0." in capfd.readouterr().err
    assert {row["judged_by"] for row in lake.rows("trace_quality")} == {"nobody"}


def test_what_does_not_beat_the_vote_is_not_promoted_in_silence(spark, tmp_path, capfd):
    """Given too few videos to learn more from than how traces vote, then the vote is the honest choice."""
    lake = filled(tmp_path, {"calibrate": 45}, seed=2)
    found = lake.job("calibrate", "calibrate.kind=linear", "calibrate.l2=0.0001")
    linear, vote = (found.results[kind] for kind in ("linear", "vote"))
    assert linear["minus_vote"]["high"] >= 0 and found.versions["calibrator_id"] == vote["calibrator_id"]
    lake.job("promote", force=True)  # the nominated one
    assert lake.at_hand().registry.live("animals")["calibrator_id"] == vote["calibrator_id"]
    # Another loser is newer than the vote, which is the same as before: it is not what promote takes.
    again = lake.job("calibrate", "calibrate.kind=linear", "calibrate.l2=0.0002")
    assert again.results["linear"]["calibrator_id"] != linear["calibrator_id"]
    assert lake.at_hand().registry.calibrator("animals")["calibrator_id"] == vote["calibrator_id"]
    lake.job("promote", calibrator=vote["calibrator_id"], force=True)
    with pytest.raises(Doubted, match=rf"{linear['calibrator_id']} \(linear\): not known to be better than "):
        lake.job("promote", calibrator=linear["calibrator_id"])
    assert lake.at_hand().registry.live("animals")["calibrator_id"] == vote["calibrator_id"]
    capfd.readouterr()
    lake.job("promote", calibrator=linear["calibrator_id"], force=True)
    assert "WARNING: promoted by --force: not known to be better" in capfd.readouterr().err
    assert lake.at_hand().registry.live("animals")["doubt"].startswith("not known to be better than ")
    for way_back in (vote, linear):  # what was live before needs no force
        lake.job("promote", calibrator=way_back["calibrator_id"])
        assert lake.at_hand().registry.live("animals")["calibrator_id"] == way_back["calibrator_id"]


def test_traces_that_say_nothing_of_the_labels_make_no_calibrator(spark, tmp_path, capfd):
    """Given labels that were shuffled, then not even the vote is promoted; traces without answers are said aloud."""
    lake = filled(tmp_path, {"calibrate": 120})
    rng = random.Random(3)
    labels = list(lake.truth.values())
    rng.shuffle(labels)
    rows = [f"{name},{label},day,w-{name},x" for name, label in zip(lake.truth, labels, strict=True)]
    (tmp_path / "shuffled.csv").write_text("file,label,kind,who,seen\n" + "\n".join(rows) + "\n")
    lake.job("ingest", labels=str(tmp_path / "shuffled.csv"))
    lake.job("calibrate")
    assert "not known to be better than saying of every video how often each label comes" in capfd.readouterr().err
    with pytest.raises(Doubted, match="not known to be better than a constant guess"):
        lake.job("promote")

    other = "rollout.salt=again"
    recipe = recipes.of_settings(lake.settings(other))
    nothing = {"status": "parse_error", "label_logprobs": None, "text": "hm"}
    traces = [trace(name, "animals", recipe.id, index, {}, **nothing) for name in lake.truth for index in range(K)]
    land(lake, traces=traces)
    lake.job("calibrate", other)
    said = capfd.readouterr().err
    assert "only 0% of the traces have a usable answer (parse_error 100%): look at them before anything else" in said


def test_two_recipes_are_held_against_each_other_on_the_videos_that_both_know(judged):
    """Given a second recipe that is right about every cat, then it is told how many it mended, broke, and what it cost."""
    other = recipes.of_settings(judged.settings("rollout.salt=other"))
    tested = [name for name in judged.truth if name.startswith("test")][:-6]
    traces = []
    for name in tested:
        for index, (said, _) in enumerate(judged.said[name]):
            told = "cat" if judged.truth[name] == "cat" else said
            probs = {slug: 0.9 if slug == told else 0.05 for slug in SLUGS}
            traces.append(trace(name, "animals", other.id, index, probs, label=told, labels=[told], tokens=50))
    land(
        judged,
        traces=traces,
        recipes=[{"recipe_id": other.id, "task": "animals", "json": "{}", "created_at": None}],
    )
    mine = recipes.of_settings(judged.settings())
    land(judged, recipes=[{"recipe_id": mine.id, "task": "animals", "json": "{}", "created_at": None}])
    found = judged.job("compare", a=mine.id, b=other.id)
    assert (found.counts["videos_labelled"], found.counts["videos"]) == (90, 84)
    assert list(found.results["methods"]) == [other.id, mine.id]
    gain = found.results["differences"][mine.id]["accuracy"]
    cats = [name for name in tested if judged.truth[name] == "cat"]
    assert gain["value"] > 0 <= gain["low"] and found.results["flips"]["broken"] == []
    mended = {name for name in cats if video_id(name) in found.results["flips"]["mended"]}
    assert gain["value"] == pytest.approx(len(mended) / 84) and len(mended) == len(found.results["flips"]["mended"])
    assert found.results["costs"][other.id]["tokens_per_video"] == pytest.approx(50 * K)
    assert found.results["costs"][mine.id]["tokens_per_video"] == pytest.approx(sum(range(10, 10 + K)))
    linear = judged.job("calibrate", "calibrate.kind=linear").results["linear"]["calibrator_id"]
    judged.job("evaluate", calibrator=[linear])
    scorers = {row["scorer_id"] for row in judged.rows("scorers")}
    a, b = sorted(scorers)[:2]
    two = judged.job("compare", a=a, b=b)
    assert list(two.results["methods"]) == [b, a] and two.counts["videos"] == 90
    with pytest.raises(UsageError, match="expected two recipes or two scorers, found a recipe"):
        judged.job("compare", a=mine.id, b=a)
    with pytest.raises(UsageError, match=f"expected two different ids, found {a} twice"):
        judged.job("compare", a=a, b=a)
    with pytest.raises(RegistryError, match="no recipe and no scorer of task animals is called nobody"):
        judged.job("compare", a="nobody", b=a)


def test_a_recipe_that_takes_texts_is_held_against_one_that_does_not(spark, tmp_path):
    """Given titles beside half of the videos, then each side is found under the text that it read, of all videos."""
    lake = filled(tmp_path, {"test": 12})
    (tmp_path / "texts.csv").write_text("file,title\n" + "".join(f"test{n:04},Title {n}\n" for n in range(6)))
    lake.job("ingest", texts=str(tmp_path / "texts.csv"))
    plain, titled = (recipes.of_settings(lake.settings(*more)) for more in ((), ("rollout.texts={title: 40}",)))
    digests = {f"test{n:04}": hashlib.sha256(f"title: Title {n}".encode()).hexdigest()[:16] for n in range(6)}
    sure = dict.fromkeys(SLUGS, 1 / 3)
    traces = [
        trace(name, "animals", titled.id, index, sure, label=truth, labels=[truth], **digest)
        for name, truth in lake.truth.items()
        for digest in [{"input_digest": digests[name]} if name in digests else {}]
        for index in range(K)
    ]
    known = [
        {"recipe_id": recipe.id, "task": "animals", "json": canonical(recipe.json), "created_at": None}
        for recipe in (plain, titled)
    ]
    land(lake, traces=traces, recipes=known)
    found = lake.job("compare", a=plain.id, b=titled.id)
    assert (found.counts["videos_labelled"], found.counts["videos"]) == (12, 12)
    assert found.results["methods"][titled.id]["accuracy"]["value"] == 1
    assert found.results["costs"][titled.id]["tokens_per_video"] == pytest.approx(sum(range(10, 10 + K)))
