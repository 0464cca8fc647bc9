"""Given labelled clips of the split refine, then refine makes a model for rollouts, the same one wherever it is killed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
from support import PROJECT, Lake, deepintuit, last_json

import models.handwriting
from jobs import demo_data
from jobs import refine as refine_job
from jobs.runtime.errors import UsageError
from jobs.runtime.run import Run
from jobs.steps import training
from models.identity import model_digest
from models.training import journal

START = Path(models.handwriting.__file__).parent / "checkpoint"
SETTINGS = (
    "training.threads=1",
    "training.checkpoint_every=2",
    "refine.steps=5",
    "refine.groups=3",
    "refine.rollouts=4",
    "refine.refills=1",
    "refine.micro_batch=8",
    "rollout.max_tokens=48",
    "engine.kv_cache_mb=128",
)
STEPS, K = 5, 4
SOAK = pytest.mark.soak  # each is two trainings


@pytest.fixture(scope="module")
def lake(spark, tmp_path_factory):
    """Twelve labelled clips of the split refine."""
    made = Lake(tmp_path_factory.mktemp("refine") / "lake", *SETTINGS)
    folder = made.root.parent
    demo_data.refine(folder / "data", 12, seed=0)
    made.job("ingest", source=str(folder / "data" / "refine"), labels=str(folder / "data" / "refine" / "labels.csv"))
    return made


@pytest.fixture(scope="module")
def refined(lake):
    lake.out = lake.root.parent / "out"
    lake.run = refine(lake, lake.out)
    return lake


def refine(lake, out: Path, *overrides: str) -> dict:
    """The job in a process of its own, as a scheduler runs it; what it says of itself last."""
    settings = [word for name in (*SETTINGS, f"lake.root={lake.root}", *overrides) for word in ("--set", name)]
    done = deepintuit("refine", "--conf", "conf/local.yaml", "--start", str(START), "--out", str(out), *settings)
    assert done.returncode == 0, done.stderr[-3000:]
    return last_json(done.stdout)


def weights(out: Path) -> dict[str, torch.Tensor]:
    """Of the last checkpoint, in float32."""
    newest = max(out.glob("checkpoints/step-*"))
    return torch.load(newest / "state.pt", weights_only=True)["model"]


def rounds(lake, out: Path) -> list[dict]:
    (training_id,) = json.loads((out / "training_ids.json").read_text()).values()
    return [row for row in lake.rows("rl_rollouts") if row["training_id"] == training_id]


def test_the_model_is_registered_by_name_and_can_be_served(refined):
    model_id = refined.run["versions"]["model_id"]
    models_ = refined.at_hand().models
    folder = Path(models_.find("handwriting", "refined"))
    assert model_digest(str(folder)) == model_id == model_digest(str(refined.out / "model")) != model_digest(str(START))
    manifest = models_.manifest("handwriting", model_id)
    assert manifest["parent"] == model_digest(str(START)) and manifest["videos"] == 12
    assert manifest["settings"]["refine.groups"] == 3 and manifest["tables"].keys() == {
        "videos",
        "labels",
        "splits",
        "texts",
    }
    assert models_.trained_on("handwriting", model_id) == sorted(row["video_id"] for row in refined.rows("videos"))
    done = refined.job("rollout", "model.path=refined", "rollout.n=1", max_videos=2)
    assert done.counts["traces"] == 2 and done.counts.get("status_ok") == 2
    recipe = next(row for row in refined.rows("recipes") if row["recipe_id"] == done.versions["recipe_id"])
    assert json.loads(recipe["json"])["model"] == model_id


def test_status_names_it_and_its_manifest_leads_to_its_rounds(refined, capsys):
    refined.job("status")
    model_id = json.loads(capsys.readouterr().out)["models"]["refined"]
    training_id = refined.at_hand().models.manifest("handwriting", model_id)["training_id"]
    assert {row["training_id"] for row in rounds(refined, refined.out)} == {training_id}


def test_every_round_is_in_its_table_once(refined):
    rows = rounds(refined, refined.out)
    keys = Counter((row["step"], row["video_id"], row["rollout_index"]) for row in rows)
    assert set(keys.values()) == {1}
    by_step = Counter(row["step"] for row in rows)
    assert set(by_step) == set(range(STEPS)) and all(3 * K <= count <= 6 * K for count in by_step.values())
    truth = {row["video_id"]: row["labels"] for row in refined.rows("labels")}
    for row in rows:
        assert len(row["token_ids"]) == len(row["token_logprobs"]) > 0
        assert dict(row["rewards"])["accuracy"] == float(row["labels"] == truth[row["video_id"]])
    assert {row["run_id"] for row in rows} == {refined.run["run_id"]}


def test_figures_of_every_step_are_metrics(refined):
    rows = [row for row in refined.rows("metrics") if row["run_id"] == refined.run["run_id"]]
    steps = Counter(row["name"] for row in rows)
    shown = ("reward", "reward/accuracy", "success", "collapse", "consistency", "entropy", "length", "parsed", "cut")
    for name in (*shown, "rollouts", "groups", "rollout_tokens_per_second", "seconds"):
        assert steps[name] == STEPS, name
    assert {row["version"] for row in rows} == {refined.run["versions"]["model_id"]}


@pytest.mark.parametrize(
    "point", ["saving", *(pytest.param(p, marks=SOAK) for p in ("drawing", "learning", "exporting"))]
)
def test_killed_at_any_point_it_ends_with_the_same_weights_bit_for_bit(refined, point, tmp_path):
    out = tmp_path / "out"
    doom(refined, out, point)
    drawn = {row["step"]: row["run_id"] for row in rounds(refined, out)}
    assert set(drawn) == set(range({"drawing": 3, "learning": 4, "saving": 4, "exporting": 5}[point]))
    again = refine(refined, out)
    whole, mended = weights(refined.out), weights(out)
    assert whole.keys() == mended.keys() and all(torch.equal(whole[name], mended[name]) for name in whole)
    assert again["versions"]["model_id"] == refined.run["versions"]["model_id"]
    now = {row["step"]: row["run_id"] for row in rounds(refined, out)}
    assert drawn.items() <= now.items() and set(now) == set(range(STEPS))  # what was published is read, not drawn again


@pytest.mark.parametrize("point", [pytest.param("registering", marks=SOAK), "naming"])
def test_killed_while_it_registers_the_next_run_registers_it_once_and_by_name(refined, point, tmp_path):
    rate = {"registering": 2e-4, "naming": 3e-4}[point]  # another model each
    out, short = tmp_path / "out", ("refine.steps=2", f"refine.learning_rate={rate}")
    doom(refined, out, point, *short)
    again = refine(refined, out, *short)
    model_id = again["versions"]["model_id"]
    assert refined.at_hand().models.aliases("handwriting")["refined"] == model_id
    assert model_digest(refined.at_hand().models.find("handwriting", model_id)) == model_id
    figures = Counter((row["name"], row["step"]) for row in refined.rows("metrics") if row["version"] == model_id)
    assert set(figures.values()) == {1} and ("reward", 0) in figures


def doom(lake, out: Path, point: str, *overrides: str) -> None:
    """Refine, and die at a point of it."""
    words = [str(lake.root), str(out), str(START), point, *SETTINGS, *overrides]
    doomed = subprocess.run(
        [sys.executable, str(PROJECT / "tests/jobs/doomed_refine.py"), *words],
        cwd=PROJECT,
        env={"PYTHONPATH": str(PROJECT), **os.environ},
        capture_output=True,
        timeout=600,
    )
    assert doomed.returncode == -9, doomed.stderr.decode()[-2000:]


@SOAK  # tests/models/training holds one process and two against each other
def test_two_processes_train_one_model_by_the_other_reader(refined, tmp_path):
    out = tmp_path / "out"
    refine(refined, out, "training.processes=2", "refine.steps=2", "training.reader=petastorm")
    rows = rounds(refined, out)
    assert {row["step"] for row in rows} == {0, 1}
    alone = {
        (row["video_id"], row["rollout_index"]): row["text"] for row in rounds(refined, refined.out) if row["step"] == 0
    }
    both = {(row["video_id"], row["rollout_index"]): row["text"] for row in rows if row["step"] == 0}
    assert both == alone  # the same videos, drawn by the same seeds, whoever draws them
    first = [
        {name: value for name, step, value in journal.read(folder / "figures.jsonl") if step == 0}
        for folder in (out, refined.out)
    ]
    for name in ("weight", "loss", "grad_norm"):  # and each learns from its part
        assert first[0][name] == pytest.approx(first[1][name], rel=1e-4, abs=1e-6), name
    assert first[0]["grad_norm"] > 0


def test_a_training_that_is_done_trains_nothing_and_registers_nothing_again(refined):
    before, model = refined.at_hand().models.aliases("handwriting"), refined.out / "model" / "model.safetensors"
    rows, written = len(refined.rows("metrics")), model.stat().st_mtime_ns
    again = refined.job("refine", start=str(START), out=refined.out)
    assert again.versions["model_id"] == refined.run["versions"]["model_id"]
    assert refined.at_hand().models.aliases("handwriting") == before
    assert len(refined.rows("metrics")) == rows and model.stat().st_mtime_ns == written


def test_other_settings_before_the_first_checkpoint_are_another_training(refined, tmp_path):
    """Whose rounds are not read as its own."""
    run = Run("tests", refined.settings())
    other = Run("tests", refined.settings())
    run.record.run_id, other.record.run_id = "first", "second"
    ids = [
        training.training_id(which, tmp_path, {"refine.tau": tau})
        for which, tau in ((run, 0.5), (other, 0.7), (other, 0.5))
    ]
    assert ids == ["first", "second", "first"]


def test_lessons_have_the_texts_that_rollouts_read_and_no_label_that_was_given_up(refined, tmp_path):
    videos = sorted(Path(refined.root.parent / "data" / "refine").glob("*.mp4"))
    texts = tmp_path / "texts.csv"
    texts.write_text(f"file,title\n{videos[0].name},four digits\n")
    refined.job("ingest", texts=str(texts))
    with Run("tests", refined.settings("rollout.texts={title: 50}")) as run:
        said = [row["said"] for row in refine_job.labelled(run).collect()]
        assert len(said) == 12 and sorted(filter(None, said)) == ["title: four digits"]
        run.labels = ("rising", "falling")
        assert 0 < len(refine_job.labelled(run).collect()) < 12


def test_going_on_with_other_settings_is_refused_by_name(refined):
    with pytest.raises(UsageError, match=r"refine.learning_rate: then 0.0001, now 0.1"):
        refined.job("refine", "refine.learning_rate=0.1", start=str(START), out=refined.out)


def test_videos_of_an_earlier_stage_are_refused_by_id(refined, tmp_path):
    with pytest.raises(
        UsageError, match=r"refine: expected videos that no earlier stage learned from, found 12 .*: \w{64}"
    ):
        refined.job("refine", start="refined", out=tmp_path / "out")
    assert not (tmp_path / "out" / "model").exists()


def nothing(judged):
    return float("nan")


def test_a_reward_that_is_no_number_ends_the_run_and_registers_nothing(refined, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    before = refined.at_hand().models.aliases("handwriting")
    with pytest.raises(UsageError, match=r"refine.rewards.test_refine:nothing: expected a finite number"):
        refined.job("refine", "refine.rewards={accuracy: 1, 'test_refine:nothing': 1}", start=str(START), out=tmp_path)
    with pytest.raises(UsageError, match=r"refine.rewards.acuracy: expected accuracy, "):
        refined.job("refine", "refine.rewards={acuracy: 1}", start=str(START), out=tmp_path)
    assert refined.at_hand().models.aliases("handwriting") == before


def test_observations_that_nothing_would_teach_to_see_are_told(refined, tmp_path):
    with pytest.raises(
        UsageError, match=r"refine.credit: expected a reward about what is seen, .* found accuracy, format"
    ):
        refined.job("refine", "refine.credit=segment", start=str(START), out=tmp_path)


def test_two_runs_do_not_train_in_one_folder(refined, tmp_path):
    first, second = Run("tests", refined.settings()), Run("tests", refined.settings())
    at_work = pytest.raises(UsageError, match=rf"--out .*out: run {first.record.run_id} is at work there")
    with training.made(first, tmp_path / "out"), at_work, training.made(second, tmp_path / "out"):
        pass
    with training.made(second, tmp_path / "out"):
        pass


def test_a_start_that_is_nowhere_is_named(lake, tmp_path):
    with pytest.raises(UsageError, match=r"--start nowhere: expected a folder .* registered: "):
        lake.job("refine", start="nowhere", out=tmp_path)


def test_without_labelled_videos_there_is_nothing_to_learn(spark, tmp_path):
    empty = Lake(tmp_path / "lake", *SETTINGS)
    demo_data.dev(tmp_path, 3, seed=0)
    empty.job("ingest", source=str(tmp_path / "dev"), labels=str(tmp_path / "dev" / "labels.csv"))
    with pytest.raises(UsageError, match="refine: no labelled video in the split refine"):
        empty.job("refine", start=str(START), out=tmp_path / "out")


def test_a_file_that_is_gone_costs_that_video(lake, tmp_path):
    """Between its ingestion and now: its frames are in no cache, and the rest goes on."""
    files = sorted(Path(lake.root.parent / "data" / "refine").glob("*.mp4"))[:2]
    for path in files:
        shutil.move(path, tmp_path / path.name)
    try:
        done = lake.job("refine", "refine.steps=1", "refine.groups=12", start=str(START), out=tmp_path / "out")
    finally:
        for path in files:
            shutil.move(tmp_path / path.name, path)
    assert done.results["refine"]["last"]["rollouts"] == 10 * K
    assert len({row["video_id"] for row in rounds(lake, tmp_path / "out")}) == 10


def test_the_registry_has_no_half_of_a_model(lake, tmp_path, monkeypatch):
    from lake import storage
    from lake.models import Models

    local = tmp_path / "model"
    shutil.copytree(START, local)
    own = model_digest(str(local))
    models_ = Models(str(tmp_path / "lake"))
    put, manifest = storage.put, {"model_id": "m", "parent": "p", "stage": "align", "created_at": "2026"}

    def full(path, uri):
        if uri.endswith("model.safetensors"):
            raise storage.StoreError("the disk is full")
        put(path, uri)

    monkeypatch.setattr(storage, "put", full)
    with pytest.raises(storage.StoreError, match="the disk is full"):
        models_.save("t", local, manifest, ["a"], "aligned")
    assert models_.find("t", "aligned") is None and models_.find("t", "m") is None and models_.aliases("t") == {}
    monkeypatch.setattr(storage, "put", put)
    models_.save("t", local, manifest, ["a"], "aligned")
    assert model_digest(models_.find("t", "aligned")) == own


def test_a_model_that_was_cut_after_its_training_is_not_registered(refined):
    out = refined.root.parent / "cut"
    shutil.copytree(refined.out, out)
    weights_file = out / "model" / "model.safetensors"
    weights_file.write_bytes(weights_file.read_bytes()[:100_000])
    run = Run("tests", refined.settings(), quiet=True)
    before = refined.at_hand().models.aliases("handwriting")
    with pytest.raises(
        UsageError, match=r"found a file that cannot be read .*: delete .*, and the same command writes it"
    ):
        training.register(run, out, "refine", "refined", START, None, {}, {})
    run.drop_scratch()
    assert refined.at_hand().models.aliases("handwriting") == before


def test_a_training_that_no_reward_told_anything_gets_no_name(refined):
    before = refined.at_hand().models.aliases("handwriting")
    told = ("refine.rewards={format: 0.0}", "refine.steps=1", "refine.refills=0")
    with pytest.raises(UsageError, match=r"refine: learned nothing in .*none is registered"):
        refined.job("refine", *told, start=str(START), out=refined.root.parent / "nothing")
    assert refined.at_hand().models.aliases("handwriting") == before


def test_rollouts_by_a_name_that_is_nowhere_say_so(refined):
    words = ("rollout", "--conf", "conf/local.yaml", "--set", f"lake.root={refined.root}", "--model", "nowhere")
    done = deepintuit(*words)
    assert done.returncode == 2 and "model.path: model folder" in done.stderr and "nowhere" in done.stderr
    assert "or the name or id of a registered model" in done.stderr


def test_a_run_says_which_model_a_name_stands_for(refined):
    run = Run("tests", refined.settings("model.path=refined"))
    assert run.settings.model.path == refined.at_hand().models.find("handwriting", "refined")
    by_id = Run("tests", refined.settings(f"model.path={refined.run['versions']['model_id']}"))
    assert by_id.settings.model.path.endswith(refined.run["versions"]["model_id"])
