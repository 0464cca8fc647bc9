"""Given labelled clips of the split align, then `teach` keeps what is to be learnt and says of each other trace why not."""

from __future__ import annotations

import csv
import json
import random
import shutil
from types import SimpleNamespace

import pyarrow as pa
import pytest
from deltalake import DeltaTable
from support import Lake
from synthetic import land, videos

from jobs import align, demo_data, teach
from jobs.runtime.errors import UsageError
from jobs.runtime.run import Run
from jobs.steps import recipes, rollouts, teachers
from lake.commit import Landed
from models.engines.asking import seed_of
from models.handwriting.rule import LABELS, label_of
from models.handwriting.teacher import erring, trace
from models.identity import model_digest
from models.language.grammar import parse
from udfs.oracle import ORACLE_COLUMNS, oracle

CHECKPOINT = "models/handwriting/checkpoint"
ALIGNED, UNLABELLED, ELSEWHERE = 8, 7, 9  # videos 0-8 are of the split align, 7 without a label; 9 is of another split
OPPOSITE = {"rising": "9 5 3 1", "falling": "1 3 5 9", "mixed": "1 3 5 9"}  # label -> digits that argue for another
# A row of traces.csv: which video, what is done to its right trace, why it is refused (None: it is not).
ROWS = [
    (0, lambda text: text.replace("<think>", "<think>The ground truth is clear. "), "teacher_leak"),
    (1, lambda text: text.replace("</answer>", ""), "teacher_format"),
    (2, lambda text: text, "teacher_wrong_label"),
    (3, lambda text: text.replace("<observation>", "<observation>mixed: "), "teacher_judges_early"),
    (4, lambda text: text, None),
    (5, lambda text: text, None),
    (5, lambda text: text.replace("<think>", "<think> "), None),
    (5, lambda text: seeing(OPPOSITE[text[text.rindex("<answer>") + 8 :].split("<")[0]], text), "teacher_contradicts"),
    (6, lambda text: "", "teacher_format"),
    (UNLABELLED, lambda text: text, "teacher_unlabelled"),
    (8, lambda text: text, None),
    (ELSEWHERE, lambda text: text, "teacher_split"),
]
REFUSED = sum(reason is not None for _, _, reason in ROWS)


def seeing(digits: str, text: str) -> str:
    return f"<observation>{digits}</observation>{text.partition('</observation>')[2]}"


def other(label: str) -> str:
    return "falling" if label == "rising" else "rising"


@pytest.fixture(scope="module")
def taught(spark, tmp_path_factory):
    """A lake with ten clips and a file of traces, whose first reading is `run`."""
    folder = tmp_path_factory.mktemp("teach")
    lake = Lake(folder / "lake", "engine.per_cluster=1", conf="conf/handwriting.yaml")
    data = folder / "data"
    clips = demo_data.align(data, 10, seed=0)
    with (data / "align" / "labels.csv").open(newline="") as file:
        lake.clips = list(csv.DictReader(file))
    lake.labels, lake.file = data / "labels.csv", data / "traces.csv"
    write_labels(lake, lake.labels, {UNLABELLED: ""})
    lake.texts = []
    for video, change, reason in ROWS:
        digits = digits_of(lake, video)
        text = trace(digits, video)
        if reason == "teacher_wrong_label":
            text = trace([9, 5, 3, 1] if other(label_of(digits)) == "falling" else [1, 3, 5, 9], video)
        lake.texts.append(change(text))
    write_traces(lake, lake.file, lake.texts)
    lake.job("ingest", source=str(data / "align"), labels=str(lake.labels))
    ids = {row["uri"].rpartition("/")[2]: row["video_id"] for row in lake.rows("videos")}
    lake.ids = [ids[path.name] for path in clips]
    lake.run = lake.job("teach", file=str(lake.file))
    return lake


def digits_of(lake: Lake, video: int) -> list[int]:
    return [int(digit) for digit in lake.clips[video]["digits"].split()]


def write_labels(lake: Lake, path, changes: dict[int, str]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(lake.clips[0]))
        writer.writeheader()
        for video, row in enumerate(lake.clips):
            row = row | {"split": "dev" if video == ELSEWHERE else "align", "label": changes.get(video, row["label"])}
            writer.writerow(row)


