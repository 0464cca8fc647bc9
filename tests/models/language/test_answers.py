"""Where the answer begins in tokens, held against a tokenizer that glues spaces to words and the tiny model's own."""

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from models.language.answers import PLAIN, SPACED, LabelTokens, Place, completion_text, find_answer

LABELS = ("normal", "offensive", "hateful")
END = "<|im_end|>"


@pytest.fixture(scope="module")
def gluing():
    """A byte-level BPE as the Qwen family has it: " normal" and "normal" are two different tokens."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    corpus = [f"<think> it is {a} </think>\n<answer>{a}</answer> <answer> {a}</answer>" for a in LABELS] * 20
    trainer = trainers.BpeTrainer(
        vocab_size=500, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    bpe.train_from_iterator(corpus, trainer)
    bpe.add_special_tokens([END])
    return PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token=END)


@pytest.mark.parametrize(
    ("text", "first", "form"),
    [
        ("<think>x</think>\n<answer>normal</answer>", "normal", PLAIN),
        ("<think>x</think>\n<answer> normal</answer>", " normal", SPACED),
        ("<think>x</think>\n<answer>\nnormal</answer>", "normal", PLAIN),
        ("<think>é or <answer>hateful</answer></think><answer>normal</answer>", "normal", PLAIN),
        ("<answer>hateful</answer> no <answer>normal", "normal", PLAIN),
        ("<answer> normal" + END, " normal", SPACED),
    ],
)
def test_the_place_is_the_first_token_of_the_last_answer(gluing, text, first, form):
    ids = gluing.encode(text)
    place = find_answer(gluing, ids)
    assert place.form == form
    assert gluing.decode(ids[place.position :]).startswith(first)
    assert gluing.decode([ids[place.position]]) == first
    assert LabelTokens.of(gluing, LABELS).at(place)["normal"] == ids[place.position]


@pytest.mark.parametrize(
    "text", ["", "normal", "<think>x</think>", "<answer>", "<answer> \n", "<answer>x</answer></think>"]
)
def test_no_place_where_no_answer_was_begun(gluing, text):
    assert find_answer(gluing, gluing.encode(text)) is None


def test_the_tiny_models_tokenizer():
    from models.handwriting import clips, tiny

    tokenizer = tiny.make_tokenizer()
    tokens = LabelTokens.of(tokenizer, clips.LABELS)
    assert len(set(tokens.plain)) == len(clips.LABELS)
    for label in clips.LABELS:
        ids = tokenizer.encode(f"<think>so</think><answer>{label}</answer>")
        assert ids[find_answer(tokenizer, ids).position] == tokens.at(Place(0, PLAIN))[label]


def test_labels_with_one_first_token_are_both_named(gluing):
    with pytest.raises(ValueError, match="labels 'normal' and 'normal_b' begin with the same token 'normal'"):
        LabelTokens.of(gluing, ("offensive", "normal", "normal_b"))


def test_text_ends_before_the_end_of_turn_and_behind_a_stop_string(gluing):
    ids = gluing.encode("<answer>normal</answer> and" + END)
    ends = frozenset([gluing.convert_tokens_to_ids(END)])
    assert completion_text(gluing, ids, ends, ()) == "<answer>normal</answer> and"
    assert completion_text(gluing, ids, ends, ("zzz", "</answer>")) == "<answer>normal</answer>"
    assert completion_text(gluing, [*ids, *ids], ends, ()).count(END) == 1
    assert completion_text(gluing, [], ends, ("x",)) == ""
