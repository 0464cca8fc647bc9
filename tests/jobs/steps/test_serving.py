"""Which videos a quarantine takes out of a night for good."""

from __future__ import annotations

from types import SimpleNamespace

from jobs.steps.serving import refused_videos
from lake.audit import TWICE

SCORER = SimpleNamespace(id="s", rule_id="d", rollouts=4, recipe=SimpleNamespace(id="r"))
REFUSED = (
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
    quarantine = spark.createDataFrame([*REFUSED, *OF_OTHERS], "table string, row_key string, reason string")
    found = [tuple(row) for row in refused_videos(quarantine, SCORER).collect()]
    assert sorted(found) == [("a", "0"), ("b", "1"), ("c", "0")]
