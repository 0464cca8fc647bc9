"""Completions in tokens, with tokenizers that glue and that split characters."""

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from models.language.answers import completion_text, decode, encode, tokens_before, without_end

END = "<|im_end|>"


@pytest.fixture(scope="module")
def by_byte():
    """Every byte a token, the end of a turn one."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    bpe = Tokenizer(models.BPE({letter: i for i, letter in enumerate(alphabet)}, []))
    bpe.pre_tokenizer, bpe.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    bpe.add_special_tokens([END])
    return PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token=END)


def test_the_text_ends_before_the_turn_and_behind_a_stop_string(by_byte):
    end = by_byte.convert_tokens_to_ids(END)
    ids = encode(by_byte, "<a>b</a> more")
    assert completion_text(by_byte, [*ids, end], frozenset([end]), ()) == "<a>b</a> more"
    assert completion_text(by_byte, [*ids, end, *ids], frozenset([end]), ()) == f"<a>b</a> more{END}<a>b</a> more"
    assert completion_text(by_byte, ids, frozenset([end]), ("zzz", "</a>", "b")) == "<a>b"
    assert without_end([*ids, end], frozenset([end])) == list(ids)
    assert completion_text(by_byte, [], frozenset([end]), ()) == ""


@pytest.mark.parametrize("text", ["plain", "über <b>", "日本 <b>", "🙂🙂<b>", ""])
def test_tokens_before_a_place_never_reach_beyond_it(by_byte, text):
    ids = encode(by_byte, text)
    for offset in range(len(text) + 1):
        count, place = tokens_before(by_byte, ids, text, offset)
        assert place == len(decode(by_byte, ids[:count])) <= offset
        if text[:offset].isascii():
            assert (decode(by_byte, ids[:count]), place) == (text[:offset], offset)
