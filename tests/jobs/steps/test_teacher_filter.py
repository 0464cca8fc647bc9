"""Which traces of a teacher are kept, and what is said of the others: rows in, verdicts out."""

from __future__ import annotations

import pytest

from jobs.steps.teacher_filter import judged, marked

COLUMNS = (
    "video_id string, recipe_id string, input_digest string, rollout_index int, attempt int, split string, status string, "
    "well_formed boolean, text string, observation string, labels array<string>, error string, seen string, thought string"
)
LABELS = ("cat", "non-cat", "dog")


def verdicts(spark, rows: list[dict], truth: dict[str, list[str] | None], labels=LABELS) -> dict:
    """(video, index) -> reason and message."""
    good = {"recipe_id": "r", "input_digest": "0", "rollout_index": 0, "attempt": 0, "split": "align", "status": "ok"}
    good |= {
        "well_formed": True,
        "text": "t",
        "observation": None,
        "labels": ["cat"],
        "error": None,
        "seen": None,
        "thought": None,
    }
    names = [part.split()[0] for part in COLUMNS.split(", ")]
    given = spark.createDataFrame([tuple((good | row)[name] for name in names) for row in rows], COLUMNS)
    told = spark.createDataFrame(list(truth.items()), "video_id string, labels array<string>")
    found = judged(given, told, labels, "think_answer", 8).collect()
    assert len(found) == len(rows)
    return {(row["video_id"], row["rollout_index"]): (row["refused_reason"], row["refused_message"]) for row in found}


def test_a_right_trace_is_kept_and_a_wrong_one_says_what_was_expected_and_found(spark):
    found = verdicts(spark, [{"video_id": "a"}, {"video_id": "b"}], {"a": ["cat"], "b": ["dog"]})
    assert found["a", 0] == (None, None)
    assert found["b", 0] == ("teacher_wrong_label", "expected the video's own label dog, found cat")


@pytest.mark.parametrize(
    ("row", "reason", "said"),
    [
        ({"split": "test"}, "teacher_split", "expected a video of the split align, found one of test"),
        ({"split": None}, "teacher_split", "found one of no split"),
        ({"status": "decode_error", "error": "cut_short: x", "labels": None}, "teacher_failed", "found cut_short: x"),
        ({"status": "generation_error", "labels": None}, "teacher_failed", "found generation_error"),
        ({"status": "parse_error", "labels": None}, "teacher_format", "answers cat or non-cat or dog, found parse_error: t"),
        ({"status": "parse_error", "labels": None, "text": None}, "teacher_format", "found parse_error: nothing"),
        ({"status": "too_long", "labels": None}, "teacher_format", "found too_long: t"),
        ({"well_formed": False}, "teacher_format", "expected a whole think_answer trace"),
        ({"well_formed": None}, "teacher_format", "found a broken one: t"),
        ({"text": "t" * 129}, "teacher_too_long", "at most 128 characters, as rollout.max_tokens allows, found 129"),
        ({"observation": "a Cat, asleep"}, "teacher_judges_early", "names no label, found Cat"),
        ({"observation": "non-cat"}, "teacher_judges_early", "found non-cat"),
        ({"seen": "dog", "thought": "cat"}, "teacher_contradicts", "observation to argue for the answer cat, found it to"),
        ({"seen": "cat", "thought": "dog"}, "teacher_contradicts", "think to argue for the answer cat, found it to argue"),
    ],
)  # fmt: skip
def test_each_fault_has_its_reason(spark, row, reason, said):
    found = verdicts(spark, [{"video_id": "a"} | row], {"a": ["cat"]})["a", 0]
    assert found[0] == reason and said in found[1]


@pytest.mark.parametrize(
    "text",
    [
        "The ground truth is cat.",
        "which fits the Ground-Truth label",
        "groundtruth: cat",
        "so the correct label is cat",
        "It matches the given\nlabel.",
        "As the annotation says, there is one",
        "according to the human annotators it is one",
        "the annotation indicates a cat",
    ],
)
def test_words_of_somebody_who_knew_the_label_are_refused(spark, text):
    reason, message = verdicts(spark, [{"video_id": "a", "text": f"I look. {text}"}], {"a": ["cat"]})["a", 0]
    assert reason == "teacher_leak" and message.rpartition(": ")[2].casefold() in text.casefold()


@pytest.mark.parametrize(
    "text",
    [
        "Therefore, the correct answer is B.",
        'The box is labeled as "cat".',
        "a truth on the ground",
        "handwritten annotations beside the drawing",
        "one could label it a cat",
    ],
)
def test_honest_words_are_not(spark, text):
    assert verdicts(spark, [{"video_id": "a", "text": text}], {"a": ["cat"]})["a", 0] == (None, None)


