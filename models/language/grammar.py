"""Trace text to fields and back: the only code that knows where a trace keeps its answer.

Three grammars are known (METHODS: DeepIntuit, VideoP2R, Video-Thinker):

    think_answer   <think>..</think> <answer>..</answer>
    observation    <observation>..</observation> <think>..</think> <answer>..</answer>
    thinker        as think_answer; the think segment holds one or more <time>a-b</time><caption>..</caption> pairs

Reading is lenient (a usable answer is found in a sloppy trace), `well_formed` is strict (it is the format reward).
Every function here takes time linear in the text and raises on no text at all.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

SEGMENTS = {
    "think_answer": ("think", "answer"),
    "observation": ("observation", "think", "answer"),
    "thinker": ("think", "answer"),
}

OK, PARSE_ERROR, TOO_LONG = "ok", "parse_error", "too_long"
NONE = "none"  # the answer that no label applies

QUOTES = {'"': '"', "'": "'", "`": "`", "“": "”", "‘": "’", "«": "»", "「": "」"}
_STOPS = ".。"
_BETWEEN = re.compile(r"[,;|]")

# Anything that looks like markup; "a < b" and "x<3>y" do not. No pattern can run past the next "<": linear time.
_TAG = re.compile(r"<(/?)([A-Za-z][\w-]*)\s*/?>")
_SPECIAL_TOKEN = re.compile(r"<\|[^<>|\n]{1,64}\|>")
_TIME = re.compile(r"\s*(\d{1,9}(?:\.\d{1,9})?)\s*-\s*(\d{1,9}(?:\.\d{1,9})?)\s*")


@dataclass(frozen=True)
class Parsed:
    """The fields of one trace. Segments are stripped; None where the segment was never opened."""

    status: str  # ok | parse_error | too_long
    observation: str | None
    think: str | None
    answer: str | None
    label: str | None  # the label as the task spells it; None unless status is ok, and where several may apply
    labels: tuple[str, ...] | None  # all that the answer names, in the task's order; None unless status is ok
    well_formed: bool


@dataclass(frozen=True)
class Span:
    """One grounded caption of a `thinker` trace: start and end in seconds as the model wrote them."""

    start: float
    end: float
    caption: str


@dataclass(frozen=True)
class Opening:
    """Where an answer begins, in characters: its tag, and its content behind spaces and an opening quote."""

    tag: int
    start: int


def parse(
    text: str,
    grammar: str,
    labels: Sequence[str] | None,
    finish_reason: str | None = None,
    several: bool = False,
    begun: str = "",
    seconds: float | None = None,
) -> Parsed:
    """Read one completion.

    text: the completion as generated, special tokens included, the final end-of-turn token left out.
    labels: the task's label slugs; None accepts any answer that is not blank (imported traces of open questions).
    finish_reason: "length" when the token limit cut the text; None when nobody knows (imported traces).
    several: any number of labels may apply: the answer lists them between commas, semicolons or bars, or says "none".
    begun: what the chat template has opened in the prompt already, "<think>" or nothing.
    seconds: length of the clip, None when nobody knows; a `thinker` trace that names a later time is not well formed. Times
    are written in whole seconds, so the clip's last second counts whole.

    Status is `too_long` if the text was cut, whatever it holds: what came up in its middle was still being weighed. It is
    `ok` only if an answer is closed and names a label, whatever its case, in quotes or not, with a full stop or not;
    `parse_error` otherwise. The answer is the last one after the think segment: a model may weigh "<answer>a</answer>"
    aloud while it thinks. Raises ValueError for an unknown grammar, for nothing else.
    """
    segments = _segments_of(grammar)
    text = begun + text
    answer, closed = _answer(text)
    cut = finish_reason == "length"
    named = _named(answer, labels, several) if answer and closed and not cut else None
    return Parsed(
        status=TOO_LONG if cut else PARSE_ERROR if named is None else OK,
        observation=_segment(text, "observation", ("<think>", "<answer>")) if "observation" in segments else None,
        think=_think(text),
        answer=answer,
        label=named[0] if named and not several else None,
        labels=named,
        well_formed=_well_formed(text, grammar, seconds),
    )


def render(grammar: str, observation: str | None, think: str, answer: str) -> str:
    """Write a trace that `parse` reads back into the same (stripped) fields: teacher traces, training targets.

    Raises ValueError when the fields and the grammar do not fit: an observation missing or superfluous, or a field that
    would itself break the grammar.
    """
    fields = {"observation": observation, "think": think, "answer": answer}
    segments = _segments_of(grammar)
    if (observation is not None) != ("observation" in segments):
        found = "none" if observation is None else "one"
        raise ValueError(f"grammar {grammar!r} has the segments {', '.join(segments)}; the observation given: {found}")
    text = "\n".join(f"<{name}>{fields[name]}</{name}>" for name in segments)
    if not _well_formed(text, grammar):
        raise ValueError(f"these fields do not make a well-formed {grammar!r} trace: {text[:200]!r}")
    return text


def answer_opening(text: str) -> Opening | None:
    """Where the answer of a completion begins; None where none was begun, or nothing came behind its tag."""
    tag = _answer_tag(text)
    if tag < 0:
        return None
    start = _behind_spaces(text, tag + len("<answer>"))
    if text[start : start + 1] in QUOTES:
        start = _behind_spaces(text, start + 1)
    return Opening(tag, start) if start < len(text) else None


def _behind_spaces(text: str, start: int) -> int:
    while start < len(text) and text[start].isspace():
        start += 1
    return start


def bare(answer: str) -> str:
    """An answer without the spaces, quotes and full stops around it."""
    text = answer.strip().rstrip(_STOPS).rstrip()
    if len(text) > 1 and QUOTES.get(text[0]) == text[-1]:
        text = text[1:-1].strip().rstrip(_STOPS).rstrip()
    return text


def spans(think: str) -> tuple[Span, ...]:
    """The time spans of a `thinker` think segment, in the order written; pairs that are broken are left out."""
    tags = list(_TAG.finditer(think))
    found = []
    for at in range(len(tags) - 3):
        group = tags[at : at + 4]
        if [tag.group(1) + tag.group(2) for tag in group] != ["time", "/time", "caption", "/caption"]:
            continue
        time = _TIME.fullmatch(think, group[0].end(), group[1].start())
        if time and float(time[1]) <= float(time[2]) and not think[group[1].end() : group[2].start()].strip():
            caption = think[group[2].end() : group[3].start()].strip()
            found.append(Span(float(time[1]), float(time[2]), caption))
    return tuple(found)


def _segments_of(grammar: str) -> tuple[str, ...]:
    if grammar not in SEGMENTS:
        raise ValueError(f"unknown grammar {grammar!r}; known: {', '.join(SEGMENTS)}")
    return SEGMENTS[grammar]


def _answer(text: str) -> tuple[str | None, bool]:
    """The answer's content and whether it was closed."""
    tag = _answer_tag(text)
    if tag < 0:
        return None, False
    start = tag + len("<answer>")
    end = text.find("</answer>", start)
    return text[start : end if end >= 0 else len(text)].strip(), end >= 0


