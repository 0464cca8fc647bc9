"""Tasks whose labels are independent, and labels with too few examples: from labels and traces to figures. No model runs."""

from __future__ import annotations

import math
import random

import pytest
import synthetic
from support import Lake
from synthetic import land, video_id, videos

from jobs.runtime.errors import UsageError
from jobs.steps import recipes
from lake.audit import audit
from lake.log import all_files
from lake.table import open_table
from schemas.label_set import LabelSet
from schemas.tables import BY_NAME

pytestmark = pytest.mark.timeout(1200)
SLUGS = ("hate", "nudity", "violence")
K = 2


def site(folder, mode: str) -> str:
    """A site's file whose task has three labels of a mode."""
    return synthetic.site(folder, "policies", SLUGS, mode, settings=f"rollout: {{n: {K}}}\n")


def trace(name: str, recipe_id: str, index: int, probs: dict[str, float], labels: list[str] | None, **changes) -> dict:
    return synthetic.trace(name, "policies", recipe_id, index, probs, labels=labels, **changes)


def seen(truth: tuple[str, ...], rng: random.Random) -> tuple[dict[str, float], list[str]]:
    """What a trace makes of a video: too sure of itself, and wrong about a label in one of eight cases."""
    probs = {}
    for slug in SLUGS:
        applies = (slug in truth) != (rng.random() < 0.125)
        probs[slug] = rng.uniform(0.9, 0.99) if applies else rng.uniform(0.01, 0.1)
    return probs, [slug for slug, p in probs.items() if p > 0.5]