def test_what_argues_for_the_answer_or_for_nothing_is_kept(spark):
    rows = [{"video_id": "a", "seen": seen, "thought": thought} for seen, thought in (("cat", "cat"), ("cat", None))]
    rows = [row | {"rollout_index": index} for index, row in enumerate(rows)]
    assert set(verdicts(spark, rows, {"a": ["cat"]}).values()) == {(None, None)}


def test_a_word_that_holds_a_label_is_another_word(spark):
    rows = [{"video_id": "a", "observation": "a catalogue, a hot-dog-stand, two cats"}]
    assert verdicts(spark, rows, {"a": ["cat"]})["a", 0] == (None, None)


def test_without_a_label_several_traces_have_to_agree(spark):
    failed = {"status": "parse_error", "labels": None}
    rows = [
        *({"video_id": "agreed", "rollout_index": index} for index in range(3)),
        *(
            {"video_id": "torn", "rollout_index": index, "labels": [label]}
            for index, label in enumerate(("cat", "dog"))
        ),
        {"video_id": "alone"},
        {"video_id": "unsure"},
        {"video_id": "unsure", "rollout_index": 1} | failed,
    ]
    found = verdicts(spark, rows, {"agreed": None, "else": ["cat"]})
    assert [found["agreed", index][0] for index in range(3)] == [None] * 3
    assert {found["torn", index][0] for index in range(2)} == {"teacher_unlabelled"}
    assert found["torn", 0][1].endswith("all of one answer; found 2 with cat and dog")
    assert found["alone", 0][1].endswith("found 1 with cat")
    assert found["unsure", 0][0] == "teacher_unlabelled" and found["unsure", 1][0] == "teacher_format"


def test_independent_labels_are_held_against_each_other_as_a_whole(spark):
    rows = [
        {"video_id": "both", "labels": ["cat", "dog"]},
        {"video_id": "none", "labels": []},
        {"video_id": "less", "labels": ["cat"]},
        {"video_id": "more", "labels": ["cat"]},
    ]
    truth = {"both": ["cat", "dog"], "none": [], "less": ["cat", "dog"], "more": []}
    found = verdicts(spark, rows, truth)
    assert found["both", 0][0] is found["none", 0][0] is None
    assert found["less", 0] == ("teacher_wrong_label", "expected the video's own label cat, dog, found cat")
    assert found["more", 0] == ("teacher_wrong_label", "expected the video's own label none, found cat")


def test_what_names_no_video_is_neither_kept_nor_refused(spark):
    rows = [{"video_id": None, "rollout_index": 0}, {"video_id": None, "rollout_index": 1, "split": None}]
    assert set(verdicts(spark, rows, {"a": ["cat"]}).values()) == {(None, None)}


def test_new_is_what_the_lake_has_neither_as_a_trace_nor_as_a_refusal(spark):
    key = "video_id string, recipe_id string, input_digest string, rollout_index int, attempt int"
    rows = spark.createDataFrame(
        [
            ("kept", "r", "0", 0, 0, "kept/r/0/0/0", None),
            ("known", "r", "0", 0, 0, "known/r/0/0/0", None),
            ("corrected", "r", "0", 0, 0, "corrected/r/0/0/0", None),
            ("refused", "r", "0", 0, 0, "refused/r/0/0/0", "teacher_leak"),
            ("noted", "r", "0", 0, 0, "noted/r/0/0/0", "teacher_leak"),
            ("otherwise", "r", "0", 0, 0, "otherwise/r/0/0/0", "teacher_leak"),
            (None, "r", "0", 0, 0, "r/0/0/0", None),
        ],
        f"{key}, refused_key string, refused_reason string",
    )
    traces = spark.createDataFrame([("known", "r", "0", 0, 0)], key)
    quarantine = spark.createDataFrame(
        [
            ("noted/r/0/0/0", "traces", "teacher_leak"),
            ("noted/r/0/0/0", "traces", "teacher_leak"),  # by another run at the same time
            ("otherwise/r/0/0/0", "traces", "teacher_format"),
            ("corrected/r/0/0/0", "traces", "teacher_wrong_label"),
            ("refused/r/0/0/0", "scores", "teacher_leak"),
        ],
        "row_key string, table string, reason string",
    )
    found = {row["video_id"]: row["is_new"] for row in marked(rows, traces, quarantine).collect()}
    assert found == {
        "kept": True,
        "known": False,
        "corrected": True,
        "refused": True,
        "noted": False,
        "otherwise": True,
        None: False,
    }
