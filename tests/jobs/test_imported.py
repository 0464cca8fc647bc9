"""Given traces that another system wrote, of videos that are not here, then calibrators learn from them, and score them."""

from __future__ import annotations

import csv
import json
import random
import re
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import roc_auc_score
from support import SHARED, Lake
from synthetic import site

from jobs import sql
from jobs.quality import lost
from jobs.runtime.errors import Doubted, UsageError
from lake.storage import Damaged

VIDEOS, PROMPTS = 240, ("brief", "fenced", "lines", "prose")
MAP = ["id=clip.name", "text=out", "prompt=asked", "answer=$.label"]
VALUES = ["yes=hateful", "no=normal"]
TEXT = ("calibrate.kind=text", "decide.threshold=0.0")


def truth(number: int) -> str:
    return "hateful" if random.Random(number).random() < 0.4 else "normal"


def written(number: int, prompt: str) -> str:
    """A reviewer's answer, in the style of a prompt; each errs on its own, and says `clearly` where it does not."""
    chance = random.Random(f"{number}{prompt}")
    right = chance.random() < {"brief": 0.9, "fenced": 0.75, "lines": 0.65, "prose": 0.8}[prompt]
    label = truth(number) if right else {"hateful": "normal", "normal": "hateful"}[truth(number)]
    sure = "clearly" if right == (chance.random() < 0.85) else "arguably"
    word = {"hateful": "yes", "normal": "no"}[label]
    return {
        "brief": json.dumps({"label": label.upper(), "why": f"it {sure} is"}),
        "fenced": f'Here:\n```json\n{{"why": "it {sure} is", "label": "{word}"}}\n```',
        "lines": f"label: {word}\nwhy: it {sure} is" if number % 9 else f'{{"label": "{word}", "why": "it {sure} "is',
        "prose": f"I find that it {sure} is {label}.",
    }[prompt]


def rows() -> list[dict]:
    """One row for each video and prompt; the last video has no `brief` one."""
    made = [
        {"clip": {"name": f"v{number}"}, "asked": prompt, "out": written(number, prompt)}
        for number in range(VIDEOS)
        for prompt in PROMPTS
    ]
    return [row for row in made if (row["clip"]["name"], row["asked"]) != (f"v{VIDEOS - 1}", "brief")]


def last_brief() -> dict:
    return {"clip": {"name": f"v{VIDEOS - 1}"}, "asked": "brief", "out": written(VIDEOS - 1, "brief")}


def write_labels(path, label_of=truth, numbers=range(VIDEOS)):
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([("file", "label"), *((f"v{number}", label_of(number)) for number in numbers)])
    return str(path)


@pytest.fixture(scope="module")
def foreign(spark, tmp_path_factory):
    folder = tmp_path_factory.mktemp("foreign")
    lake = Lake(folder / "lake", *TEXT, conf=site(folder, "hate", ("hateful", "normal")))
    lake.folder, lake.source = folder, folder / "traces.jsonl"
    lines = [json.dumps(row) for row in rows()]
    lake.source.write_text("\n".join([*lines[:5], "{ no row", json.dumps({"out": "x"}), *lines[5:]]) + "\n\n")
    lake.taken = lake.job("import-traces", source=str(lake.source), map=MAP, value=VALUES)
    lake.recipe = lake.taken.versions["recipe_id"]
    lake.job("ingest", labels=write_labels(folder / "labels.csv"), split="calibrate")
    lake.learned = lake.job("calibrate", traces=lake.recipe, folds=5)
    lake.again = lake.job("calibrate", traces=lake.recipe, folds=5)
    return lake


