"""Labels files: which rows become statements, and what is refused aloud."""

from __future__ import annotations

import csv
import hashlib
import json
from collections import Counter
from datetime import datetime

import pytest
from hypothesis import example, given
from hypothesis import settings as searches
from hypothesis import strategies as st
from support import Lake

from conf.settings import load
from jobs.runtime.errors import UsageError
from jobs.steps.label_files import facet_rows, label_rows, of_folders, read_statements, split_rows, united
from jobs.steps.naming import match, name_of, stem
from lake.audit import TWICE
from lake.staging import Manifest, Wave
from lake.waves import audit_output
from lake.write import stage
from schemas.label_set import LabelSet
from schemas.labels import LABELS
from schemas.quarantine import QUARANTINE
from schemas.splits import SPLITS
from schemas.table import Table

SLUGS = LabelSet(("rising", "falling", "mixed"))


def ext(name: str, source: str = "files") -> str:
    return "ext:" + hashlib.sha256(f"{source}\n{name}".encode()).hexdigest()


def read(spark, tmp_path, text: str, *overrides: str, split: str | None = None, name: str = "labels.csv"):
    path = tmp_path / name
    path.write_text(text)
    return read_statements(spark, str(path), load(None, overrides).ingest, SLUGS, split)


def published(spark, tmp_path, table: Table, rows, labels: LabelSet = SLUGS) -> tuple[list, Counter]:
    """What a wave would publish of these rows, and what it refuses by (external id, reason)."""
    lake = Lake(tmp_path / "lake").at_hand()
    wave = Wave(lake.root, "r", "w00001")
    staged = stage(wave, table, rows)
    manifest = Manifest(wave.id, "ingest", "t", labels, 1.0, (staged,))
    found = audit_output(lake, wave, manifest, staged).staged
    refused = lake.read_files(QUARANTINE, [file.name for file in found.quarantine]).collect()
    said = Counter((str(json.loads(row["original"])["external_id"]), row["reason"]) for row in refused)
    assert sum(said.values()) == len(refused) == sum(found.reasons.values())
    return lake.read_files(table, [file.name for file in found.files]).collect(), said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("file,label\na,rising\nb,up\nc,up\n", r"expected a label out of rising, .*found 'up' \(2 rows\); map it"),
        ("file,label,split\na,rising,train\n", r"expected a split out of align, .*found 'train' \(1 rows\)"),
        ("name,label\na,rising\n", r"expected a column 'file', found 'name', 'label'; set ingest.labels.id"),
        ("name,what\na,rising\n", r"expected a column 'file' and 'label'"),
        ('file,label\na,rising\nb,"rising\nc,rising\n', r"found one in line 3 that is not: close it, or double it"),
        ("file,label,label\na,rising,mixed\n", r"expected the column 'label' once, found it several times"),
        ("\ufefffile|label\r\na|rising\r\n", r"expected columns separated by commas, found '\|': save it as CSV"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_with_what_to_do(spark, tmp_path, text, said):
    with pytest.raises(UsageError, match=said):
        read(spark, tmp_path, text)


def test_utf_16_is_named(spark, tmp_path):
    (tmp_path / "labels.csv").write_bytes("file,label\na,rising\n".encode("utf-16"))
    with pytest.raises(UsageError, match="found UTF-16: save it as CSV UTF-8"):
        read_statements(spark, str(tmp_path / "labels.csv"), load().ingest, SLUGS, None)


def test_quotes_that_open_nothing_are_signs_of_the_text(spark, tmp_path):
    text = 'file,label\n5" disk,rising\n"a ""b"" c\nd",rising\n"x""",mixed\n'
    assert [row["label"] for row in read(spark, tmp_path, text).collect()] == ["rising", "rising", "mixed"]


@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_what_spreadsheets_write_is_read(spark, tmp_path, mark):
    text = f'\ufefffile{mark}label\r\n"a, b;c.mp4"{mark}rising\r\n{mark}\r\n'
    (row,) = read(spark, tmp_path, text).collect()
    assert row["label"] == "rising" and "a, b;c" in row["external_id"]


CELLS = st.text(st.characters(codec="utf-8"), max_size=6) | st.sampled_from(
    [
        "a.mp4",
        "rising",
        "falling, mixed",
        "=cmd()",
        "-1",
        '"',
        '""',
        "\r\n",
        "\ufeff",
        "\0",
        "\x1b[2J",
        "\ufffd",
        "none",
        ";",
    ]
)


@given(
    st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=5), st.sampled_from(",;\t"), st.sampled_from(["\n", "\r\n"])
)
@example([("a", "x\ny")], ",", "\n")
@example([("x\ny", "\ufffd")], ";", "\r\n")
@searches(max_examples=30)
def test_any_table_is_read_row_by_row_or_told_in_a_line(spark, tmp_path, rows, mark, end):
    """Given whatever a spreadsheet may hold, then each row is one statement, or one line says what is wrong with it."""
    path = tmp_path / "labels.csv"
    with path.open("w", newline="") as file:
        csv.writer(file, delimiter=mark, lineterminator=end).writerows([("file", "label"), *rows])
    for labels in (SLUGS, LabelSet(SLUGS.slugs, "independent")):
        try:
            found = read_statements(spark, str(path), load().ingest, labels, None).collect()
        except UsageError as error:
            assert len(str(error).splitlines()) == 1
        else:
            assert len(found) == sum(any(cell.strip() for cell in row) for row in rows)
            assert all(row["label"] is None or row["label"] in SLUGS.slugs for row in found)


