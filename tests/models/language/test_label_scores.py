"""Label scores against a model that is a table: whatever labels are called and however the answer is written."""

import hashlib
import json
from itertools import product
from math import exp, log

import pytest
import yaml
from support import PROJECT
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from models.handwriting import tiny
from models.language.answers import decode, encode
from models.language.label_scores import OfChecks, OfChoice

END = "<|im_end|>"
# Of Qwen2 and its successors: a sign is glued to the letters behind it, digits stand alone.
_QWEN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SETS = {
    "plain": ("normal", "offensive", "hateful"),
    "alike": ("arrest", "arson", "sexual_content", "sexual_minors", "playing_guitar", "playing_piano", "playing"),
    "glued": ("vandalism", "nudity", "violence"),
    "nested": ("cat", "cat_food", "cat_food_2", "ca"),
    "not latin": ("нормально", "насилие", "暴力", "暴力的", "عنف"),
    "hundred": tuple(f"class_{number}" for number in range(100)),
}


def qwen_like(texts):
    """A byte-level BPE with Qwen's pre-tokenizer, its merges learned from these texts."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_QWEN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=700, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False
    )
    bpe.train_from_iterator(texts, trainer)
    bpe.add_special_tokens([AddedToken(END, special=True)])
    return PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token=END)


@pytest.fixture(scope="module")
def tokenizer():
    labels = [label for group in SETS.values() for label in group]
    return qwen_like([f"<think>it is {a}</think>\n<answer>{a}</answer> <answer> {a}</answer>" for a in labels] * 5)


def table(tokens, token):
    """Natural log of a made-up probability of a token behind others; nothing in it but that it is the same every time."""
    digest = hashlib.sha256(json.dumps([*map(int, tokens), int(token)]).encode()).digest()
    return log((1 + int.from_bytes(digest[:4])) / 2**34)


def found(reader, ids):
    """What a reader makes of that model behind these tokens: what stays of them, and the scores."""
    looks = reader.looks(ids)
    return looks.kept, looks.all(
        lambda look: {token: table([*ids[: looks.kept], *look.tail], token) for token in look.ids}
    )


def by_hand(tokenizer, kept, before, after, labels):
    """Each label's tokens up to where it is the only one left, summed."""
    written = {label: encode(tokenizer, f"{before}{label}{after}</answer>") for label in labels}
    opening, scores = encode(tokenizer, before), {}
    given = 0
    while given < len(opening) and len({ids[: given + 1] for ids in [*written.values(), opening]}) == 1:
        given += 1
    for label, ids in written.items():
        at, total = given, 0.0
        while at == given or sum(other[:at] == ids[:at] for other in written.values()) > 1:
            total += table([*kept, *ids[:at]], ids[at])
            at += 1
        scores[label] = total
    return scores


AROUND = [
    ("", ""),
    (" ", ""),
    ("\n", ""),
    ('"', '"'),
    (" “", "”"),
    ("", "."),
    (" ", " "),
    ("\n", "\n"),
    ('"', '".'),
    ("' ", " '"),
]


@pytest.mark.parametrize(("name", "opening"), list(product(SETS, AROUND)), ids=str)
def test_every_label_has_the_log_probability_of_its_own_tokens(tokenizer, name, opening):
    labels, (lead, close) = SETS[name], opening
    answer = encode(tokenizer, f"<think>x</think>\n<answer>{lead}{labels[-1]}{close}</answer>")
    ids = (*answer, tokenizer.eos_token_id)
    kept, scores = found(OfChoice(tokenizer, labels, frozenset([tokenizer.eos_token_id])), ids)
    assert decode(tokenizer, ids[:kept]) == "<think>x</think>\n"
    wanted = by_hand(tokenizer, ids[:kept], f"<answer>{lead}", close, labels)
    assert {label: exp(score) for label, score in scores.items()} == pytest.approx(
        {label: exp(score) for label, score in wanted.items()}, abs=1e-4 * sum(map(exp, wanted.values()))
    )
    exact = {label for label, score in wanted.items() if exp(score) > 2e-4 * sum(map(exp, wanted.values()))}
    assert {label: scores[label] for label in exact} == pytest.approx({label: wanted[label] for label in exact})
    assert list(scores) == list(labels)


