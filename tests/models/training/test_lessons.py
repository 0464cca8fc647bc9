"""Lessons on a disk: any row at once, a digest of what they say, an order that knows no paths."""

from __future__ import annotations

import pyarrow as pa
import pytest

from models.training.lessons import COLUMNS, Lesson, Lessons, write


def rows(count: int, folder: str = "/a"):
    return [
        {"video_id": f"{n:03}", "uri": f"{folder}/{n}", "said": None, "text": f"t{n}", "labels": ["x", "y"][: n % 3]}
        for n in range(count)
    ]


def batches(values, size=4):
    return [pa.RecordBatch.from_pylist(values[at : at + size], COLUMNS) for at in range(0, len(values), size)]


def test_rows_come_back_by_number(tmp_path):
    found = Lessons(write(tmp_path, batches(rows(10))))
    assert len(found) == 10 and list(found.ids()) == [f"{n:03}" for n in range(10)]
    assert found[7] == Lesson("007", "/a/7", "", "t7", ("x",))
    assert [found[n].labels for n in range(3)] == [(), ("x",), ("x", "y")]
    with pytest.raises(IndexError):
        found[10]


def test_the_digest_is_of_what_is_said_and_not_of_where_videos_lie(tmp_path):
    digests = set()
    for name, values, size in (("a", rows(9), 4), ("b", rows(9, "/elsewhere"), 2)):
        digests.add(Lessons(write(tmp_path / name, batches(values, size))).digest)
    assert len(digests) == 1
    changed = [row | {"text": "other"} if row["video_id"] == "004" else row for row in rows(9)]
    assert Lessons(write(tmp_path / "c", batches(changed))).digest not in digests


def test_rows_out_of_order_are_refused(tmp_path):
    with pytest.raises(ValueError, match="in the order of their ids"):
        write(tmp_path, batches(rows(5)[::-1]))


def test_no_rows_are_no_lessons(tmp_path):
    assert len(Lessons(write(tmp_path, []))) == 0
