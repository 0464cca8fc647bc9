"""Files with texts: what they state, and what of it is new."""

from __future__ import annotations

import pytest

from conf.settings import load
from jobs.runtime.errors import UsageError
from jobs.steps.text_files import changes, read_statements

STATED = "video_id string, external_id string, row int, field string, text string"
MATCHED = f"{STATED}, refused_reason string, refused_message string"


def read(spark, tmp_path, text: str | bytes, *overrides: str) -> dict:
    path = tmp_path / "texts.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    rows = read_statements(spark, str(path), load(None, overrides).ingest).collect()
    return {(row["external_id"], row["field"]): row["text"] for row in rows}


def test_every_cell_states_one_field_and_an_empty_one_that_there_is_none(spark, tmp_path):
    found = read(spark, tmp_path, 'file,title,transcript\na.mp4,"Cats, and\ndogs",\nb.mp4,"",Meow.\n')
    assert found["a.mp4", "title"] == "Cats, and\ndogs" and found["b.mp4", "transcript"] == "Meow."
    assert found["a.mp4", "transcript"] == found["b.mp4", "title"] == ""


def test_columns_may_be_called_otherwise_and_the_others_are_left(spark, tmp_path):
    wanted = "ingest.texts={id: clip, fields: {Titel: title}}"
    assert read(spark, tmp_path, "clip,Titel,x\na,Cats,y\n", wanted) == {("a", "title"): "Cats"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("file,Some Title\na,b\n", "expected columns named like title or on_screen beside 'file', found 'Some Title'"),
        ("name,title\na,b\n", "expected a column 'file', found 'name', 'title'"),
        ("file\na\n", "found only 'file'"),
        ("", "found an empty file"),
    ],
)
def test_a_file_of_another_shape_is_refused(spark, tmp_path, text, said):
    with pytest.raises(UsageError, match=said):
        read(spark, tmp_path, text)


def test_only_what_is_said_anew_is_taken_and_the_odd_is_refused(spark):
    fine = (None, None)
    matched = [
        ("v1", "a", 0, "title", "Cats", *fine),  # as before
        ("v1", "a", 0, "transcript", "", *fine),  # nothing, as before
        ("v2", "b", 1, "title", "Mice", *fine),  # changed
        ("v2", "b", 1, "transcript", "", *fine),  # taken back
        ("v3", "c", 2, "title", "New", *fine),
        ("v3", "d", 3, "title", "Two files, one content", *fine),
        ("v6", "g", 6, "title", "", *fine),
        ("v6", "g", 7, "title", "In the second row", *fine),
        ("v6", "g", 8, "title", "", *fine),
        ("v4", "e", 4, "title", "caf\ufffd", *fine),
        ("v5", "f", 5, "title", "whose?", "ambiguous_name", "2 different videos"),
    ]
    current = [("v1", "title", "Cats"), ("v2", "title", "Dogs"), ("v2", "transcript", "Meow.")]
    rows = changes(
        spark.createDataFrame(matched, MATCHED),
        spark.createDataFrame(current, "video_id string, field string, text string"),
    ).collect()
    found = {(row["external_id"], row["field"]): (row["text"], row["refused_reason"]) for row in rows}
    assert len(rows) == len(found)
    assert found == {
        ("b", "title"): ("Mice", None),
        ("b", "transcript"): ("", None),
        ("c", "title"): ("New", None),
        ("d", "title"): ("Two files, one content", "said_twice"),
        ("g", "title"): ("In the second row", None),
        ("e", "title"): ("caf\ufffd", "not_utf8"),
        ("f", "title"): ("whose?", "ambiguous_name"),
    }
    assert all((row["refused_message"] is None) == (row["refused_reason"] is None) for row in rows)