def _answer_tag(text: str) -> int:
    return text.rfind("<answer>", max(text.find("</think>"), 0))


def _named(answer: str, labels: Sequence[str] | None, several: bool) -> tuple[str, ...] | None:
    """The labels that an answer names, in the task's order; None where it names something else."""
    if labels is None:
        return (answer,)
    for list_ in (answer, bare(answer)):  # quotes may stand around each label or around the whole list
        words = {_folded(bare(part)) for part in (_BETWEEN.split(list_) if several else [list_])}
        if several and words == {NONE}:
            return ()
        found = tuple(label for label in labels if _folded(label) in words)
        if found and len(found) == len(words):
            return found
    return None


def _folded(word: str) -> str:
    """A word as it is compared: in any case, its accents written in one sign or in two."""
    return unicodedata.normalize("NFC", word.casefold())


def _segment(text: str, name: str, next_tags: tuple[str, ...]) -> str | None:
    """The first segment of that name; one never closed ends where the next segment begins, or with the text."""
    opened = text.find(f"<{name}>")
    if opened < 0:
        return None
    start = opened + len(name) + 2
    ends = [end for end in (text.find(tag, start) for tag in (f"</{name}>", *next_tags)) if end >= 0]
    close = text.find(f"</{name}>", start)
    return text[start : close if close >= 0 else min(ends, default=len(text))].strip()


def _think(text: str) -> str | None:
    """The think segment; some chat templates open it in the prompt, so that the completion only closes it."""
    close = text.find("</think>")
    if "<think>" not in text[: close if close >= 0 else len(text)] and close >= 0:
        return text[:close].strip()
    return _segment(text, "think", ("<answer>",))


def _well_formed(text: str, grammar: str, seconds: float | None = None) -> bool:
    if _SPECIAL_TOKEN.search(text):
        return False
    tags = list(_TAG.finditer(text))
    names = [tag.group(1) + tag.group(2) for tag in tags]
    expected = [part for name in SEGMENTS[grammar] for part in (name, f"/{name}")]
    if grammar == "thinker":
        pairs = (len(tags) - 4) // 4
        if pairs < 1:
            return False
        expected[1:1] = ["time", "/time", "caption", "/caption"] * pairs
    if names != expected or any(tag.group() != f"<{name}>" for tag, name in zip(tags, names, strict=True)):
        return False
    if grammar == "thinker":
        found = spans(text)
        if len(found) != pairs or (seconds is not None and any(span.end > math.ceil(seconds) for span in found)):
            return False
    bounds = [tag for tag in tags if tag.group(2) in SEGMENTS[grammar]]
    outside = [text[: bounds[0].start()], text[bounds[-1].end() :]]
    outside += [text[a.end() : b.start()] for a, b in zip(bounds[1::2], bounds[2::2], strict=False)]
    blank_answer = not text[bounds[-2].end() : bounds[-1].start()].strip()
    return not blank_answer and not any(part.strip() for part in outside)
