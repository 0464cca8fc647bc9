"""Given any line of another system's file, then it is a trace with a status, or a row with a reason; never a gap."""

from __future__ import annotations

import json

import pyarrow as pa
from hypothesis import example, given
from hypothesis import strategies as st

from models.language.grammar import SEGMENTS, parse
from models.language.loose import Names, Where
from schemas.traces import STATUSES
from udfs.foreign import FOREIGN_COLUMNS, Mapped, read_foreign

LABELS = ("rising", "falling", "mixed")
MAPPED = Mapped("clip.name", ("out", "also"), "prompt", Where("$.label"), Where("/why: (.*)/"))
GIVEN = pa.schema([("row", pa.int64()), ("line", pa.string())])

TEXT = st.text(st.characters(), max_size=30)
KEYS = st.sampled_from(["label", "name", "out"]) | TEXT
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["label", "name", "out"]) | TEXT, inner, max_size=3)
    ),
    max_leaves=6,
)
NAMES = st.sampled_from(["clip", "clip.name", "name", "out", "also", "prompt", "label"])
ROWS = st.dictionaries(NAMES, VALUES, max_size=6).map(json.dumps)
MARKS = [*"{}[]:,\"'\\/`<>=@\0\x1b\u2028\ufeff"]
WORDS = [
    "```json\n",
    "null",
    "NaN",
    "1e999",
    "label",
    ": ",
    "rising",
    "not ",
    "<answer>",
    "</answer>",
    "<think>",
    "</think>",
]
HOSTILE = ["<script>", "=cmd()", "\\ud83d"]
PIECES = st.sampled_from(MARKS + WORDS + HOSTILE)
WRITTEN = st.lists(PIECES | TEXT, max_size=20).map("".join)


def utf8(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


@given(st.lists(st.none() | ROWS | WRITTEN.map(utf8), min_size=1, max_size=4))
@example(["[" * 100_000])
@example(['{"clip": {"name": "v"}, "out": ' + "9" * 5000 + "}"])
@example(['{"clip": {"name": "v"}, "out": "{\\"label\\": ' + "9" * 5000 + '}"}'])
@example(['{"clip": {"name": "v"}, "out": "' + "[" * 50_000 + '"}'])
@example(['{"clip": {"name": "v"}, "out": "label: \\ud83d"}'])
def test_every_line_is_answered(lines):
    batch = pa.RecordBatch.from_pydict({"row": range(len(lines)), "line": lines}, GIVEN)
    for kind in (None, MAPPED.answer):
        mapped = Mapped(MAPPED.id, MAPPED.texts, MAPPED.prompt, kind, MAPPED.think)
        (made,) = read_foreign(mapped, Names(LABELS, {"up": "rising"}), "observation")([batch])
        assert made.schema == FOREIGN_COLUMNS
        made.validate(full=True)
        rows = made.to_pylist()
        for number in range(len(lines)):
            mine = [row for row in rows if row["row"] == number]
            refused = [row for row in mine if row["refused_reason"]]
            assert (refused == mine and len(mine) == 1 and mine[0]["refused_message"]) or (len(mine), refused) == (
                2,
                [],
            )
        for row in rows:
            if row["refused_reason"] is None:
                assert row["status"] in STATUSES and (row["status"] == "ok") == (row["labels"] is not None)
                assert row["label"] is None or (row["labels"] == [row["label"]] and row["label"] in LABELS)


@given(WRITTEN)
@example("<answer>" * 10_000)
@example("<think>" + "</think><answer>rising" * 5_000)
def test_whatever_a_model_writes_has_a_status_and_stays_as_it_is(text):
    for kind in SEGMENTS:
        for several in (False, True):
            found = parse(text, kind, LABELS, "stop", several=several)
            assert found.status in STATUSES and (found.status == "ok") == (found.labels is not None)
            assert set(found.labels or ()) <= set(LABELS)
            for part in (found.answer, found.think, found.observation):
                assert part is None or part in text