@given(st.binary(max_size=60) | st.text(max_size=40).map(lambda text: f"file,label\n{text}".encode("utf-8", "replace")))
@searches(max_examples=30)
def test_any_bytes_are_a_table_or_told_in_a_line(spark, tmp_path, data):
    path = tmp_path / "labels.csv"
    path.write_bytes(data)
    try:
        read_statements(spark, str(path), load().ingest, SLUGS, None).collect()
    except UsageError as error:
        assert len(str(error).splitlines()) == 1


def test_a_split_given_twice_or_a_missing_file_is_refused(spark, tmp_path):
    with pytest.raises(UsageError, match="leave one out"):
        read(spark, tmp_path, "file,label,split\na,rising,test\n", split="test")
    with pytest.raises(UsageError, match="no such file"):
        read_statements(spark, str(tmp_path / "absent.csv"), load().ingest, SLUGS, None)


def test_words_of_the_file_become_slugs_and_slugs_stay(spark, tmp_path):
    rows = read(
        spark, tmp_path, "file\tlabel\n-a\t Up\n_b\trising\n", "ingest.labels.values={Up: rising}", name="l.tsv"
    )
    assert [(row["external_id"], row["label"]) for row in rows.collect()] == [("-a", "rising"), ("_b", "rising")]


def test_external_ids_of_files_are_names_without_folder_and_video_extension(spark):
    names = {"/a/b/c.mp4": "c", "c.MOV": "c", "s3://b/x y%20#1.webm": "x y%20#1", "-a_b": "-a_b", "v1.2": "v1.2"}
    names |= {"a.mp4.mp4": "a.mp4", "C:\\clips\\d.avi": "d", "b.mp4x": "b.mp4x"}
    frame = spark.createDataFrame([(name,) for name in names], "name string")
    found = frame.select("name", stem(frame["name"], load().ingest.extensions).alias("id")).collect()
    assert {row["name"]: row["id"] for row in found} == names


def test_names_are_kept_with_their_folders_between_slashes(spark):
    names = {"./a/b.mp4": "a/b.mp4", "/data/b": "data/b", "C:\\clips\\d.avi": "C:/clips/d.avi", " x ": "x", ".x": ".x"}
    frame = spark.createDataFrame([(name,) for name in names], "name string")
    found = frame.select("name", name_of(frame["name"]).alias("id")).collect()
    assert {row["name"]: row["id"] for row in found} == names


CALLED = {  # names in a labels file -> the file's video; None: not there; two: it is a riddle
    "a/0001.mp4": "v1",
    "b/0001": "v2",
    "top/b/0001.mp4": "v2",
    "0001": 2,
    "0001.mp4": 2,
    "x.mp4": "v3",
    "x.avi": "v4",
    "x": 2,
    "x.mov": None,
    "clip.v2": "v5",
    "clip": None,
    "lip.v2": None,
    "c/0001": None,
    "other": None,
    "s3://bucket/a/y.webm": "v7",
    "bucket/a/y": "v7",
}