@pytest.fixture(scope="module")
def night(spark, tmp_path_factory):
    """A lake with an independent task from labels to figures; `truth` holds what its labels file says."""
    folder = tmp_path_factory.mktemp("independent")
    lake = Lake(folder / "lake", conf=site(folder, "independent"))
    rng, names = random.Random(0), [f"v{number:03}" for number in range(160)]
    lake.truth = {name: tuple(slug for slug in SLUGS if rng.random() < 0.4) for name in names}
    land(lake, **videos([*names, "failed"]))
    parts = {name: "calibrate" if number < 110 else "test" for number, name in enumerate(names)}
    lines = ["file,label,split"]
    for number, (name, labels) in enumerate(lake.truth.items()):
        if number % 3 == 0 and len(labels) > 1:  # a row a label
            lines += [f"{name},{label},{parts[name]}" for label in reversed(labels)]
        else:
            cell = "none" if not labels else f'"{";,|"[number % 3].join(labels)}"'
            lines.append(f"{name},{cell},{parts[name]}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    lake.rows_in_file = len(lines) - 1
    lake.runs = {"labels": lake.job("ingest", labels=str(folder / "labels.csv"))}
    recipe = recipes.of_settings(lake.settings())
    drawn = {name: [seen(labels, rng) for _ in range(K)] for name, labels in lake.truth.items()}
    traces = [trace(name, recipe.id, index, *said) for name, all in drawn.items() for index, said in enumerate(all)]
    nothing = {"status": "parse_error", "label_logprobs": None}
    traces += [trace("failed", recipe.id, index, {}, None, **nothing) for index in range(K)]
    greedy = [trace(name, recipes.greedy(recipe).id, 0, *all[0]) for name, all in drawn.items()]
    land(lake, traces=[*traces, *greedy])
    lake.drawn = drawn
    for job in ("calibrate", "promote"):
        lake.runs[job] = lake.job(job)
    live = lake.runs["calibrate"].versions["calibrator_id"]
    trained = lake.runs["calibrate"].results
    lake.runs["calibrate"].kind = next(kind for kind, of in trained.items() if of["calibrator_id"] == live)
    lake.runs["score"] = lake.job("score", "decide.threshold=0.8", calibrator=live)
    lake.runs["evaluate"] = lake.job("evaluate")
    return lake


def test_rows_of_one_video_are_united_and_none_is_an_answer(night):
    found = {row["video_id"]: (row["label"], tuple(row["labels"])) for row in night.rows("labels")}
    assert found == {video_id(name): (None, labels) for name, labels in night.truth.items()}
    counts = night.runs["labels"].counts
    assert counts["label_rows"] == counts["splits_new"] == 160
    assert counts["labels_united"] == night.rows_in_file - 160 > 0
    assert night.rows("quarantine") == []


def test_the_probabilities_of_independent_labels_sum_to_nothing_in_particular(night):
    scores = {row["video_id"]: dict(row["probs"]) for row in night.rows("scores")}
    assert len(scores) == 161 and all(set(probs) == set(SLUGS) for probs in scores.values())
    assert all(0 <= p <= 1 for probs in scores.values() for p in probs.values())
    sums = [sum(probs.values()) for probs in scores.values()]
    assert min(sums) < 0.5 and max(sums) > 2


def test_a_decision_gives_the_labels_that_apply_or_leaves_the_video_to_people(night):
    rule = night.runs["score"].versions["rule_id"]
    scores = {row["video_id"]: dict(row["probs"]) for row in night.rows("scores")}
    decisions = {row["video_id"]: row for row in night.rows("decisions") if row["rule_id"] == rule}
    assert decisions.keys() == scores.keys()
    kinds = set()
    for key, row in decisions.items():
        sides = [max(p, 1 - p) for p in scores[key].values()]
        assert row["label"] is None and row["top_prob"] == pytest.approx(min(sides))
        if key == video_id("failed"):
            assert (row["abstain"], row["reason"], row["labels"]) == (True, "no_usable_trace", None)
            continue
        assert row["abstain"] == (min(sides) < 0.8)
        possible = [slug for slug in SLUGS if scores[key][slug] > 0.2]
        assert sorted(row["prediction_set"]) == possible
        assert row["labels"] == (None if row["abstain"] else possible)
        kinds.add((row["abstain"], len(possible)))
    assert {(False, 0), (False, 1), (False, 2)} < kinds and any(abstain for abstain, _ in kinds)


def test_figures_of_independent_labels_are_those_of_their_pairs(night):
    """The greedy ones against sums by hand over (video, label)."""
    found = {
        method: {name: figure["value"] for name, figure in figures.items()}
        for method, figures in night.runs["evaluate"].results["methods"].items()
    }
    tested = [name for number, name in enumerate(night.truth) if number >= 110]
    assert night.runs["evaluate"].counts["videos"] == 50 and night.runs["evaluate"].counts["engines"] == 0
    pairs = [(slug, slug in night.truth[name], night.drawn[name][0][0][slug]) for name in tested for slug in SLUGS]
    right = sum((p > 0.5) == truth for _, truth, p in pairs) / len(pairs)
    nll = -sum(math.log(p if truth else 1 - p) for _, truth, p in pairs) / len(pairs)
    assert found["greedy"]["accuracy"] == pytest.approx(right) and found["greedy"]["nll"] == pytest.approx(nll)
    for slug in SLUGS:
        mine = [(truth, p > 0.5) for own, truth, p in pairs if own == slug]
        f1 = 2 * sum(t and s for t, s in mine) / (sum(t for t, _ in mine) + sum(s for _, s in mine))
        assert found["greedy"][f"f1/{slug}"] == pytest.approx(f1)
    assert found["greedy"]["macro_f1"] == pytest.approx(sum(found["greedy"][f"f1/{slug}"] for slug in SLUGS) / 3)
    # The traces are too sure of themselves; calibration is what mends that.
    live = next(iter(found))
    assert live == night.runs["calibrate"].kind and found[live]["nll"] < found["single"]["nll"]
    assert 0.8 < found["majority"]["accuracy"] <= 1


def test_the_lake_of_an_independent_task_keeps_its_contracts_and_shows_labels(night):
    lake = night.at_hand()
    for name in ("labels", "traces", "scores", "decisions"):
        table = BY_NAME[name]
        files = [file for file, _ in all_files(open_table(table, lake.root))]
        found = audit(lake.read_files(table, files), table.contract(LabelSet(SLUGS, "independent")), table.key)
        assert found.rows > 0 and not found.refused
    shown = [row.asDict() for row in lake.view("current_scores").collect()]
    assert len({row["video_id"] for row in shown}) == len(shown) > 0 and "labels" in shown[0]
    queue = [row["top_prob"] for row in lake.view("review_queue").collect()]
    assert queue == sorted(queue)


def test_a_calibrator_of_the_other_mode_is_refused_with_what_to_do(night):
    (night.root.parent / "exclusive").mkdir()
    other = Lake(night.root, conf=site(night.root.parent / "exclusive", "exclusive"))
    for job in ("promote", "evaluate"):
        with pytest.raises(
            UsageError, match=r"expected one of exclusive labels, .* found one of independent labels; cali"
        ):
            other.job(job)


def test_a_label_without_examples_is_believed_from_its_traces_and_said_aloud(spark, tmp_path, capfd):
    """Of the test videos, too, whose label no training video has."""
    lake = Lake(tmp_path / "lake", conf=site(tmp_path, "exclusive"))
    rng, names = random.Random(1), [f"v{number:03}" for number in range(40)]
    truth = {name: "hate" if number % 2 else "nudity" for number, name in enumerate(names)}
    land(lake, **videos([*names, "new"]))
    (tmp_path / "l.csv").write_text("file,label\n" + "".join(f"{name},{label}\n" for name, label in truth.items()))
    lake.job("ingest", labels=str(tmp_path / "l.csv"), split="calibrate")
    recipe = recipes.of_settings(lake.settings())
    rows = []
    for name, label in [*truth.items(), ("new", "violence")]:
        for index in range(K):
            said = label if name == "new" or rng.random() < 0.8 else rng.choice(SLUGS[:2])
            probs = {slug: 0.8 if slug == said else 0.1 for slug in SLUGS}
            rows.append(trace(name, recipe.id, index, probs, [said], label=said))
    land(lake, traces=rows)
    done = lake.job("calibrate")
    assert (done.counts["videos_train"], done.counts["clusters_train"]) == (40, 40)
    said = capfd.readouterr().err
    assert "fewer than 5 videos to train on with the label violence (0): there the calibrator mostly believes" in said
    for kind, of in done.results.items():
        lake.job("promote", calibrator=of["calibrator_id"], force=True)
        lake.job("score", calibrator=of["calibrator_id"])
        scorer = lake.at_hand().registry.live("policies")["scorer_id"]
        scores = {row["video_id"]: dict(row["probs"]) for row in lake.rows("scores") if row["scorer_id"] == scorer}
        new = scores[video_id("new")]
        assert max(new, key=new.get) == "violence" and new["violence"] > 0.5, (kind, new)
    assert lake.job("calibrate").versions["calibrator_id"] == done.versions["calibrator_id"]
