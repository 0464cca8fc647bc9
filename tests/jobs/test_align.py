"""Given clips of the split align and what the oracle teacher says of them, then align makes a model that engines load."""

from __future__ import annotations

import hashlib
from datetime import timedelta

import pytest
import torch
from safetensors.torch import load_file
from support import Lake
from synthetic import NOW, land, trace, video_id, videos

from jobs import align, demo_data
from jobs.runtime.errors import UsageError
from jobs.runtime.run import Run
from jobs.steps import teachers, training
from jobs.steps.inputs import NO_INPUT
from lake.models import Models
from models import identity
from models.handwriting import train
from models.identity import model_digest
from models.language.grammar import parse
from models.training import journal, petastorm_compat, petastorm_reader, reading
from models.training.trainer import FACTS, TrainSpec

FEW = TrainSpec(steps=2, learning_rate=1e-3, warmup=1)


@pytest.fixture(scope="module")
def taught(spark, tmp_path_factory):
    lake = Lake(tmp_path_factory.mktemp("align") / "lake", "align.steps=3", "align.batch=4")
    data = lake.root.parent / "data"
    demo_data.align(data, 9, seed=0)
    lake.teacher = data / "align-teacher.csv"
    whole = lake.teacher.read_text()
    rows = whole.splitlines()
    rows[1] = rows[1].replace("</answer>", "")
    lake.teacher.write_text("\n".join(rows) + "\n")
    lake.job("ingest", source=str(data / "align"), labels=str(data / "align" / "labels.csv"))
    lake.former = lake.job("teach", file=str(lake.teacher))
    lake.teacher.write_text(whole)  # somebody has corrected the file
    lake.newest = lake.job("teach", file=str(lake.teacher))
    lake.out = lake.root.parent / "aligned"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(align, "READING", FEW)
        patch.setattr(align, "SIGHT", FEW)
        patch.setattr(align, "BASE", FEW)
        patch.setattr(train, "BATCH", 2)
        patch.setattr(train, "SIGHT_BATCH", 2)
        patch.setattr(train, "READING_BATCH", 2)
        lake.run = lake.job("align", out=lake.out, seed=0)
    return lake


def lessons(lake: Lake, recipe_id: str | None = None, *overrides: str) -> dict[str, list[str]]:
    """What would be taught now: texts by video."""
    run = Run("tests", lake.settings(*overrides), quiet=True)
    found: dict[str, list[str]] = {}
    for row in align.taught(run, teachers.chosen(run, recipe_id)).collect():
        found.setdefault(row["video_id"], []).append(row["text"])
    run.drop_scratch()
    return found


def test_the_newest_traces_are_taught_and_named(taught):
    assert taught.newest.versions["teacher"] != taught.former.versions["teacher"]
    assert taught.run.versions["teacher"] == taught.newest.versions["teacher"]
    assert taught.run.counts["lessons"] == 9


def test_others_are_taught_where_they_are_named(taught):
    former = lessons(taught, taught.former.versions["teacher"])
    assert len(former) == 8 and former.items() < lessons(taught).items()
    with pytest.raises(UsageError, match=r"--traces 0123: expected the recipe of a teacher .* found [0-9a-f]{16}, "):
        lessons(taught, "0123")


def test_traces_that_were_read_otherwise_are_not_taught(taught):
    with pytest.raises(UsageError, match="with the grammar think_answer, found observation in"):
        lessons(taught, None, "rollout.grammar=think_answer")


def test_without_a_teacher_there_is_nothing_to_learn_from(lake):
    land(lake, **videos(["a"]))
    with pytest.raises(
        UsageError, match="expected teacher traces of the task handwriting, found none: `deepintuit teach`"
    ):
        lake.job("align", out=lake.root.parent / "out")


def test_what_is_taught_is_right_and_about_the_video_as_it_is_now(spark, lake):
    """Labels and texts may have changed since a teacher wrote; of videos without a label all that was kept is taught."""
    recipe = identity.teacher_recipe(
        teacher="t",
        source="files",
        labels=["rising", "falling", "mixed"],
        grammar="observation",
        version={"model": "m"},
    )
    recipe_id = identity.digest(recipe)
    names = ["right", "corrected", "unlabelled", "retitled", "untitled"]
    digests = {"retitled": hashlib.sha256(b"title: old").hexdigest()[:16]}
    good = {"label": "rising", "labels": ["rising"], "well_formed": True}
    said = [
        trace(name, "handwriting", recipe_id, 0, {}, **good, text=name)
        | {"input_digest": digests.get(name, NO_INPUT), "label_logprobs": None}
        for name in names
    ]
    said.append(said[0] | {"rollout_index": 1, "well_formed": False})
    about = {"task": "handwriting", "source": "s", "observed_at": NOW}
    land(
        lake,
        **videos(names),
        recipes=[
            {"recipe_id": recipe_id, "task": "handwriting", "json": identity.canonical(recipe), "created_at": NOW}
        ],
        splits=[
            {"video_id": video_id(name), "split": "align", "task": "handwriting", "assigned_at": NOW} for name in names
        ],
        labels=[
            {"video_id": video_id(name), "label": label, "labels": [label]} | about
            for name in names
            if name != "unlabelled"
            for label in ["falling" if name == "corrected" else "rising"]
        ],
        texts=[{"video_id": video_id("retitled"), "field": "title", "text": "old", "source": "s", "observed_at": NOW}],
        traces=said,
    )
    texts = "rollout.texts={title: 20}"
    expected = {video_id(name): [name] for name in ("right", "unlabelled", "untitled", "retitled")}
    assert lessons(lake, None, texts) == expected
    later = {"video_id": video_id("retitled"), "field": "title", "text": "new", "source": "s"}
    land(lake, texts=[later | {"observed_at": NOW + timedelta(days=1)}])
    assert lessons(lake, None, texts) == {id: of for id, of in expected.items() if of != ["retitled"]}


