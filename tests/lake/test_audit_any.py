"""Given any rows for any table, then each of them is kept or refused, and both judges say the same of every check."""

from __future__ import annotations

import json
import math
import random
from collections import Counter
from datetime import UTC, date, datetime

import pytest
from sealed import TASK, score_rows, trace

from lake.audit import audit
from lake.staging import Wave
from lake.table import spark_schema
from schemas.label_set import LabelSet
from schemas.tables import BY_NAME, TABLES

LABELS = LabelSet(("rising", "falling", "mixed"))
ROWS = 120
WORDS = (
    "",
    " ",
    "ok",
    "refused",
    "parse_error",
    "decode_error",
    "rising",
    "mixed",
    "test",
    "stop",
    "='1'",
    "\0",
    "a" * 64,
    "é\ud7ff",
)
NUMBERS = (0, 1, -1, 3, 2**31 - 1, -(2**31))
REALS = (0.0, -0.0, 1.0, 0.5, -1e-9, 1 + 1e-9, math.nan, math.inf, -math.inf, 1e308)
PLAIN = {
    "string": lambda dice: dice.choice(WORDS),
    "integer": lambda dice: dice.choice(NUMBERS),
    "long": lambda dice: dice.choice((*NUMBERS, 2**63 - 1)),
    "double": lambda dice: dice.choice(REALS),
    "boolean": lambda dice: dice.random() < 0.5,
    "date": lambda dice: dice.choice((date(1970, 1, 1), date(2026, 1, 2), date(9999, 12, 31))),
    "timestamp": lambda dice: dice.choice((datetime(1970, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC))),
}


def value(dice: random.Random, kind, empty: float = 0.25):
    """Something of a type, as Spark writes it in JSON; None now and then."""
    if dice.random() < empty:
        return None
    if isinstance(kind, str):
        return PLAIN[kind](dice)
    if kind["type"] == "array":
        return [value(dice, kind["elementType"], 0.0) for _ in range(dice.randrange(4))]
    if kind["type"] == "map":
        keys = {value(dice, kind["keyType"], 0.0) for _ in range(dice.randrange(4))} | {*LABELS.slugs}
        return {key: value(dice, kind["valueType"], 0.0) for key in keys}
    return tuple(value(dice, field["type"]) for field in kind["fields"])


GOOD = {
    "traces": trace(0, 0) | {"recipe_id": "r" * 16, "wave_id": "w"},
    "scores": score_rows(Wave("/", "r", "w"), good=1, broken=0)[0] | {"wave_id": "w"},
    "decisions": {
        "video_id": "v",
        "task": TASK,
        "scorer_id": "s" * 16,
        "input_digest": "0" * 16,
        "rule_id": "u" * 16,
        "label": "rising",
        "labels": ["rising"],
        "top_prob": 0.9,
        "prediction_set": ["rising"],
        "abstain": False,
        "reason": "clear",
        "decided_at": datetime(2026, 1, 2, tzinfo=UTC),
        "ingested_on": date(2026, 1, 2),
    },
}
MODES = {"exclusive": LABELS, "independent": LabelSet(LABELS.slugs, "independent")}
CASES = {
    f"{table.name}-{mode}": (table, table.contract(labels))
    for table in TABLES
    for mode, labels in MODES.items()
    if mode == "exclusive" or table.contract(labels) != table.contract(LABELS)
}


@pytest.mark.parametrize("case", CASES)
def test_kept_and_refused_are_all_rows(spark, tmp_path, case):
    table, contract = CASES[case]
    dice = random.Random(case)
    kinds = kinds_of(table)
    rows = [tuple(value(dice, kind, empty) for kind in kinds) for empty in (0.05, 0.4) for _ in range(ROWS // 2)]
    judged(spark, tmp_path, table, contract, rows)


@pytest.mark.parametrize("name", GOOD)
def test_good_rows_of_which_one_value_is_spoiled(spark, tmp_path, name):
    """Given rows that are good but for one value of each, and a good one three times, then that is kept once."""
    table, dice = BY_NAME[name], random.Random(name)
    columns = [column.name for column in table.columns]
    each = list(zip(columns, kinds_of(table), strict=True)) * 4
    spoiled = [
        GOOD[name] | {table.key[0]: f"{n:064x}", column: value(dice, kind)} for n, (column, kind) in enumerate(each)
    ]
    rows = [tuple(row.get(column) for column in columns) for row in [*spoiled, *[GOOD[name]] * 3]]
    found = judged(spark, tmp_path, table, table.contract(LABELS), rows)
    assert found["key_twice"] >= 2 and 0.2 < found[None] / len(rows) < 0.9


def kinds_of(table) -> list:
    return [field["type"] for field in json.loads(spark_schema(table).json())["fields"]]


def judged(spark, folder, table, contract, rows: list[tuple]) -> Counter:
    """Rows by reason, None for kept ones; all of them are there, and the two judges agree, or `audit` would raise."""
    schema = spark_schema(table)
    spark.createDataFrame(rows, schema).repartition(3).write.parquet(str(folder / "rows"))
    found = audit(spark.read.schema(schema).parquet(str(folder / "rows")), contract, table.key)
    judged = found.judged.collect()
    refused = [row for row in judged if row["refused_reason"] is not None]
    assert len(judged) == found.rows == len(rows) and sum(found.refused.values()) == len(refused)
    assert all(row["refused_message"] for row in refused)
    kept = [tuple(str(row[name]) for name in table.key) for row in judged if row["refused_reason"] is None]
    assert len(kept) == len(set(kept))
    reasons = Counter(row["refused_reason"] for row in judged)
    assert set(reasons) <= {None, "key_twice", *(check.name for check in contract)}
    return reasons