def test_every_row_of_the_file_is_a_trace_or_a_refusal(foreign):
    counts = foreign.taken.counts
    assert counts["traces_given"] == 4 * VIDEOS - 1 + 2 and counts["videos"] == VIDEOS
    assert counts["refused_broken_row"] == counts["refused_no_id"] == 1 and counts["traces_not_given"] == 1
    traces = foreign.rows("traces")
    by_prompt = Counter((PROMPTS[row["rollout_index"]], row["status"]) for row in traces)
    expected = Counter({(prompt, "ok"): VIDEOS for prompt in PROMPTS[:3]} | {("prose", "parse_error"): VIDEOS})
    expected += Counter({("brief", "parse_error"): 1})
    expected[("brief", "ok")] -= 1
    assert by_prompt == expected
    assert {row["table"] for row in foreign.rows("quarantine")} == {"traces"}
    read = next(row for row in traces if row["text"] == written(9, "lines"))
    assert read["label"] == {"yes": "hateful", "no": "normal"}[read["answer"]]


def test_taking_it_in_again_adds_nothing_and_more_rows_add_themselves(foreign, tmp_path):
    again = foreign.job("import-traces", source=str(foreign.source), map=MAP, value=VALUES)
    assert again.versions["recipe_id"] == foreign.recipe and again.counts["traces_new"] == 0
    assert len(foreign.rows("traces")) == 4 * VIDEOS and len(foreign.rows("quarantine")) == 2
    more = tmp_path / "traces.jsonl"
    late = [{"clip": {"name": "late"}, "asked": prompt, "out": written(999, prompt)} for prompt in PROMPTS]
    more.write_text("\n".join(json.dumps(row) for row in [*rows(), *late]))
    added = foreign.job("import-traces", source=str(more), map=MAP, value=VALUES)
    assert added.versions["recipe_id"] == foreign.recipe and added.counts["traces_new"] == 4
    more.write_text("\n".join(json.dumps(row) for row in [*rows(), *late, last_brief()]))
    added = foreign.job("import-traces", source=str(more), map=MAP, value=VALUES)
    assert added.counts["traces_new"] == 1 and added.counts["traces_not_given"] == 0
    assert foreign.job("import-traces", source=str(more), map=MAP, value=VALUES).counts["traces_new"] == 0


def test_a_corrected_file_is_another_import_and_says_so(foreign, tmp_path):
    changed = tmp_path / "traces.jsonl"
    changed.write_text("\n".join(json.dumps(row | {"out": row["out"] + "!"}) for row in rows()))
    with pytest.raises(Doubted, match=r"959 traces say something else than those that recipe .* has.*--by"):
        foreign.job("import-traces", source=str(changed), map=MAP, value=VALUES)


def test_half_an_emoji_is_no_reason_to_stop(foreign, tmp_path):
    cut = tmp_path / "cut.jsonl"
    cut.write_text('{"clip": {"name": "v\\ud83d"}, "out": "cut \\ud83d"}\n{"clip": {"name": "w"}, "out": "whole"}\n')
    taken = foreign.job("import-traces", source=str(cut), map=["id=clip.name", "text=out"])
    texts = {row["text"] for row in foreign.rows("traces") if row["recipe_id"] == taken.versions["recipe_id"]}
    assert texts == {"cut ?", "whole"}


HOSTILE = {
    "markup": "<script>alert(1)</script><img src=x onerror=alert(1)>",
    "formula": "=cmd|' /C calc'!A0",
    "sql": "'; DROP TABLE traces; --",
    "null": "a\0b",
    "terminal": "\x1b[2J\x1b]0;owned\x07\x9b31m",
    "writing": "\u202edetisnart",
    "long": "x" * 100_000,
    "lines": "a\r\nb\u2028c",
}