def write_traces(lake: Lake, path, texts: list[str]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("file", "trace"))
        writer.writerows((lake.clips[video]["file"], text) for (video, _, _), text in zip(ROWS, texts, strict=True))
        writer.writerow(("no-such-file.mp4", texts[0]))


@pytest.fixture
def fork(taught, tmp_path):
    """The same lake, to be changed."""
    shutil.copytree(taught.root, tmp_path / "lake")
    lake = Lake(tmp_path / "lake", *taught.overrides, conf=taught.conf)
    lake.clips, lake.texts, lake.ids, lake.file = taught.clips, taught.texts, taught.ids, taught.file
    return lake


def rows_of(lake: Lake, recipe_id: str) -> tuple[dict, dict]:
    """Kept and refused traces of a teacher: (video, index) -> row."""
    kept = {
        (row["video_id"], row["rollout_index"]): row for row in lake.rows("traces") if row["recipe_id"] == recipe_id
    }
    refused = {}
    for row in lake.rows("quarantine"):
        video, recipe, _, index, _ = row["row_key"].split("/") if row["table"] == "traces" else ("",) * 5
        if recipe == recipe_id:
            assert (video, int(index)) not in refused
            refused[video, int(index)] = row
    return kept, refused


def texts_of(lake: Lake, recipe_id: str) -> dict[str, str]:
    """Every trace of a teacher, kept or refused, by video: of teachers with one of each."""
    kept, refused = rows_of(lake, recipe_id)
    said = {video: row["text"] for (video, _), row in kept.items()}
    return said | {video: json.loads(row["original"])["text"] for (video, _), row in refused.items()}


def versions(lake: Lake) -> dict[str, int]:
    return {
        name: DeltaTable(str(lake.root / "tables" / name)).version() for name in ("traces", "quarantine", "recipes")
    }


def test_right_traces_are_rows_and_each_other_one_is_a_refusal_that_says_why(taught):
    kept, refused = rows_of(taught, taught.run.versions["teacher"])
    places: dict[int, int] = {}
    for (video, _, reason), text in zip(ROWS, taught.texts, strict=True):
        index = places[video] = places.get(video, -1) + 1
        key = taught.ids[video], index
        if reason is None:
            row = kept.pop(key)
            assert (row["text"], row["label"], row["engine"]) == (text, taught.clips[video]["label"], "teacher")
        else:
            row = refused.pop(key)
            assert row["reason"] == reason and row["message"].startswith("expected ") and "found" in row["message"]
    assert kept == refused == {}


def test_every_trace_of_the_file_is_accounted_for(taught):
    counts = taught.run.counts
    assert counts["teacher_traces"] == len(ROWS) + 1
    assert counts["teacher_traces_kept"] == counts["teacher_traces_new"] == len(ROWS) - REFUSED
    assert (counts["teacher_traces_refused"], counts["teacher_traces_without_video"]) == (REFUSED, 1)
    assert counts["refused_teacher_format"] == 2 and counts["refused_teacher_leak"] == 1


def test_a_teacher_that_is_mostly_wrong_breaks_no_contract(taught):
    assert REFUSED / len(ROWS) > taught.settings().waves.max_refused  # and nothing was held
    checks = [row for row in taught.rows("quality") if row["table"] == "traces"]
    assert checks and all(row["success"] for row in checks)


def test_rows_that_are_lost_or_doubled_end_the_run(taught, monkeypatch):
    doubled = lambda rows, *rest: judged(rows, *rest).unionByName(judged(rows, *rest))  # noqa: E731
    judged = teach.judged
    monkeypatch.setattr(teach, "judged", doubled)
    with pytest.raises(RuntimeError, match="13 traces of the teacher became 26 judged ones: rows were lost or doubled"):
        taught.job("teach", file=str(taught.file))