def test_a_label_finds_its_video_by_as_much_of_its_path_as_it_names(spark, tmp_path):
    files = [
        ("0001", "v1", "/data/top/a/0001.mp4"),
        ("0001", "v2", "/data/top/b/0001.mp4"),
        ("x", "v3", "/data/x.mp4"),
        ("x", "v4", "/data/x.avi"),
        ("clip.v2", "v5", "/data/clip.v2.mp4"),
        ("other", "v6", "/data/other.mp4"),
        ("y", "v7", "s3://bucket/a/y.webm"),
    ]
    rows = [(name, video, "ok", "elsewhere" if video == "v6" else "files", uri, 1) for name, video, uri in files]
    frame = spark.createDataFrame(
        rows, "external_id string, video_id string, status string, source string, uri string, seen_at long"
    )
    statements = read(spark, tmp_path, "file,label\n" + "".join(f"{name},rising\n" for name in CALLED))
    found = {row["external_id"]: row for row in match(statements, frame, "files").collect()}
    assert found.keys() == CALLED.keys()
    for name, wanted in CALLED.items():
        row = found[name]
        if wanted == 2:
            assert row["refused_reason"] == "ambiguous_name", name
            assert row["refused_message"].startswith(f"2 different videos are called '{name}', for example ")
        else:
            assert (row["video_id"], row["refused_reason"]) == (wanted or ext(name), None), name


def test_files_of_one_content_are_one_video_whatever_they_are_called(spark, tmp_path):
    files = spark.createDataFrame(
        [("x", "v1", "ok", "files", "/a/x.mp4", 1), ("x", "v1", "ok", "files", "/b/x.mp4", 2)],
        "external_id string, video_id string, status string, source string, uri string, seen_at long",
    )
    (row,) = match(read(spark, tmp_path, "file,label\nx,rising\n"), files, "files").collect()
    assert (row["video_id"], row["refused_reason"]) == ("v1", None)


def test_facts_beside_labels_are_rows_of_their_own(spark, tmp_path):
    text = 'file,label,kind,who\na,rising,"night; indoor",w1\nb,falling,,w2\na,rising,night,w1\n'
    statements = read(spark, tmp_path, text, "ingest.labels.facets={kind: kind, who: writer}")
    files = spark.createDataFrame(
        [("b", "v1", "ok", "files", "a/b", 1), ("b", "v2", "ok", "files", "c/b", 1)],
        "external_id string, video_id string, status string, source string, uri string, seen_at long",
    )
    rows = facet_rows(match(statements, files, "files"), "t").collect()
    found = Counter((row["external_id"], row["name"], row["value"]) for row in rows)  # nothing of b, which is a riddle
    assert found == Counter([("a", "kind", "night"), ("a", "kind", "indoor"), ("a", "writer", "w1")])
    (tmp_path / "people.csv").write_text('file,label,who\na,rising,"Smith, Anna"\nb,rising,"Jones, Anna"\nc,rising, \n')
    ingest = load(None, ["ingest.labels.facets={who: person}"]).ingest
    people = read_statements(spark, str(tmp_path / "people.csv"), ingest, SLUGS, None, whole=("person", None))
    found = {row["external_id"]: [fact["value"] for fact in row["facets"]] for row in people.collect()}
    assert found == {"a": ["Smith, Anna"], "b": ["Jones, Anna"], "c": []}  # who belongs together is one name
    with pytest.raises(
        UsageError, match=r"expected a column 'camera', found 'file', 'label'; set ingest.labels.facets.camera"
    ):
        read(spark, tmp_path, "file,label\na,rising\n", "ingest.labels.facets={camera: camera}")