def test_what_a_model_writes_is_kept_exactly_and_shown_harmlessly(foreign, tmp_path, capsys):
    path = tmp_path / "hostile.jsonl"
    path.write_text("\n".join(json.dumps({"clip": {"name": name}, "out": text}) for name, text in HOSTILE.items()))
    recipe = foreign.job("import-traces", source=str(path), map=["id=clip.name", "text=out"]).versions["recipe_id"]
    kept = [row["text"] for row in foreign.rows("traces") if row["recipe_id"] == recipe]
    assert sorted(kept) == sorted(HOSTILE.values())
    lake, asked = foreign.at_hand(), f"SELECT text FROM traces WHERE recipe_id = '{recipe}'"
    lake.register_views()
    sql.show(lake.spark.sql(asked), 50, as_json=False)
    table = capsys.readouterr().out
    assert "\\x1b[2J\\x1b]0;owned" in table and "\\u202edetisnart" in table and "<script>" in table
    assert not set(table) & set("\0\x1b\x07\x9b\r\u202e") and max(map(len, table.splitlines())) < 400
    sql.show(lake.spark.sql(asked), 50, as_json=True)
    lines = capsys.readouterr().out
    assert sorted(json.loads(line)["text"] for line in lines.splitlines()) == sorted(HOSTILE.values())
    assert lines.isascii() and not set(lines) & set("\0\x1b\x07\r")


def test_a_line_in_another_encoding_is_refused_alone(foreign, tmp_path):
    odd = tmp_path / "odd.jsonl"
    odd.write_bytes(
        '{"clip": {"name": "l1"}, "out": "sch\xf6n"}\n'.encode("latin-1") + b'{"clip": {"name": "l2"}, "out": "fine"}'
    )
    taken = foreign.job("import-traces", source=str(odd), map=["id=clip.name", "text=out"])
    assert taken.counts["traces_new"] == 1 and taken.counts["refused_broken_row"] == 1
    (refused,) = [row for row in foreign.rows("quarantine") if taken.versions["recipe_id"] in row["row_key"]]
    assert refused["message"] == "expected a row in UTF-8, found other bytes"


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("bin.jsonl", bytes(range(128, 256)), "found none (1 as broken_row)"),
        ("bin.parquet", bytes(range(256)), "expected a Parquet file, found another"),
        ("bin.csv", bytes(range(256)), "expected CSV or TSV as UTF-8 text, found binary data"),
        ("folder.csv", None, "expected one CSV or TSV file, found a folder"),
        ("empty.jsonl", b"\n \n", "expected rows, found an empty file"),
    ],
)
def test_a_file_of_another_kind_is_told(foreign, tmp_path, name, content, said):
    path = tmp_path / name
    if content is None:
        path.mkdir()
        path = path / "inside"
    path.write_bytes(content or b"x")
    with pytest.raises(UsageError, match=re.escape(said)):
        foreign.job("import-traces", source=str(tmp_path / name), map=["id=clip.name", "text=out"])


def test_one_name_for_many_videos_is_told(foreign, tmp_path):
    heap = tmp_path / "heap.jsonl"
    given = [{"id": "unknown", "out": f"text {number}"} for number in range(50)]
    given += [{"id": f"x{number}", "out": "text"} for number in range(50)]
    heap.write_text("\n".join(map(json.dumps, given)))
    with pytest.raises(UsageError, match="found 100 of 51 videos, but 50 of unknown alone"):
        foreign.job("import-traces", source=str(heap), map=["id=id", "text=out"])


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_other_files_say_the_same(foreign, tmp_path, kind):
    flat = [{"name": row["clip"]["name"], "asked": row["asked"], "out": row["out"]} for row in rows()[:40]]
    path = tmp_path / f"some.{kind}"
    if kind == "csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, flat[0])
            writer.writeheader()
            writer.writerows(flat)
    else:
        pq.write_table(pa.Table.from_pylist(flat), path)
    asked = ["id=name", "text=out", "prompt=asked", "answer=$.label"]
    taken = foreign.job("import-traces", source=str(path), map=asked, value=VALUES, by=f"as-{kind}")
    mine = [row for row in foreign.rows("traces") if row["recipe_id"] == taken.versions["recipe_id"]]
    same = {
        (row["video_id"], row["rollout_index"]): row
        for row in foreign.rows("traces")
        if row["recipe_id"] == foreign.recipe
    }
    assert len(mine) == 40
    for row in mine:
        twin = same[row["video_id"], row["rollout_index"]]
        assert all(row[name] == twin[name] for name in ("text", "label", "status", "answer"))