def test_both_phases_leave_their_losses(taught):
    losses = {
        (row["method"], row["name"], row["step"]) for row in taught.rows("metrics") if row["name"].endswith("loss")
    }
    assert {
        ("base", "reading/loss", 1),
        ("base", "sight/loss", 0),
        ("base", "saying/loss", 1),
        ("align", "loss", 2),
    } <= losses


def test_the_model_is_a_folder_with_a_digest_of_its_own(taught):
    assert model_digest(str(taught.out / "model")) != model_digest(str(taught.out / "base"))


def test_labels_alone_are_taught_without_any_trace(taught):
    out = taught.out.parent / "direct"
    done = taught.job("align", direct=True, start=str(taught.out / "base"), out=out, seed=0)
    assert done.counts["lessons"] == 9  # every labelled video, whatever a teacher says of it
    assert model_digest(str(out / "model")) not in {model_digest(str(taught.out / name)) for name in ("base", "model")}
    with pytest.raises(UsageError, match="--direct teaches no traces; leave --traces out"):
        taught.job("align", direct=True, traces="0123", start=str(taught.out / "base"), out=out)


def test_adapters_are_trained_where_they_are_set_and_served_as_plain_weights(taught):
    out, start = taught.out.parent / "adapted", taught.out / "base"
    done = taught.job("align", "align.lora={rank: 4, alpha: 8}", direct=True, start=str(start), out=out, seed=0)
    (parent, made) = (load_file(folder / "model.safetensors") for folder in (start, out / "model"))
    changed = {name for name in parent if not torch.equal(parent[name], made[name])}
    assert parent.keys() == made.keys() and changed and not any("visual" in name for name in changed)
    manifest = Models(str(taught.root)).manifest("handwriting", done.versions["model_id"])
    assert manifest["settings"]["align.lora"] == '{"alpha": 8, "rank": 4}'
    with pytest.raises(UsageError, match=r"align.lora: then '{.*}', now None"):
        taught.job("align", direct=True, start=str(start), out=out, seed=0)


def test_petastorm_teaches_the_same_bit_for_bit(taught, monkeypatch):
    """Two epochs of nine lessons; the facts are the same, too: a training may go on with the other reader."""
    read: list[int] = []
    batches = petastorm_compat.batches
    monkeypatch.setattr(petastorm_reader, "batches", lambda files: read.append(len(files)) or batches(files))
    learned = []
    for kind in ("arrow", "petastorm"):
        out, settings = taught.out.parent / kind, ("align.steps=5", "training.threads=1", f"training.reader={kind}")
        done = taught.job("align", *settings, start=str(taught.out / "base"), out=out, seed=0)
        figures = [figure for figure in journal.read(out / "figures.jsonl") if figure[0] != "seconds"]
        learned.append((done.versions["model_id"], figures, (out / "checkpoints" / FACTS).read_text()))
        assert len(read) == (2 if kind == "petastorm" else 0)
    assert learned[0] == learned[1] and len(learned[0][1]) == 5 * 4


def test_a_reader_that_cannot_be_had_or_loses_rows_ends_the_run_in_one_line(taught, monkeypatch, tmp_path):
    petastorm, start = "training.reader=petastorm", str(taught.out / "base")

    def damaged(lessons, materialise=training.materialise):
        next(materialise(lessons).iterdir()).unlink()

    monkeypatch.setattr(training, "materialise", damaged)
    with pytest.raises(
        UsageError, match="expected 9 rows by the footers of its files, found 0: the same command writes"
    ):
        taught.job("align", petastorm, start=start, out=tmp_path, seed=0)
    monkeypatch.setattr(reading, "PETASTORM", "0.14")
    with pytest.raises(
        UsageError, match=r"training.reader: expected petastorm 0.14, found .*petastorm.in` installs it"
    ):
        taught.job("align", petastorm, start=start, out=tmp_path, seed=0)


def test_a_folder_that_cannot_be_made_is_named(taught, tmp_path):
    (tmp_path / "file").touch()
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UsageError, match=f"--out {out}: expected a folder, or room for one, found neither: "):
            taught.job("align", direct=True, start=str(taught.out / "base"), out=out, seed=0)


def test_what_is_taught_without_traces_is_the_answer_as_a_grammar_reads_it(spark):
    videos = spark.createDataFrame([("a", "/a"), ("b", "/b"), ("c", "/c")], "video_id string, uri string")
    named = "video_id string, label string, labels array<string>"
    one = spark.createDataFrame([("a", "cat", ["cat"]), ("c", None, None)], named)
    assert [row["text"] for row in align.answers(videos, one, False).collect()] == ["<answer>cat</answer>"]
    some = spark.createDataFrame([("a", None, ["cat", "dog"]), ("b", None, []), ("c", None, None)], named)
    texts = {row["video_id"]: row["text"] for row in align.answers(videos, some, True).collect()}
    assert texts == {"a": "<answer>cat, dog</answer>", "b": "<answer>none</answer>"}
    for text, labels in zip(texts.values(), (("cat", "dog"), ()), strict=True):
        read = parse(text, "think_answer", ("cat", "dog"), "stop", several=True)
        assert (read.status, read.labels) == ("ok", labels)


def test_another_task_needs_a_model_to_begin_with(taught):
    with pytest.raises(UsageError, match="--start FOLDER"):
        align.base(type("Run", (), {"task": "multihateclip"})(), taught.out, 0)
