"""Refused rows: every one is named by its key, whatever its columns are, and keeps what it said."""

import json
from datetime import UTC, datetime

import pyarrow as pa
import pytest

from lake.table import arrow_schema
from lake.write import REFUSED, quarantined
from schemas.tables import TABLES
from schemas.traces import TRACES

VALUES = {pa.string(): "x", pa.int32(): 7, pa.int64(): 8, pa.timestamp("us", "UTC"): datetime(2026, 1, 2, tzinfo=UTC)}


def refused(row: dict) -> pa.Table:
    return pa.Table.from_pylist([dict(zip(REFUSED, (None, "reason", "message"), strict=True)) | row])


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_a_refused_row_of_any_table_is_named_by_its_key(table):
    row = {name: VALUES[arrow_schema(table).field(name).type] for name in table.key}
    (kept,) = quarantined(refused(row), table, "w").to_pylist()
    assert kept["row_key"].count("/") == len(table.key) - 1 and "?" not in kept["row_key"]
    assert set(json.loads(kept["original"])) == set(table.key)


def test_what_the_key_lacks_is_a_question_mark():
    row = dict.fromkeys(TRACES.key, "x") | {"video_id": None, "rollout_index": 3}
    (kept,) = quarantined(refused(row), TRACES, "w").to_pylist()
    assert kept["row_key"] == "?/x/x/3/x"
