"""The grammar: real traces, generated equivalents of everything odd in them, and text made to break a parser."""

import json
import random
import time
from pathlib import Path

import pytest

from models.language.grammar import SEGMENTS, Parsed, Span, answer_opening, bare, parse, render, spans

LABELS = ("Normal", "offensive", "hateful")
GOOD = "<think>a man waves</think>\n<answer>offensive</answer>"
TRACES = Path(__file__).parents[4] / "shared/data/traces/videorft_videommmu_390.jsonl"


def test_a_good_trace_gives_all_its_fields():
    assert parse(GOOD, "think_answer", LABELS) == Parsed(
        "ok", None, "a man waves", "offensive", "offensive", ("offensive",), True
    )


@pytest.mark.parametrize(
    ("text", "status", "label", "well_formed"),
    [
        ("<think>x</think> <answer>  NORMAL\n</answer>", "ok", "Normal", True),
        ("  <think>x</think><answer>hateful</answer>\n", "ok", "hateful", True),
        ("<think></think><answer>hateful</answer>", "ok", "hateful", True),
        ("<answer>hateful</answer>", "ok", "hateful", False),
        ("x</think><answer>hateful</answer>", "ok", "hateful", False),
        ("<think>x<answer>hateful</answer>", "ok", "hateful", False),
        (GOOD + " so", "ok", "offensive", False),
        ("so " + GOOD, "ok", "offensive", False),
        ("<think>x</think> so <answer>hateful</answer>", "ok", "hateful", False),
        (GOOD + GOOD, "ok", "offensive", False),
        ("<think>C<sub>6</sub></think><answer>hateful</answer>", "ok", "hateful", False),
        ("<think><v>² = V²/T</think><answer>hateful</answer>", "ok", "hateful", False),
        ("<think>a < b > c, 3<4>2</think><answer>hateful</answer>", "ok", "hateful", True),
        ("<think>x<|im_end|></think><answer>hateful</answer>", "ok", "hateful", False),
        ("<think>x</think ><answer>hateful</answer>", "ok", "hateful", False),
        ("<think>or <answer>normal</answer>?</think><answer>hateful</answer>", "ok", "hateful", False),
        ("<think>or <answer>normal</answer>?</think>", "parse_error", None, False),
        ("<think>x</think><answer>normal</answer><answer>hateful", "parse_error", None, False),
        ("<think>x</think><answer></answer>", "parse_error", None, False),
        ("<think>x</think><answer>not hateful</answer>", "parse_error", None, True),
        ("<think>x</think><answer>normal or hateful</answer>", "parse_error", None, True),
        ("<think>x</think><Answer>hateful</Answer>", "parse_error", None, False),
        ('<think>x</think><answer>"Hateful".</answer>', "ok", "hateful", True),
        ("<think>x</think><answer> “HATEFUL.” </answer>", "ok", "hateful", True),
        ("<think>x</think><answer>hateful。</answer>", "ok", "hateful", True),
        ("<think>x</think><answer>'hateful\"</answer>", "parse_error", None, True),
        ("<think>x</think><answer>hateful!</answer>", "parse_error", None, True),
        ("", "parse_error", None, False),
        ("hateful", "parse_error", None, False),
    ],
)
def test_status_and_form(text, status, label, well_formed):
    found = parse(text, "think_answer", LABELS, "stop")
    assert (found.status, found.label, found.well_formed) == (status, label, well_formed)


@pytest.mark.parametrize(
    "text",
    [
        "<think>x",
        "<think>x</think><answer>hate",
        "<think>or <answer>hateful</answer> maybe",  # still being weighed
        "<think>x</think><answer>hateful</answer>",
        "<think>x</think><answer>hateful</answer> and",
        "x</think><answer>hateful</answer> <answer>",
    ],
)
def test_what_was_cut_is_too_long_whatever_it_holds(text):
    found = parse(text, "think_answer", LABELS, "length")
    assert (found.status, found.label, found.labels) == ("too_long", None, None)


@pytest.mark.parametrize(
    ("answer", "labels"),
    [
        ("hateful", ("hateful",)),
        ("hateful, Normal", ("Normal", "hateful")),
        ('"hateful"; "normal".', ("Normal", "hateful")),
        ('"hateful, normal"', ("Normal", "hateful")),
        ("offensive | hateful|normal", ("Normal", "offensive", "hateful")),
        ("None.", ()),
        ("none, hateful", None),
        ("hateful, odd", None),
        ("hateful,", None),
        (",", None),
    ],
)
def test_an_answer_may_name_several_labels_where_the_task_allows_it(answer, labels):
    text = f"<think>x</think><answer>{answer}</answer>"
    found = parse(text, "think_answer", LABELS, "stop", several=True)
    assert (found.status, found.label, found.labels) == ("ok" if labels is not None else "parse_error", None, labels)
    assert labels is None or len(labels) == 1 or parse(text, "think_answer", LABELS, "stop").status == "parse_error"