def test_so_do_rows_that_did_not_land():
    warned: list[str] = []
    record = SimpleNamespace(add=lambda counts: None, say=lambda text: None, warn=warned.append)
    landed = SimpleNamespace(landed={"traces": Landed(1, 1, 0)}, reasons={"traces": {"teacher_leak": 2}})
    fates = [
        {"lost": False, "is_new": True, "refused_reason": None, "count": 2},
        {"lost": False, "is_new": True, "refused_reason": "teacher_leak", "count": 2},
        {"lost": False, "is_new": False, "refused_reason": "teacher_leak", "count": 1},
        {"lost": False, "is_new": False, "refused_reason": None, "count": 3},
        {"lost": True, "is_new": False, "refused_reason": None, "count": 1},
    ]
    fates = [row | {"answer": "cat"} for row in fates]
    run = SimpleNamespace(record=record)
    teach.account(run, teach.Said({}, 9, None), fates, landed)
    with pytest.raises(
        RuntimeError, match=r"not 4 kept \+ 3 refused \(3 as teacher_leak\) \+ 1 without exactly one video"
    ):
        landed.landed["traces"] = Landed(0, 1, 0)
        teach.account(run, teach.Said({}, 9, None), fates, landed)
    assert not warned


def test_an_answer_that_loses_most_of_its_traces_is_told():
    """As a label does that is an everyday word, which observations are bound to name."""
    warned: list[str] = []
    fates = [
        {"answer": "cat", "refused_reason": "teacher_judges_early", "count": 30},
        {"answer": "cat", "refused_reason": None, "count": 2},
        {"answer": "other", "refused_reason": "teacher_format", "count": 20},
        {"answer": "other", "refused_reason": None, "count": 20},
        {"answer": "", "refused_reason": "teacher_format", "count": 99},
    ]
    teach.warn_of_losses(SimpleNamespace(record=SimpleNamespace(warn=warned.append)), fates)
    assert len(warned) == 1 and warned[0].startswith("of 32 traces that answer cat 2 are kept")


def test_a_second_time_nothing_changes(taught):
    before = versions(taught)
    again = taught.job("teach", file=str(taught.file))
    assert versions(taught) == before
    assert again.versions["teacher"] == taught.run.versions["teacher"]
    assert again.counts == taught.run.counts | {"teacher_traces_new": 0}


def test_a_corrected_file_is_another_recipe_and_the_newest_is_taught(fork, tmp_path):
    corrected = list(fork.texts)
    corrected[1] = trace(digits_of(fork, 1), 1)
    write_traces(fork, tmp_path / "corrected.csv", corrected)
    former = next(row["recipe_id"] for row in fork.rows("recipes"))
    done = fork.job("teach", file=str(tmp_path / "corrected.csv"))
    newest = done.versions["teacher"]
    assert newest != former and done.counts["teacher_traces_new"] == len(ROWS) - REFUSED + 1
    assert (fork.ids[1], 0) in rows_of(fork, newest)[0] and (fork.ids[1], 0) not in rows_of(fork, former)[0]
    run = Run("tests", fork.settings(), quiet=True)
    assert teachers.chosen(run, None).id == newest and teachers.chosen(run, former).id == former
    by_somebody = fork.job("teach", file=str(tmp_path / "corrected.csv"), by="gpt").versions["teacher"]
    assert by_somebody not in (newest, former)
    assert {row["engine"] for row in rows_of(fork, by_somebody)[0].values()} == {"gpt"}


def test_labels_that_were_corrected_since_are_what_counts(fork, tmp_path):
    """What was refused as wrong and is right now is kept; what was kept and is wrong now is not taught."""
    recipe_id, wrong, right = next(row["recipe_id"] for row in fork.rows("recipes")), 2, 4
    changes = {video: other(fork.clips[video]["label"]) for video in (wrong, right)} | {UNLABELLED: ""}
    write_labels(fork, tmp_path / "corrected-labels.csv", changes)
    fork.job("ingest", labels=str(tmp_path / "corrected-labels.csv"))
    done = fork.job("teach", file=str(fork.file))
    assert done.versions["teacher"] == recipe_id and done.counts["teacher_traces_new"] == 1
    assert done.counts["teacher_traces_kept"] == len(ROWS) - REFUSED
    kept, _ = rows_of(fork, recipe_id)
    assert (fork.ids[wrong], 0) in kept and (fork.ids[right], 0) in kept
    run = Run("tests", fork.settings(), quiet=True)
    learnt = {row["video_id"] for row in align.taught(run, teachers.chosen(run, None)).collect()}
    run.drop_scratch()
    assert learnt == {video for video, _ in kept} - {fork.ids[right]}


