"""Which videos a quarantine takes out of a night for good."""

from __future__ import annotations

from types import SimpleNamespace

import pyarrow as pa

from jobs.steps.serving import refused_videos
from lake.audit import TWICE
from lake.write import REFUSED, quarantined
from schemas.decisions import DECISIONS
from schemas.scores import SCORES
from schemas.traces import TRACES

RECIPE = SimpleNamespace(id="r")
SCORER = SimpleNamespace(id="s", rule_id="d", rollouts=4, recipes=[RECIPE], plan=[(RECIPE, 4)])
REFUSALS = (
    ("traces", "a/r/0/3/0", "status_is_known"),
    ("scores", "b/s/1", "probs_sum_to_one"),
    ("decisions", "c/s/0/d", "top_prob_in_range"),
)
OF_OTHERS = (
    ("traces", "e/r/0/4/0", "status_is_known"),  # one more rollout than the scorer looks at
    ("traces", "f/q/0/0/0", "status_is_known"),
    ("scores", "g/other/0", "probs_sum_to_one"),
    ("decisions", "h/s/0/other", "top_prob_in_range"),
    ("traces", "i/r/0/0/0", TWICE),  # the other row of that key was kept
    ("videos", "j", "not_a_video"),
)


def test_only_what_its_own_versions_were_refused_takes_a_video_out(spark):
    quarantine = spark.createDataFrame([*REFUSALS, *OF_OTHERS], "table string, row_key string, reason string")
    found = [tuple(row) for row in refused_videos(quarantine, SCORER).collect()]
    assert sorted(found) == [("a", "0"), ("b", "1"), ("c", "0")]


def test_the_keys_of_the_tables_are_read_as_the_quarantine_writes_them(spark):
    """Another order of their key columns would take nobody out, in silence."""
    of_scorer = {
        "recipe_id": "r",
        "scorer_id": "s",
        "rule_id": "d",
        "input_digest": "i",
        "rollout_index": 3,
        "attempt": 0,
    }
    rows = []
    for table in (TRACES, SCORES, DECISIONS):
        values = of_scorer | {"video_id": f"of {table.name}"}
        refused = {name: values[name] for name in table.key} | dict(zip(REFUSED, (None, "odd", "m"), strict=True))
        rows += quarantined(pa.Table.from_pylist([refused]), table, "w").to_pylist()
    kept = [(row["table"], row["row_key"], row["reason"]) for row in rows]
    found = refused_videos(spark.createDataFrame(kept, "table string, row_key string, reason string"), SCORER)
    assert {tuple(row) for row in found.collect()} == {
        (f"of {name}", "i") for name in ("traces", "scores", "decisions")
    }