def test_folders_may_name_the_label_and_the_split(spark):
    uris = ["/k/train/going up/1.mp4", "/k/train/falling/1.mp4", "/k/val/going up/2.mp4"]
    rows = [(uri, datetime(2026, 3, 1)) for uri in uris]
    listing = spark.createDataFrame(rows, "uri string, modified_at timestamp")
    settings = ["ingest.labels.folders=[split, label]", "ingest.labels.values={going up: rising}"]
    ingest = load(None, [*settings, "ingest.labels.splits={train: align, val: test}"]).ingest
    found = {row["external_id"]: row for row in of_folders(listing, "/k", ingest, SLUGS).collect()}
    assert {uri: (row["label"], row["split"], row["source"]) for uri, row in found.items()} == {
        uris[0]: ("rising", "align", "folders"),
        uris[1]: ("falling", "align", "folders"),
        uris[2]: ("rising", "test", "folders"),
    }
    with pytest.raises(UsageError, match=r"/k, folders of labels: expected a label out of .*found 'going up'"):
        of_folders(listing, "/k", load(None, settings[:1]).ingest, SLUGS)
    skipped = load(None, ['ingest.labels.folders=[label, "-"]']).ingest  # a folder between label and file
    deep = spark.createDataFrame([("/k/rising/cam1/1.mp4", datetime(2026, 3, 1))], "uri string, modified_at timestamp")
    assert of_folders(deep, "/k", skipped, SLUGS).collect()[0]["label"] == "rising"


FILE = """file,label,split
known.mp4,rising,test
ambiguous,falling,test
never,mixed,test
copy,falling,test
known,rising,align
gap,,align
gap,rising,align
gap,falling,align
held,mixed,test
never,mixed,test
"""


def test_statements_meet_their_videos_and_contradictions_and_leaks_are_refused(spark, tmp_path):
    statements = read(spark, tmp_path, FILE)
    files = spark.createDataFrame(
        [
            ("known", "v0", "ok", "files", "a/known.mp4", 1),  # replaced since: the file is what it holds now
            ("known", "v1", "ok", "files", "a/known.mp4", 2),
            ("copy", "v1", "ok", "files", "a/copy", 1),
            ("ambiguous", "v2", "ok", "files", "a/ambiguous", 1),
            ("ambiguous", "v3", "ok", "files", "b/ambiguous", 1),
            ("never", "v4", "refused", "files", "a/never", 1),
            ("never", "v5", "ok", "elsewhere", "c/never", 1),
            ("held", "v6", "ok", "files", "a/held", 1),
        ],
        "external_id string, video_id string, status string, source string, uri string, seen_at long",
    )
    matched = match(statements, files, "files").localCheckpoint()
    held = spark.createDataFrame(
        [("v6", "t", "align"), ("v1", "u", "align")], "video_id string, task string, split string"
    )

    kept, refused = published(spark, tmp_path, LABELS, label_rows(matched, "t", SLUGS))
    assert refused == Counter(
        {
            ("ambiguous", "ambiguous_name"): 1,
            ("copy", "label_contradicted"): 1,  # the same content as known, called otherwise
            ("known", "label_contradicted"): 1,
            ("known.mp4", "label_contradicted"): 1,
            ("gap", "label_missing"): 1,
            ("gap", "label_contradicted"): 2,
            ("never", "key_twice"): 1,
        }
    )
    assert {row["video_id"]: row["label"] for row in kept} == {ext("never"): "mixed", "v6": "mixed"}

    kept, refused = published(spark, tmp_path, SPLITS, split_rows(matched, held, "t"))
    twice = {place: count for place, count in refused.items() if place[1] == TWICE}
    assert refused - Counter(twice) == Counter(
        {
            ("known", "split_leakage"): 1,  # inside this file
            ("held", "split_leakage"): 1,  # from an earlier load
        }
    )
    assert sum(twice.values()) == 4  # the copy, never, two of the three gaps
    assert {row["video_id"]: row["split"] for row in kept} == {"v1": "test", ext("never"): "test", ext("gap"): "align"}


FREE = LabelSet(("rising", "falling", "mixed"), "independent")
FREE_FILE = """file,label,split
one,"mixed ; Up",test
rows,mixed,test
rows,rising,test
rows,mixed,align
empty,,test
said,none,test
again,none,test
again,,test
torn,none,test
torn,mixed,test
cell,"none,mixed",test
ambiguous,rising,test
,rising,test
"""