def test_a_tag_that_the_prompt_has_opened_belongs_to_the_trace():
    rest = "a man waves</think><answer>offensive</answer>"
    found = parse(rest, "think_answer", LABELS, "stop", begun="<think>")
    assert found == Parsed("ok", None, "a man waves", "offensive", "offensive", ("offensive",), True)
    assert not parse(rest, "think_answer", LABELS, "stop").well_formed
    assert not parse(GOOD, "think_answer", LABELS, "stop", begun="<think>").well_formed
    weighed = "or <answer>hateful</answer></think><answer>offensive</answer>"
    assert parse(weighed, "think_answer", LABELS, "stop", begun="<think>").label == "offensive"


def test_an_answer_is_bare_without_quotes_and_full_stops():
    bared = {' "a" ': "a", "'a.'.": "a", "「a」。": "a", '"a': '"a', "a.b.": "a.b", '"': '"', "": ""}
    assert {text: bare(text) for text in bared} == bared


def test_open_questions_take_any_answer_that_is_not_blank():
    assert parse("<think>x</think><answer> 12.9 </answer>", "think_answer", None).label == "12.9"
    assert parse("<think>x</think><answer> \n</answer>", "think_answer", None).status == "parse_error"


def test_fields_of_the_observation_grammar_survive_sloppiness():
    text = "<observation>a cat</observation> <think>cats are fine</think> <answer>normal</answer>"
    assert parse(text, "observation", LABELS) == Parsed(
        "ok", "a cat", "cats are fine", "normal", "Normal", ("Normal",), True
    )
    assert not parse(text, "think_answer", LABELS).well_formed
    assert not parse(GOOD, "observation", LABELS).well_formed
    sloppy = parse("<observation>a cat<think>fine<answer>normal</answer>", "observation", LABELS)
    assert sloppy == Parsed("ok", "a cat", "fine", "normal", "Normal", ("Normal",), False)


def test_thinker_grounds_its_captions():
    think = "first <time>0-1.5</time><caption>a door</caption> then <time>2 - 4</time> <caption>a dog</caption>"
    text = render("thinker", None, think, "hateful")
    assert parse(text, "thinker", LABELS).well_formed
    assert not parse(text, "think_answer", LABELS).well_formed
    assert spans(think) == (Span(0, 1.5, "a door"), Span(2, 4, "a dog"))
    for broken in ("no spans", "<time>4-2</time><caption>x</caption>", "<time>0-1</time> so <caption>x</caption>"):
        assert not parse(text.replace(think, broken), "thinker", LABELS).well_formed
        assert spans(broken) == ()
    outside = "<think>x</think><time>0-1</time><caption>y</caption><answer>hateful</answer>"
    assert not parse(outside, "thinker", LABELS).well_formed


@pytest.mark.parametrize(
    ("span", "seconds", "well_formed"),
    [
        ("0-7", 6.2, True),  # whole seconds: the seventh has begun
        ("0-6.2", 6.2, True),
        ("6-8", 6.2, False),
        ("0-7.1", 6.2, False),
        ("7-7", 6.0, False),
        ("0-900", None, True),  # nobody knows how long the clip is
    ],
)
def test_times_beyond_the_end_of_the_clip_are_no_form_and_the_answer_stands(span, seconds, well_formed):
    think = f"<time>0-1</time><caption>a door</caption><time>{span}</time><caption>a dog</caption>"
    found = parse(render("thinker", None, think, "hateful"), "thinker", LABELS, "stop", seconds=seconds)
    assert (found.status, found.label, found.well_formed) == ("ok", "hateful", well_formed)


def test_the_length_of_a_clip_says_nothing_of_traces_that_name_no_times():
    assert parse(GOOD, "think_answer", LABELS, "stop", seconds=0.5).well_formed


@pytest.mark.parametrize("grammar", SEGMENTS)
def test_render_is_the_inverse_of_parse(grammar):
    observation = "two cats\n\nsit" if grammar == "observation" else None
    think = "so 3 < 4" + (" <time>1-2</time><caption>c</caption>" if grammar == "thinker" else "")
    found = parse(render(grammar, observation, think, "offensive"), grammar, LABELS, "stop")
    assert found == Parsed("ok", observation, think, "offensive", "offensive", ("offensive",), True)


