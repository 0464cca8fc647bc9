"""Other systems' answers are found where they are, and nothing is made up where they are not."""

import time

import pytest

from models.language.loose import Names, Where, at

LABELS = ("hateful", "not_hateful")


@pytest.mark.parametrize(
    "text",
    [
        '{"verdict": {"label": "Hateful"}, "why": "a slur"}',
        'Here you are:\n```json\n{"verdict": {"label": "hateful"}}\n```\nAnything else?',
        'I think so. {"verdict": {"label": "HATEFUL"}} That is all.',
        '{"verdict": {"label": "hateful", "why": "he said "no" to',  # cut, and quotes within quotes
        "{'verdict': {'label': 'hateful'}}",
        "Reason: a slur\nLabel: hateful\n",
        "* **Label**: hateful.\n* **Reason**: a slur",
        'label = "hateful"',
    ],
)
def test_the_value_at_a_path_is_found_in_whatever_shape_it_was_written(text):
    assert Names(LABELS).read(Where("$.verdict.label").of({}, text)) == ("hateful",)


@pytest.mark.parametrize(
    "text",
    [
        'First {"label": "normal"}. On second thought {"label": "hateful"}.',
        '```json\n{"label": "normal"}\n```\nNo:\n```json\n{"label": "hateful"}\n```',
        "label: normal\nBut then\nlabel: hateful",
    ],
)
def test_what_is_said_last_counts(text):
    assert Where("$.label").of({}, text) == "hateful"


def test_a_word_inside_of_another_field_is_no_answer():
    assert Where("$.label").of({}, '{"why": "they say label: hateful, and I do not", "verdict": "normal"}') is None


@pytest.mark.parametrize("text", [None, "", "I would rather not say.", '{"verdict": {}}', "labelled hateful", "[1, 2"])
def test_what_is_not_there_is_not_guessed(text):
    assert Where("$.verdict.label").of({}, text) is None


def test_a_regular_expression_finds_what_is_concluded_at_the_end():
    where = Where(r"/\b(not hateful|hateful)\b/")
    assert where.of({}, "At first it looks hateful, but it is not hateful") == "not hateful"
    assert where.of({}, "nothing") is None
    assert Where("/hateful/").of({}, "so hateful!") == "hateful"


def test_a_field_of_the_row_and_nested_ones_are_found():
    row = {"a": {"b": [{"c": "x"}]}, "d.e": 1}
    assert Where("a.b[0].c").of(row, "text") == "x" and at(row, "d.e") == 1
    assert at(row, "a.b[1].c") is None and at(row, "a.z") is None and at("text", "a") is None


@pytest.mark.parametrize("expression", ["/(/", "", "$"])
def test_an_expression_that_is_none_is_told(expression):
    with pytest.raises(ValueError, match="expected"):
        Where(expression)


def test_words_for_labels_are_read_as_people_write_them():
    names = Names(LABELS, {"yes": "hateful", "0": "not_hateful", "false": "not_hateful"})
    words = ("Not hateful.", "NOT-HATEFUL", " yes", 0, False, "maybe", None, {"a": 1})
    no, yes = ("not_hateful",), ("hateful",)
    assert [names.read(word) for word in words] == [no, no, yes, no, no, None, None, None]
    assert names.read(["hateful", "not hateful"]) is None


def test_several_labels_are_read_in_the_order_of_the_task():
    names = Names(LABELS, several=True)
    assert names.read("not hateful, hateful") == LABELS and names.read(["hateful"]) == ("hateful",)
    assert names.read([]) == () and names.read("hateful, odd") is None


def test_a_text_made_to_be_slow_is_read_in_time():
    began = time.monotonic()
    for text in (
        "*" * 200_000,
        "label" * 50_000,
        "{" * 100_000,
        "`" * 300_000,
        "label:" + " " * 300_000,
        '"label":"' + "\\" * 99_999,
    ):
        Where("$.label").of({}, text)
    assert time.monotonic() - began < 5