def test_rows_of_independent_labels_are_united_and_none_stands_alone(spark, tmp_path):
    (tmp_path / "labels.csv").write_text(FREE_FILE)
    ingest = load(None, ["ingest.labels.values={Up: rising}"]).ingest
    statements = read_statements(spark, str(tmp_path / "labels.csv"), ingest, FREE, None)
    files = spark.createDataFrame(
        [("ambiguous", "v2", "ok", "files", "a/ambiguous", 1), ("ambiguous", "v3", "ok", "files", "b/ambiguous", 1)],
        "external_id string, video_id string, status string, source string, uri string, seen_at long",
    )
    matched = united(match(statements, files, "files"), FREE.slugs).localCheckpoint()
    kept, refused = published(spark, tmp_path, LABELS, label_rows(matched, "t", FREE), FREE)
    found = {row["external_id"]: (row["label"], row["labels"]) for row in kept}
    assert found == {
        "one": (None, ["rising", "mixed"]),
        "rows": (None, ["rising", "mixed"]),
        "said": (None, []),
        "again": (None, []),
    }
    assert refused == Counter(
        {
            ("torn", "label_contradicted"): 2,
            ("cell", "label_contradicted"): 1,
            ("ambiguous", "ambiguous_name"): 1,
            ("None", "name_missing"): 1,
            ("rows", "key_twice"): 1,  # it is claimed for another stage, too
            ("empty", "label_missing"): 1,  # an empty cell says nothing, and never that no label applies
            ("again", "label_missing"): 1,
        }
    )
    held = spark.createDataFrame([], "video_id string, task string, split string")
    kept, refused = published(spark, tmp_path, SPLITS, split_rows(matched, held, "t"), FREE)
    assert refused[("rows", "split_leakage")] == 1
    assert {row["external_id"] for row in kept} >= {"one", "rows", "empty", "said", "again"}


def test_a_strange_word_in_a_cell_of_independent_labels_is_named_alone(spark, tmp_path):
    (tmp_path / "labels.csv").write_text('file,label\na,"rising,odd|mixed"\n')
    with pytest.raises(UsageError, match=r"out of rising, falling, mixed, none, found 'odd' \(1 rows\)"):
        read_statements(spark, str(tmp_path / "labels.csv"), load().ingest, FREE, None)


def hate_files(folder, sizes: dict[str, int], leaked: str):
    """TSV files in MultiHateClip's form; train and test share the id `leaked`."""
    folder.mkdir()
    for part, size in sizes.items():
        ids = [f"-{part}{number:04}_x" for number in range(size)]
        ids[0] = leaked
        lines = ["Video_ID\tMajority_Voting\tLabel", *(f"{name}\tOffensive\t['a', 'b']" for name in ids)]
        (folder / f"English_{part}.tsv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.mark.parametrize("real", [False, True], ids=["generated", "real"])
def test_one_video_in_two_splits_is_found_across_loads(spark, tmp_path, request, real):
    folder = hate_files(tmp_path / "tsv", {"train": 7, "test": 4}, "leaked-1")
    rows, leaked = 11, "leaked-1"
    if real:
        folder = request.getfixturevalue("shared") / "data" / "multihateclip"
        if not folder.is_dir():
            pytest.skip("no MultiHateClip files")
        ids = [
            line.split("\t")[0] for path in folder.glob("*.tsv") for line in path.read_text().splitlines()[1:] if line
        ]
        rows, leaked = 1001, next(name for name, count in Counter(ids).items() if count == 2)
        assert len(ids) == 1001 and len(set(ids)) == 1000
    lake = Lake(tmp_path / "lake", conf="conf/multihateclip.yaml")
    loads = {"train": "align", "valid": "calibrate", "test": "test"}
    runs = [
        lake.job("ingest", labels=str(path), split=stage)
        for part, stage in loads.items()
        if (path := folder / f"English_{part}.tsv").exists()
    ]
    total = {name: sum(run.counts[name] for run in runs) for name in ("label_rows", "splits_new", "split_leakage")}
    assert total == {"label_rows": rows, "splits_new": rows - 1, "split_leakage": 1}
    splits = lake.rows("splits")
    assert len(splits) == rows - 1 == len({row["video_id"] for row in splits})
    assert ext(leaked, "multihateclip") in {row["video_id"] for row in splits}
    (refused,) = lake.rows("quarantine")
    assert (refused["table"], refused["reason"]) == ("splits", "split_leakage") and leaked in refused["original"]
    assert {row["label"] for row in lake.rows("labels")} <= {"normal", "offensive", "hateful"}