def test_what_words_tell_beats_the_vote_and_is_nominated(foreign):
    found = foreign.learned.results
    assert found["text"]["minus_vote"]["high"] < 0 and found["text"]["accuracy"] > found["vote"]["accuracy"]
    assert foreign.learned.versions["calibrator_id"] == found["text"]["calibrator_id"]
    manifest = foreign.at_hand().registry.calibrator("hate")
    assert manifest["trained_on"] == {"videos_train": VIDEOS, "clusters_train": VIDEOS, "folds": 5} | {
        "dataset": manifest["trained_on"]["dataset"]
    }
    assert foreign.again.results == found and foreign.again.counts["out_of_fold_scores"] == 0  # learning is repeatable


def test_every_labelled_video_has_a_probability_that_it_did_not_teach(foreign):
    ids = {kind: foreign.learned.results[kind]["out_of_fold"] for kind in ("vote", "text")}
    by_scorer = Counter(row["scorer_id"] for row in foreign.rows("scores"))
    assert by_scorer[ids["text"]] == by_scorer[ids["vote"]] == VIDEOS
    compared = foreign.job("compare", a=ids["vote"], b=ids["text"], split="calibrate")
    figures = compared.results["methods"][ids["text"]]
    assert figures["accuracy"]["value"] == pytest.approx(foreign.learned.results["text"]["accuracy"])
    assert figures["nll"]["value"] == pytest.approx(foreign.learned.results["text"]["nll"])


def test_every_row_refers_to_rows_that_are_there(foreign):
    assert lost(foreign.at_hand(), days=10) == []


def test_promoted_it_scores_and_decides_every_video_without_any_bytes(foreign):
    foreign.job("promote")
    scored = foreign.job("score")
    assert scored.counts["scores"] >= VIDEOS
    decided = {row["video_id"]: row for row in foreign.rows("decisions")}
    labels = {row["video_id"]: row["label"] for row in foreign.rows("labels")}
    right = [decided[video_id]["label"] == label for video_id, label in labels.items()]
    assert len(right) == VIDEOS and sum(right) / VIDEOS > 0.9
    assert foreign.job("score").counts["scores"] == 0
    found = foreign.job("evaluate", split="calibrate").results["methods"]
    assert set(found) >= {"text", "single", "majority"} and "greedy" not in found


def test_labels_that_say_nothing_do_not_promote(foreign, tmp_path):
    mixed = [truth(number) for number in range(VIDEOS)]
    random.Random(0).shuffle(mixed)
    labelled = foreign.job("ingest", labels=write_labels(tmp_path / "mixed.csv", mixed.__getitem__), split="calibrate")
    assert labelled.counts["labels_new"] == VIDEOS and labelled.counts["labels_without_video"] == 0
    try:
        found = foreign.job("calibrate", traces=foreign.recipe)
        for kind in ("text", "vote"):
            with pytest.raises(Doubted, match="not known to be better than"):
                foreign.job("promote", calibrator=found.results[kind]["calibrator_id"])
    finally:
        foreign.job("ingest", labels=write_labels(tmp_path / "right.csv"), split="calibrate")


def test_a_precision_that_no_label_reaches_is_not_promoted(foreign):
    text = foreign.learned.results["text"]["calibrator_id"]
    with pytest.raises(Doubted, match=r"by decide.precision 0\.9999 no label would ever be given"):
        foreign.job("promote", "decide.by=precision", "decide.precision=0.9999", calibrator=text)


def test_who_forgets_to_say_whose_traces_is_told_which_there_are(foreign):
    with pytest.raises(UsageError, match=f"for imported traces give --traces, one of .*{foreign.recipe}"):
        foreign.job("calibrate")


