"""Prompts: every label's policy and the grammar are in the text, and the chat template carries exactly one video."""

import pytest

from models.language.grammar import SEGMENTS
from models.language.prompts import DEFAULT_TEMPLATE, chat, user_text

LABELS = {"normal": "Nothing of note\n happens.", "fall": "A person falls {once}."}


class Template:
    """A processor reduced to what chat() uses; `videos` says how many placeholders its template writes."""

    video_token = "<|video_pad|>"
    all_special_tokens = ("<|im_end|>",)
    chat_template = "x"

    def __init__(self, videos=1):
        self.videos = videos

    def get_added_vocab(self):
        return {"<|im_start|>": 1, "<think>": 2}

    def apply_chat_template(self, messages, tokenize, add_generation_prompt):
        assert add_generation_prompt and not tokenize
        return self.video_token * self.videos + messages[0]["content"][1]["text"] + "<|im_end|>assistant\n"


@pytest.mark.parametrize("grammar", SEGMENTS)
def test_the_default_prompt_names_labels_policies_and_grammar(grammar):
    text = user_text(DEFAULT_TEMPLATE, LABELS, grammar)
    assert "normal, fall" in text
    assert "- normal: Nothing of note happens." in text
    assert "- fall: A person falls {once}." in text
    for segment in SEGMENTS[grammar]:
        assert f"<{segment}>" in text and f"</{segment}>" in text
    assert ("<caption>" in text) == (grammar == "thinker")


@pytest.mark.parametrize("template", ["{label}", "{}", "{labels!r}", "{labels:>9}", "{labels.x}", "{policy", "}"])
def test_an_unknown_placeholder_is_refused_in_one_clear_line(template):
    with pytest.raises(ValueError, match=r"prompt template: .*known: \{labels\}, \{policy\}, \{format\}") as refused:
        user_text(template, LABELS, "think_answer")
    assert "\n" not in str(refused.value)


def test_no_labels_and_an_unknown_grammar_are_refused():
    with pytest.raises(ValueError, match="at least one label"):
        user_text("{labels}", {}, "think_answer")
    with pytest.raises(ValueError, match="unknown grammar"):
        user_text("{labels}", LABELS, "json")


def test_a_short_template_is_all_there_is():
    assert user_text("{labels}?", LABELS, "observation") == "normal, fall?"


def test_chat_wants_exactly_one_video():
    assert chat(Template(), "look {at} <think> it").count("<|video_pad|>") == 1
    for videos in (0, 2):
        with pytest.raises(ValueError, match=f"gave {videos} video placeholders"):
            chat(Template(videos), "look")


@pytest.mark.parametrize("token", ["<|video_pad|>", "<|im_end|>", "<|im_start|>"])
def test_special_tokens_in_the_text_are_refused(token):
    with pytest.raises(ValueError, match="special token"):
        chat(Template(), f"look {token}")
