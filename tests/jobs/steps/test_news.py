"""What a night takes on because a text is another one than was decided on."""

from __future__ import annotations

from jobs.steps.news import returned


def test_a_text_that_changes_back_makes_the_earlier_decision_count_again(spark):
    """video, its text now | what was decided, when | what was noted, when -> whose text is back at an earlier one."""
    asked = spark.createDataFrame(
        [("same", "A"), ("back", "A"), ("noted", "A"), ("new", "B"), ("on", "C"), ("away", "B")],
        "video_id string, input_digest string",
    ).selectExpr("*", "DATE'2026-01-02' AS ingested_on")
    decided = [("same", "A", 1), ("back", "A", 1), ("back", "B", 2), ("noted", "A", 1), ("noted", "B", 2)]
    decided += [("new", "A", 1), ("on", "A", 1), ("on", "B", 2), ("on", "C", 4), ("away", "A", 1), ("away", "B", 2)]
    noted = [("noted", "A", 3), ("on", "A", 3), ("away", "A", 3)]
    decisions = spark.createDataFrame(decided, "video_id string, input_digest string, decided_at int")
    inputs = spark.createDataFrame(noted, "video_id string, input_digest string, noted_at int")
    found = {(row["video_id"], row["input_digest"]) for row in returned(asked, decisions, inputs).collect()}
    assert found == {("back", "A"), ("away", "B")}