def test_what_loses_more_than_the_live_one_is_refused(foreign):
    foreign.job("promote", calibrator=foreign.learned.results["text"]["calibrator_id"])
    foreign.job("calibrate", traces=foreign.recipe)
    vote = foreign.job("calibrate", "calibrate.kind=vote", traces=foreign.recipe).results["vote"]["calibrator_id"]
    with pytest.raises(Doubted, match=r"worse than the live one, .*nll 0"):
        foreign.job("promote", calibrator=vote)
    forced = foreign.job("promote", calibrator=vote, force=True)
    assert forced.results["minus_live"]["nll"]["low"] > 0
    back = foreign.job("rollback")
    assert back.versions["calibrator_id"] == foreign.learned.results["text"]["calibrator_id"]
    assert foreign.job("rollback").versions["calibrator_id"] == vote
    foreign.job("rollback")
    cut = foreign.root / "registry" / "hate" / "live.json"
    cut.write_bytes(cut.read_bytes()[:40])
    with pytest.raises(Damaged, match=r"live.json.*`deepintuit promote` writes it anew"):
        foreign.job("score")
    text = foreign.learned.results["text"]["calibrator_id"]
    assert foreign.job("promote", calibrator=text).versions["calibrator_id"] == text


@pytest.mark.parametrize("file", ["weights.safetensors", "manifest.json", "held_out-*.safetensors"])
def test_a_byte_that_was_changed_is_refused(foreign, file):
    calibrator_id = foreign.learned.results["text"]["calibrator_id"]
    (path,) = (foreign.root / "registry" / "hate" / "calibrators" / calibrator_id).glob(file)
    whole = path.read_bytes()
    if file == "manifest.json":
        place = whole.index(b'"temperature": ') + len(b'"temperature": ')
        place += whole[place : place + 9].index(b".") + 1
        cut = whole[:place] + (b"1" if whole[place : place + 1] != b"1" else b"2") + whole[place + 1 :]
    else:
        cut = whole[:-3] + bytes([whole[-3] ^ 1]) + whole[-2:]
    path.write_bytes(cut)
    try:
        with pytest.raises(Damaged, match="expected what"):
            foreign.job("promote", "decide.by=precision", calibrator=calibrator_id)
    finally:
        path.write_bytes(whole)


def test_a_test_video_in_what_is_learned_from_is_refused(foreign, monkeypatch):
    """Given a split that calls a video a test one once its examples are read, then nothing is learned."""
    from jobs.steps import candidates

    given = candidates.given

    def and_then(run, *arguments):
        found = given(run, *arguments)
        view = run.lake.view
        changed = view("current_splits").selectExpr(
            "video_id", "task", f"IF(video_id = '{foreign.rows('labels')[0]['video_id']}', 'test', split) AS split"
        )
        monkeypatch.setattr(run.lake, "view", lambda name: changed if name == "current_splits" else view(name))
        return found

    monkeypatch.setattr(candidates, "given", and_then)
    with pytest.raises(Doubted, match=r"1 split_is_known.*split is not one of calibrate\); nothing was learned"):
        foreign.job("calibrate", traces=foreign.recipe)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"map": ["id=a"]}, "expected text=FIELD"),
        ({"map": ["id=a", "text=b", "odd=c"]}, "found odd"),
        ({"map": ["id=a", "text=b", "answer=/(/"]}, "expected a regular expression"),
        ({"map": MAP, "value": ["yes=cruel"]}, "expected labels of task hate, found cruel"),
        ({"map": ["id=asked", "text=out"], "value": []}, "expected at most 127 traces of a video"),
        (
            {"map": ["id=clip.name", "text=ot", "prompt=asked"]},
            "--map text=ot: expected a field of the rows, found it in none",
        ),
        (
            {"map": ["id=clip.name", "text=out", "prompt=ask"]},
            "--map prompt=ask: expected a field of the rows, found it in",
        ),
        (
            {"map": ["id=clip.nam", "text=out"]},
            "expected rows that name a video in the field clip.nam, found none (1 as broken_row, 960 as no_id)",
        ),
        ({"map": MAP, "source": "nowhere.jsonl"}, "no such file"),
        ({"map": MAP, "source": __file__}, "expected a file that ends in .jsonl"),
    ],
)
def test_mistakes_are_told(foreign, arguments, said):
    with pytest.raises(UsageError, match=re.escape(said)):
        foreign.job("import-traces", **({"source": str(foreign.source)} | arguments))