def test_the_oracle_that_does_not_err_is_kept_whole(fork):
    done = fork.job("teach", oracle=0)
    assert done.counts["teacher_traces"] == ALIGNED + 1 and done.counts["refused_teacher_unlabelled"] == 1
    assert done.counts["teacher_traces_kept"] == ALIGNED == len(rows_of(fork, done.versions["teacher"])[0])


def test_of_an_oracle_that_errs_what_is_wrong_is_refused(fork):
    done = fork.job("teach", oracle=0.5, seed=3)
    expected = {
        id: (erring(digits, 0.5, seed_of(3, id, 0)), trace(digits, seed_of(3, id, 0)))
        for id, digits in ((id, digits_of(fork, video)) for video, id in enumerate(fork.ids[: ALIGNED + 1]))
    }
    assert texts_of(fork, done.versions["teacher"]) == {id: text for id, (text, _) in expected.items()}
    assert 0 < sum(text != right for text, right in expected.values()) < ALIGNED + 1
    usable = set()
    for video, id in enumerate(fork.ids[: ALIGNED + 1]):
        read = parse(expected[id][0], "observation", LABELS)
        if video != UNLABELLED and read.well_formed and read.label == fork.clips[video]["label"]:
            usable.add((id, 0))
    kept, refused = rows_of(fork, done.versions["teacher"])
    assert kept.keys() == usable and done.counts["teacher_traces_kept"] == len(usable) > 0
    assert done.counts["teacher_traces_refused"] == len(refused) == ALIGNED + 1 - len(usable)
    others = fork.job("teach", oracle=0.5, seed=4).versions["teacher"]
    assert others != done.versions["teacher"] and texts_of(fork, others) != texts_of(fork, done.versions["teacher"])


def test_what_the_oracle_says_of_a_video_has_nothing_to_do_with_the_others():
    rng = random.Random(0)
    rows = [{"video_id": f"v{n}", "digits": " ".join(str(rng.randrange(10)) for _ in range(4))} for n in range(40)]

    def said(rows: list[dict], size: int) -> dict[str, str]:
        batches = [pa.RecordBatch.from_pylist(rows[at : at + size]) for at in range(0, len(rows), size)]
        told = [row for batch in oracle(0.5, 1)(batches) for row in batch.to_pylist()]
        assert len(told) == len(rows) and set(told[0]) == set(ORACLE_COLUMNS.names)
        return {row["video_id"]: row["text"] for row in told}

    assert said(rows, 40) == said(rows[::-1], 7)


def test_a_model_teaches_by_its_own_rollouts(fork, monkeypatch):
    asked = set()

    def seen(run, wave, recipe, plan, todo, *rest):
        asked.update((plan.user_text, row["input_text"]) for row in todo.select("input_text").collect())
        return make(run, wave, recipe, plan, todo, *rest)

    make = rollouts._make
    monkeypatch.setattr(rollouts, "_make", seen)
    done = fork.job("teach", "model.path=no-such-folder", model=CHECKPOINT, n=2, by="itself")
    videos, recipe = fork.ids[: ALIGNED + 1], recipes.of_settings(fork.settings())
    rolled = {
        (row["video_id"], row["rollout_index"]): row for row in fork.rows("traces") if row["recipe_id"] == recipe.id
    }
    assert set(rolled) == {(video, index) for video in videos for index in range(2)}
    kept, refused = rows_of(fork, done.versions["teacher"])
    assert kept.keys() | refused.keys() == rolled.keys() and not kept.keys() & refused.keys() and kept
    for key, row in kept.items():
        assert all(
            row[name] == rolled[key][name] for name in ("text", "labels", "tokens", "seed", "engine", "logprob_sum")
        )
    # Every video is asked the same: nothing that anybody said of it is in its prompt.
    assert asked == {(recipes.prompt_of(fork.settings()), None)}
    for video, id in enumerate(videos):
        for index in range(2):
            own = rolled[id, index]
            agreed = rolled[id, 0]["label"] == rolled[id, 1]["label"] is not None
            good = agreed if video == UNLABELLED else own["label"] == fork.clips[video]["label"]
            assert ((id, index) in kept) == (good and own["well_formed"])
    before = versions(fork)
    again = fork.job("teach", model=CHECKPOINT, n=2, by="itself")
    assert versions(fork) == before and again.counts["rollouts"] == again.counts["engines"] == 0
    assert again.versions["teacher"] == done.versions["teacher"]
    fewer = fork.job("teach", model=CHECKPOINT, n=1, by="itself")  # another teacher: of one trace nothing can agree
    assert fewer.counts["rollouts"] == 0 and fewer.counts["refused_teacher_unlabelled"] == 1
    assert {index for part in rows_of(fork, fewer.versions["teacher"]) for _, index in part} == {0}
    row = next(row for row in fork.rows("recipes") if row["recipe_id"] == done.versions["teacher"])
    assert f'"version":{{"model":"{recipe.id}","n":2}}' in row["json"] and recipe.json["model"] == model_digest(
        CHECKPOINT
    )


