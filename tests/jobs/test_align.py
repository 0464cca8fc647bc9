"""Given clips of the split align and what the oracle teacher says of them, then align makes a model that engines load."""

from __future__ import annotations

import pytest
from support import Lake

from jobs import align, demo_data
from jobs.runtime.errors import UsageError
from models.handwriting import train
from models.identity import model_digest
from models.language.grammar import parse
from models.training.trainer import TrainSpec

FEW = TrainSpec(steps=2, learning_rate=1e-3, warmup=1)


@pytest.fixture(scope="module")
def taught(spark, tmp_path_factory):
    lake = Lake(tmp_path_factory.mktemp("align") / "lake", "align.steps=3", "align.batch=4")
    data = lake.root.parent / "data"
    demo_data.align(data, 9, seed=0)
    teacher = data / "align-teacher.csv"
    rows = teacher.read_text().splitlines()
    # one trace that never closes its answer, one that names another label, one of a file that is not there
    rows[1] = rows[1].replace("</answer>", "")
    wrong = "falling" if "rising</answer>" in rows[2] else "rising"
    rows[2] = rows[2].rpartition("<answer>")[0] + f"<answer>{wrong}</answer>"
    rows.append("no-such-file.mp4,<observation>1</observation><think>x</think><answer>mixed</answer>")
    teacher.write_text("\n".join(rows) + "\n")
    lake.job("ingest", source=str(data / "align"), labels=str(data / "align" / "labels.csv"))
    lake.out = lake.root.parent / "aligned"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(align, "SIGHT", FEW)
        patch.setattr(align, "BASE", FEW)
        patch.setattr(train, "BATCH", 2)
        patch.setattr(train, "SIGHT_BATCH", 2)
        lake.run = lake.job("align", teacher=str(teacher), out=lake.out, seed=0)
    return lake


def test_every_teacher_trace_of_a_known_video_is_a_row(taught):
    traces = taught.rows("traces")
    assert len(traces) == 9 and {row["engine"] for row in traces} == {"teacher"}
    assert sorted(row["status"] for row in traces) == ["ok"] * 8 + ["parse_error"]
    assert taught.run.counts["teacher_traces_without_video"] == 1
    assert taught.run.counts["teacher_traces_known"] == 0


def test_only_right_and_well_formed_traces_are_taught(taught):
    assert taught.run.counts["lessons"] == 7


def test_both_phases_leave_their_losses(taught):
    losses = {
        (row["method"], row["name"], row["step"]) for row in taught.rows("metrics") if row["name"].endswith("loss")
    }
    assert {("base", "sight/loss", 0), ("base", "loss", 1), ("align", "loss", 2)} <= losses


def test_the_model_is_a_folder_with_a_digest_of_its_own(taught):
    assert model_digest(str(taught.out / "model")) != model_digest(str(taught.out / "base"))


def test_labels_alone_are_taught_without_any_trace(taught):
    out = taught.out.parent / "direct"
    done = taught.job("align", direct=True, start=str(taught.out / "base"), out=out, seed=0)
    assert done.counts["lessons"] == 9  # every labelled video, whatever a teacher says of it
    assert model_digest(str(out / "model")) not in {model_digest(str(taught.out / name)) for name in ("base", "model")}
    with pytest.raises(UsageError, match="--direct teaches no traces; leave --teacher out"):
        taught.job("align", direct=True, teacher="traces.csv", start=str(taught.out / "base"), out=out)


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
