"""What contracts make of labels that exclude each other, and of labels that are independent."""

from __future__ import annotations

from datetime import date

import pytest

from lake.audit import audit
from lake.table import spark_schema
from schemas.label_set import LabelSet
from schemas.tables import BY_NAME

SLUGS = ("b", "a", "c")
TRACE = {
    "recipe_id": "r",
    "input_digest": "0",
    "rollout_index": 0,
    "attempt": 0,
    "status": "ok",
    "label": "a",
    "labels": ["a"],
}
SCORE = {"scorer_id": "s", "input_digest": "0", "rollouts": 1, "probs": {"a": 0.5, "b": 0.3, "c": 0.2}}
DECISION = {"scorer_id": "s", "input_digest": "0", "rule_id": "u", "abstain": False, "reason": "clear", "top_prob": 0.9}
DECISION |= {"label": "a", "labels": ["a"], "prediction_set": ["a"]}
LABEL = {"task": "t", "label": "a", "labels": ["a"], "source": "f"}
FREE = {"label": None, "labels": ["b", "c"]}

# table, mode, changes to a good row of exclusive labels -> why it is refused, None if it is not
ROWS = [
    ("traces", "exclusive", {}, None),
    ("traces", "exclusive", {"label": None, "labels": None}, "ok_has_a_label"),
    ("traces", "exclusive", {"labels": None}, "labels_are_the_label"),
    ("traces", "exclusive", {"labels": ["b"]}, "labels_are_the_label"),
    ("traces", "exclusive", {"label": "d", "labels": ["d"]}, "label_is_known"),
    ("traces", "exclusive", {"status": "too_long", "label": None, "labels": None}, None),
    ("traces", "exclusive", {"label_logprobs": {"a": 1e-9, "b": -700.0, "c": float("-inf")}}, None),
    ("traces", "exclusive", {"label_logprobs": {"a": float("nan"), "b": -1.0}}, "label_logprobs_are_logarithms"),
    ("traces", "exclusive", {"label_logprobs": {"a": 0.5, "b": -1.0}}, "label_logprobs_are_logarithms"),
    ("traces", "independent", FREE, None),
    ("traces", "independent", FREE | {"labels": []}, None),
    ("traces", "independent", FREE | {"labels": None}, "ok_has_labels"),
    ("traces", "independent", FREE | {"labels": ["c", "b"]}, "labels_are_known"),
    ("traces", "independent", FREE | {"labels": ["b", "b"]}, "labels_are_known"),
    ("traces", "independent", FREE | {"labels": ["d"]}, "labels_are_known"),
    ("traces", "independent", {}, "label_is_left_out"),
    ("traces", "independent", FREE | {"status": "too_long"}, "failed_has_no_labels"),
    ("scores", "exclusive", {}, None),
    ("scores", "exclusive", {"probs": {"a": 0.9, "b": 0.9, "c": 0.9}}, "probs_sum_to_one"),
    ("scores", "independent", {"probs": {"a": 0.9, "b": 0.9, "c": 0.9}}, None),
    ("scores", "independent", {"probs": {"a": 0.0, "b": 0.0, "c": 1.0}}, None),
    ("scores", "independent", {"probs": {"a": 1.1, "b": 0.0, "c": 0.0}}, "probs_are_probabilities"),
    ("scores", "independent", {"probs": {"a": float("nan"), "b": 0.0, "c": 0.0}}, "probs_are_probabilities"),
    ("scores", "independent", {"probs": {"a": 0.9, "b": 0.9}}, "probs_cover_the_labels"),
    ("decisions", "exclusive", {}, None),
    ("decisions", "exclusive", {"abstain": True, "label": None, "labels": []}, None),
    ("decisions", "exclusive", {"abstain": True, "label": None, "labels": None}, "labels_are_the_label"),
    ("decisions", "exclusive", {"labels": ["a", "c"]}, "labels_are_the_label"),
    ("decisions", "exclusive", {"prediction_set": []}, "prediction_set_is_not_empty"),
    ("decisions", "independent", FREE, None),
    ("decisions", "independent", FREE | {"labels": [], "prediction_set": []}, None),
    ("decisions", "independent", FREE | {"labels": None}, "abstains_or_labels"),
    ("decisions", "independent", FREE | {"abstain": True}, "abstains_or_labels"),
    ("decisions", "independent", FREE | {"abstain": True, "labels": None}, None),
    ("decisions", "independent", {}, "label_is_left_out"),
    ("labels", "exclusive", {}, None),
    ("labels", "exclusive", {"labels": ["a", "c"]}, "labels_are_the_label"),
    ("labels", "independent", FREE, None),
    ("labels", "independent", FREE | {"labels": []}, None),
    ("labels", "independent", FREE | {"labels": None}, "labels_is_given"),
    ("labels", "independent", FREE | {"labels": ["none"]}, "labels_are_known"),
]
GOOD = {"traces": TRACE, "scores": SCORE, "decisions": DECISION, "labels": LABEL}


@pytest.mark.parametrize("mode", ["exclusive", "independent"])
@pytest.mark.parametrize("name", GOOD)
def test_each_row_is_kept_or_refused_for_what_its_mode_asks(spark, tmp_path, name, mode):
    table = BY_NAME[name]
    mine = [(changes, reason) for table_name, own, changes, reason in ROWS if (table_name, own) == (name, mode)]
    rows = []
    for number, (changes, _) in enumerate(mine):
        row = {"video_id": str(number), "ingested_on": date(2026, 1, 1)} | GOOD[name] | changes
        rows.append(tuple(row.get(column.name) for column in table.columns))
    spark.createDataFrame(rows, spark_schema(table)).write.parquet(str(tmp_path / "rows"))
    staged = spark.read.schema(spark_schema(table)).parquet(str(tmp_path / "rows"))
    judged = audit(staged, table.contract(LabelSet(SLUGS, mode)), table.key).judged
    found = {int(row["video_id"]): row["refused_reason"] for row in judged.collect()}
    assert found == {number: reason for number, (_, reason) in enumerate(mine)}
