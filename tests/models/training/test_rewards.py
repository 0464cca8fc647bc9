"""What a reward gives to honest traces, to sloppy ones, and to those that try to get it for nothing."""

from __future__ import annotations

import math

import pytest

from models.handwriting.rule import label_argued
from models.training.rewards import (
    RewardError,
    accuracy,
    consistency,
    evidence,
    format,
    judge,
    length,
    rewards,
    sound,
)

LABELS = ("rising", "falling", "mixed")
GOOD = "<observation>3 5 7 9</observation><think>3<5 5<7 7<9 so rising</think><answer>rising</answer>"


def judged(
    text, truth=("rising",), grammar="observation", finish="stop", rule=label_argued, labels=LABELS, several=False
):
    return judge(text, grammar, finish, len(text.split()), truth, labels, several, rule=rule)


def test_a_good_trace_has_all_of_it():
    one = judged(GOOD)
    assert (accuracy(one), format(one), consistency(one), evidence(one), sound(one)) == (1,) * 5


@pytest.mark.parametrize("answer", ["rising", " Rising ", "RISING", '"rising."'])
def test_the_answer_counts_whatever_its_case(answer):
    assert accuracy(judged(GOOD.replace(">rising<", f">{answer}<"))) == 1


def test_a_wrong_answer_can_be_well_formed_and_consistent():
    one = judged(GOOD, truth=("falling",))
    assert (accuracy(one), format(one), consistency(one)) == (0, 1, 1)


@pytest.mark.parametrize(
    "text",
    [
        GOOD.replace("3 5 7 9", "rising 3 5 7 9"),  # the label is smuggled into what is seen
        GOOD.replace("3 5 7 9", "3 5 7 9, so the answer is MIXED"),
        GOOD + "<answer>rising</answer>",  # repeated
        GOOD.replace("<think>", "<think><think>"),  # nested
        GOOD.replace("so rising", "<answer>rising</answer>"),
        GOOD.replace("so rising", "<b>so</b> rising"),  # foreign
        GOOD.replace("so rising", "<|im_end|> rising"),
        "<observation></observation><think>3<5</think><answer>rising</answer>",  # nothing in it
        "<observation>3 5 7 9</observation><think></think><answer>rising</answer>",
        "<observation>3 5 7 9</observation><think>rising</think><answer>rising</answer>",
        "<observation>3 5 7 9</observation><think>rising, rising!</think><answer>rising</answer>",
        "<answer>rising</answer>",
        "rising",
        "",
    ],
)
def test_form_without_substance_and_tricks_get_nothing_for_their_form(text):
    assert format(judged(text)) == 0


def test_what_the_token_limit_cut_is_neither_right_nor_well_formed():
    one = judged(GOOD, finish="length")
    assert accuracy(one) == 0 and format(one) == 0


def test_an_answer_against_its_own_reasoning_or_observation_is_not_consistent():
    against = judged(GOOD.replace("<answer>rising", "<answer>mixed"), truth=("mixed",))
    assert accuracy(against) == 1 and consistency(against) == 0 and evidence(against) == 0
    copied_wrong = judged(
        GOOD.replace("3<5 5<7 7<9 so rising", "9>5 5>3 3>1 so falling").replace(">rising<", ">falling<")
    )
    assert consistency(copied_wrong) == 0 and evidence(copied_wrong) == 1  # it saw right, and reasoned otherwise


def test_an_answer_is_sound_that_is_right_and_argued_for_by_what_was_seen_and_thought():
    guessed = GOOD.replace("<observation>3 5 7 9", "<observation>3 5 2 9")
    assert accuracy(judged(guessed)) == 1 and sound(judged(guessed)) == 0
    assert sound(judged(GOOD, truth=("falling",))) == 0
    assert sound(judged(GOOD.replace("<think>3<5 5<7 7<9 so rising", "<think>3<5 5>7 so mixed"))) == 0
    unread = judged(GOOD.replace("3 5 7 9<", "some digits<"))  # it argues for nothing
    assert sound(unread) == 1 and evidence(unread) == 0
    words = "<think>in the end it is hateful</think> <answer>hateful</answer>"
    labels = ("normal", "offensive", "hateful")
    assert sound(judged(words, ("hateful",), "think_answer", rule=None, labels=labels)) == 1


def test_without_a_rule_the_reasoning_argues_for_the_label_it_names_last():
    words = "<think>Not offensive at first, but in the end it is hateful.</think> <answer>hateful</answer>"
    labels = ("normal", "offensive", "hateful")
    assert consistency(judged(words, ("hateful",), "think_answer", rule=None, labels=labels)) == 1
    other = judged(
        words.replace("it is hateful", "it is non-hateful"), ("hateful",), "think_answer", rule=None, labels=labels
    )
    assert consistency(other) == 0 and evidence(other) == 0  # a part of a word is another word


def test_independent_labels_are_right_as_a_set():
    text = "<think>a cat and a dog</think> <answer>dog, cat</answer>"
    assert accuracy(judged(text, ("cat", "dog"), "think_answer", labels=("cat", "dog"), several=True, rule=None)) == 1
    assert accuracy(judged(text, ("cat",), "think_answer", labels=("cat", "dog"), several=True, rule=None)) == 0


def test_length_counts_where_the_rest_is_right():
    one = judged(GOOD)
    assert (
        length(one, 1, one.tokens) == 1 and length(one, one.tokens + 1, 99) == 0 and length(one, 0, one.tokens - 1) == 0
    )
    assert length(judged(GOOD, truth=("mixed",)), 1, 99) == 0


def never(judged):
    return math.nan


def list_of_them(judged):
    return [1.0]


def short(judged):
    return 1.0 / judged.tokens


def test_a_site_adds_its_own_by_name_and_weights_add_up():
    found = rewards({"accuracy": 1.0, "format": 0.5, f"{__name__}:short": 2.0}, 1, 99)
    one = judged(GOOD)
    parts = found.of(one)
    assert parts == {"accuracy": 1.0, "format": 1.0, f"{__name__}:short": 1 / one.tokens}
    assert found.total(parts) == pytest.approx(1.5 + 2 / one.tokens)


@pytest.mark.parametrize(("name", "shown"), [("never", "nan"), ("list_of_them", r"\[1.0\]")])
def test_a_reward_that_is_no_number_is_named(name, shown):
    with pytest.raises(
        RewardError, match=rf"refine.rewards.{__name__}:{name}: expected a finite number .* found {shown}"
    ):
        rewards({f"{__name__}:{name}": 1.0}, 1, 99).of(judged(GOOD))


@pytest.mark.parametrize("name", ["acuracy", "no.such.module:f", f"{__name__}:no_such"])
def test_an_unknown_reward_is_refused_with_what_there_is(name):
    with pytest.raises(
        RewardError, match=f"refine.rewards.{name}: expected accuracy, format, consistency, sound, evidence, length"
    ):
        rewards({name: 1.0}, 1, 99)
