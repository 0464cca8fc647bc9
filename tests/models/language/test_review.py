"""What a calibrator that watches the video is asked."""

import pytest

from models.language.review import DEFAULT_TEMPLATE, review_text, said

LABELS = {"rising": "Every  digit\nis larger.", "mixed": ""}


def test_labels_come_with_their_codes_and_policies():
    text = review_text(DEFAULT_TEMPLATE, LABELS, ("A", "B"))
    assert "\nA rising: Every digit is larger.\nB mixed\n" in text
    assert review_text("Which? {codes}", LABELS, ("A", "B")) == "Which? A rising, B mixed"


@pytest.mark.parametrize(
    ("template", "found"),
    [("Which?", "found none"), ("{labels}", "found {labels}"), ("{codes", "known: {choices} and {codes}")],
)
def test_a_template_that_asks_for_nothing_or_what_is_not_there_is_refused(template, found):
    with pytest.raises(ValueError, match="review template: ") as refused:
        review_text(template, LABELS, ("A", "B"))
    assert found in str(refused.value)


def test_a_usable_trace_is_its_conclusion_and_what_led_to_it():
    trace = {"status": "ok", "labels": ["rising"], "observation": " 1 2 ", "think": "1<2", "text": "<think>..."}
    assert said(trace) == "conclusion: rising\nrationale: 1 2\n1<2"
    assert said(trace, "title: two digits") == "title: two digits\nconclusion: rising\nrationale: 1 2\n1<2"


def test_an_unusable_one_is_an_empty_conclusion_with_all_its_text():
    trace = {"status": "parse_error", "labels": [], "observation": "1 2", "think": None, "text": "1 2 so what"}
    assert said(trace) == "conclusion:\nrationale: 1 2 so what"