def test_render_refuses_fields_that_would_break_the_grammar():
    with pytest.raises(ValueError, match="observation given: none"):
        render("observation", None, "x", "normal")
    with pytest.raises(ValueError, match="observation given: one"):
        render("think_answer", "o", "x", "normal")
    for think, answer in (("</think>", "normal"), ("x<|im_end|>", "normal"), ("x", " "), ("x", "<answer>a")):
        with pytest.raises(ValueError, match="well-formed"):
            render("think_answer", None, think, answer)


def test_the_answer_opens_after_the_last_tag_and_the_spaces_and_quote_behind_it():
    assert answer_opening("<think>x</think>") is None
    assert answer_opening("<think><answer>a</answer></think>") is None
    text = "<think>x</think><answer>a</answer><answer> \n b"
    assert text[answer_opening(text).start :] == "b"
    assert text[answer_opening(text).tag :] == "<answer> \n b"
    assert answer_opening('<answer> "b').start == 10
    assert answer_opening("<answer>  ") is None


def test_no_text_raises_and_no_text_is_slow():
    rng = random.Random(0)
    parts = [
        "<think>",
        "</think>",
        "<answer>",
        "</answer>",
        "<observation>",
        "</observation>",
        "<time>",
        "</time>",
        "1-2",
    ]
    parts += [
        "<caption>",
        "</caption>",
        "<|",
        "|>",
        "<",
        ">",
        "normal",
        " ",
        "\n",
        "\ud800",
        "\0",
        "é",
        "<a" * 3,
        "²",
        "</",
    ]
    for _ in range(3000):
        text = "".join(rng.choices(parts, k=rng.randrange(12)))
        for grammar in SEGMENTS:
            for reason in ("stop", "length", None):
                found = parse(text, grammar, LABELS, reason)
                assert found.status in ("ok", "parse_error", "too_long")
                assert (found.label is not None) == (found.status == "ok")
    pieces = (*parts, "<time>1-2</time><caption>c</caption>", "<answer>a</answer>", "<t ", "<a-")
    for piece in pieces:
        hostile = piece * (100_000 // len(piece))
        for text in (hostile, "<think>" + hostile + "</think><answer>normal</answer>", "<time>" + hostile + "</time>"):
            for grammar in SEGMENTS:
                begun = time.perf_counter()
                parse(text, grammar, LABELS, "length")
                spans(text)
                assert time.perf_counter() - begun < 5.0, (piece, grammar)


def test_an_unknown_grammar_is_named():
    with pytest.raises(ValueError, match="unknown grammar 'json'; known: think_answer"):
        parse("", "json", LABELS)


def odd_traces():
    """The kinds found in the 390 real traces, made anew: cut in a formula, in digits, in a list; HTML and maths."""
    body = "Let's look.\n\n- A. \\( 2^{-0.5t} \\)\n- B. 3 < 4\n\n"
    whole = f"<think>{body}</think>\n<answer>A</answer>"
    for cut in (12, 20, len(body), len(body) + 7, len(body) + 15, len(whole) - 9, len(whole) - 1):
        yield whole[:cut], False
    yield "<think>" + "9.1 + " * 300, False
    yield "<think>" + "0" * 1700, False
    yield whole.replace("Let's", "C<sub>6</sub>H<sub>13</sub>"), True
    yield whole.replace("Let's", "<v>² = V²/T ≠ V²"), True
    yield whole.replace(">A<", ">100000000<"), True
    yield whole.replace(">A<", ">A. equals 120 V<"), True


def test_odd_traces_become_rows_and_none_that_never_answers_is_ok():
    for text, answered in odd_traces():
        found = parse(text, "think_answer", None)
        assert (found.status == "ok") == answered, text[-40:]
        assert found.think and found.think.startswith(text[7:9])


def test_the_real_imported_traces():
    if not TRACES.exists():
        pytest.skip(f"{TRACES} is not on this machine; odd_traces() covers its kinds")
    rows = [json.loads(line) for line in TRACES.open(encoding="utf-8")]
    found = [parse(row["output"], "think_answer", None) for row in rows]
    assert len(found) == 390
    open_ended = [p for p, row in zip(found, rows, strict=True) if "</answer>" not in row["output"]]
    assert len(open_ended) == 32
    assert not any(p.status == "ok" for p in open_ended)
    assert sum(p.status == "ok" for p in found) == 358
    assert sum(p.well_formed for p in found) == 356  # the other two hold <sub> and <v>
    assert all(p.think for p in found)


def test_an_accent_in_two_signs_is_the_same_letter():
    found = parse("<think>x</think><answer>Gro\u0308\u00dfe.</answer>", "think_answer", ("gr\u00f6\u00dfe", "b"))
    assert (found.status, found.label) == ("ok", "gr\u00f6\u00dfe")