def test_people_are_asked_until_they_have_said_and_the_next_calibrator_learns_it(foreign, tmp_path):
    foreign.job("promote", "decide.threshold=1.0", force=True)  # all is left to people
    foreign.job("score", "decide.threshold=1.0")
    queue = foreign.at_hand().view("review_queue").collect()
    assert {row["abstain"] for row in queue} == {True} and len(queue) >= 1  # those without a label yet
    said = tmp_path / "said.csv"
    said.write_text("file,label\nlate,hateful\n")
    foreign.job("ingest", labels=str(said), split="calibrate")
    assert len(foreign.at_hand().view("review_queue").collect()) == len(queue) - 1
    looks = foreign.job("evaluate", "decide.threshold=1.0", split="calibrate").results["people"]
    assert looks["reviewed"] == 1 and looks["left_to_people"] == looks["decided"] > VIDEOS
    assert looks["disagreed"] == (truth(999) != "hateful")
    taught = foreign.job("calibrate", traces=foreign.recipe)
    assert taught.counts["videos_train"] == foreign.learned.counts["videos_train"] + 1


def test_others_cannot_be_asked_for_more(foreign):
    foreign.job("promote", calibrator=foreign.learned.results["text"]["calibrator_id"], force=True)
    with pytest.raises(UsageError, match="ask the model again"):
        foreign.job("evaluate", diagnostics=True)
    with pytest.raises(UsageError, match="expected the recipe of imported traces"):
        foreign.job("calibrate", traces="0" * 16)


def test_real_traces_of_an_open_question_are_read_and_judged(spark, tmp_path):
    """What is right is not among the answers: a calibrator of kind text finds what there is in the words."""
    source = SHARED / "data" / "traces" / "videorft_videommmu_390.jsonl"
    if not source.exists():
        pytest.skip(f"{source} is not on this machine; the lake of this file covers the same ground")
    lake = Lake(tmp_path / "lake", *TEXT, conf=site(tmp_path, "answered", ("right", "wrong")))
    asked = ["id=problem_id", "text=output", "answer=prediction"]
    taken = lake.job("import-traces", source=str(source), map=asked)
    assert taken.counts["videos"] == taken.counts["traces_new"] == 390
    given = [json.loads(line) for line in source.read_text().splitlines()]
    with (tmp_path / "labels.csv").open("w", newline="") as file:
        rows = [(row["problem_id"], "right" if row["correct"] else "wrong") for row in given]
        csv.writer(file).writerows([("file", "label"), *rows])
    lake.job("ingest", labels=str(tmp_path / "labels.csv"), split="calibrate")
    found = lake.job("calibrate", traces=taken.versions["recipe_id"], folds=5).results
    said = {
        row["video_id"]: dict(row["probs"])["right"]
        for row in lake.rows("scores")
        if row["scorer_id"] == found["text"]["out_of_fold"]
    }
    truth = {row["video_id"]: row["label"] == "right" for row in lake.rows("labels")}
    auroc = roc_auc_score([truth[video_id] for video_id in said], list(said.values()))
    print(f"AUROC of 'this answer is right', 5 folds, 390 traces: {auroc:.3f}")
    assert len(said) == 390 and auroc > 0.55  # .61 by scikit-learn's logistic regression with the best strength of four