@pytest.mark.parametrize(("name", "around"), list(product(SETS, AROUND)), ids=str)
def test_a_model_that_always_writes_one_label_gives_it_all_the_probability(tokenizer, name, around):
    labels, (lead, close) = SETS[name], around
    reader = OfChoice(tokenizer, labels, frozenset())
    for said in labels[:5]:
        ids = encode(tokenizer, f"<think>x</think>\n<answer>{lead}{said}{close}</answer>")
        looks = reader.looks(ids)
        path = ids[looks.kept :]
        scores = looks.all(
            lambda look, path=path: {
                t: 0.0 if path[: len(look.tail) + 1] == (*look.tail, t) else -50.0 for t in look.ids
            }
        )
        assert scores[said] == 0.0
        assert max(value for label, value in scores.items() if label != said) <= -50.0


@pytest.mark.parametrize("case", [str, str.upper, str.capitalize])
def test_labels_are_spelled_as_the_answer_spells_them(tokenizer, case):
    for said in (case("hateful"), f'"{case("hateful")}".'):
        ids = encode(tokenizer, f"<think>x</think> <answer>{said}")
        looks = next(OfChoice(tokenizer, SETS["plain"], frozenset()).looks(ids).rounds)
        tails = [decode(tokenizer, [*look.tail, token]) for look in looks for token in look.ids]
        begun = {tail.rpartition(">")[2].strip('"') for tail in tails}
        assert begun and all(any(case(label).startswith(text) for label in SETS["plain"]) for text in begun)


@pytest.mark.parametrize(
    "text", ["", "<think>x</think>", "<think>x</think><answer>", "<think><answer>normal</answer></think>", "<answer> "]
)
def test_no_answer_no_scores(tokenizer, text):
    assert OfChoice(tokenizer, SETS["plain"], frozenset()).looks(encode(tokenizer, text)) is None


def test_one_look_is_enough_for_labels_that_begin_differently():
    tokenizer = tiny.make_tokenizer()
    reader = OfChoice(tokenizer, ("rising", "falling", "mixed"), frozenset())
    rounds = reader.looks(encode(tokenizer, "<think>x</think><answer>mixed</answer>")).rounds
    (look,) = next(rounds)
    assert len(look.ids) == 3
    with pytest.raises(StopIteration) as end:
        rounds.send([dict.fromkeys(look.ids, log(1 / 3))])
    assert end.value.value == pytest.approx(dict.fromkeys(("rising", "falling", "mixed"), log(1 / 3)))


@pytest.mark.parametrize(("of_others", "told_apart"), [(1e-5, False), (1e-2, True)])
def test_labels_that_are_ruled_out_together_share_evenly(of_others, told_apart):
    tokenizer = tiny.make_tokenizer()
    labels = ("rising", *(f"class_{number}" for number in range(20)))
    rising = encode(tokenizer, "<answer>rising")[1]
    rounds = OfChoice(tokenizer, labels, frozenset()).looks(encode(tokenizer, "<answer>rising</answer>")).rounds
    (look,) = next(rounds)
    at = {token: log(1 - of_others) if token == rising else log(of_others) for token in look.ids}
    if told_apart:
        assert rounds.send([at])[0].tail[:-1] == look.tail
        return
    with pytest.raises(StopIteration) as end:
        rounds.send([at])
    probs = {label: exp(score) for label, score in end.value.value.items()}
    assert probs == pytest.approx(dict.fromkeys(labels[1:], of_others / 20) | {"rising": 1 - of_others})


@pytest.mark.parametrize("path", sorted((PROJECT / "conf/labels").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_label_set_of_the_project_can_be_scored(tokenizer, path):
    labels = tuple(yaml.safe_load(path.read_text())["labels"])
    for own in (tokenizer, tiny.make_tokenizer()):
        ids = encode(own, f"<think>x</think>\n<answer>{labels[0]}</answer>")
        _, scores = found(OfChoice(own, labels, frozenset()), ids)
        assert set(scores) == set(labels) and all(value < 0 for value in scores.values())


def test_checks_say_how_probable_yes_is_against_no(tokenizer):
    end = tokenizer.eos_token_id
    tails = {"a": (1, 2), "b": (3,)}
    reader = OfChecks(tokenizer, tails, yes=10, no=11, end_ids=frozenset([end]))
    ids = (*encode(tokenizer, "<think>x</think><answer>none</answer>"), end)
    looks = reader.looks(ids)
    assert (looks.kept, reader.longest) == (len(ids) - 1, 2)
    finds = {((1, 2), (10, 11)): {10: log(0.3), 11: log(0.1)}, ((3,), (10, 11)): {10: -800.0, 11: -1.0}}
    read = looks.all(lambda look: finds[look.tail, look.ids])
    assert exp(read["a"]) == pytest.approx(0.75)
    assert read["b"] == pytest.approx(-799.0)
    assert reader.looks(encode(tokenizer, "<think>x</think>")) is None