def test_what_a_template_opened_belongs_to_the_text(spark):
    rows = [
        ("so it rises</think><answer>rising</answer>", True),
        ("<think>it rises</think><answer>rising</answer>", True),
        ("it rises", False),
        (None, False),
    ]
    found = (
        spark.createDataFrame(rows, "text string, well_formed boolean").select(teach.whole().alias("text")).collect()
    )
    assert [row["text"] for row in found] == [f"<think>{rows[0][0]}", *(text for text, _ in rows[1:])]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, "exactly one of --file, --model and --oracle, found none of them"),
        ({"file": "x.csv", "oracle": 0.1}, "exactly one of --file, --model and --oracle, found --file and --oracle"),
        ({"file": "x.csv", "n": 2}, "--n goes with --model, found it with --file"),
        ({"model": CHECKPOINT, "seed": 1}, "--seed goes with --oracle, found it with --model"),
        ({"file": "no-such.csv"}, "--file no-such.csv: no such file"),
        ({"file": "LABELS"}, "expected a column 'trace', found 'file', 'label', 'split', 'digits'"),
        ({"file": "BARS"}, "expected columns separated by commas, found '|': save it as CSV with commas"),
        ({"model": "nobody"}, "--model nobody: expected a folder in Hugging Face layout or a registered model"),
        ({"oracle": 1.5}, "--oracle 1.5: expected a rate of errors from 0 to 1"),
    ],
)
def test_mistakes_are_told(taught, tmp_path, arguments, said):
    spreadsheet = tmp_path / "saved.csv"
    spreadsheet.write_text("file|trace\na.mp4|so\n")
    files = {"LABELS": taught.labels, "BARS": spreadsheet}
    given = {name: str(files.get(value, value)) if name == "file" else value for name, value in arguments.items()}
    with pytest.raises(UsageError) as told:
        taught.job("teach", **given)
    assert said in str(told.value)


def test_the_oracle_knows_its_own_task_and_videos_with_digits_alone(taught, monkeypatch):
    with pytest.raises(UsageError, match="expected the task handwriting, whose digits it knows, found multihateclip"):
        taught.job("teach", "task=multihateclip", oracle=0.1)
    monkeypatch.setattr(teach, "DIGITS", "kind")
    with pytest.raises(UsageError, match=r"expected the facet kind of every video .* \(9 such videos\)"):
        taught.job("teach", oracle=0.1)


def test_without_videos_to_align_on_there_is_nobody_to_teach(lake, tmp_path):
    land(lake, **videos(["a"]))
    (tmp_path / "traces.csv").write_text("file,trace\na,x\n")
    for source in ({"file": str(tmp_path / "traces.csv")}, {"model": CHECKPOINT}, {"oracle": 0.0}):
        with pytest.raises(UsageError, match="expected videos of the task handwriting in the split align, found none"):
            lake.job("teach", **source)
