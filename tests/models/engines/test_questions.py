"""Questions beside rollouts: exact log-probabilities of codes, on any number of clips, the prefix computed once."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import families, parity
from models.engines.promise import Question, Request, Sampling
from models.language import codes
from models.language.prompts import next_turn
from models.video.clip import Clip

CODES = ("a", "b", "1", "2")


@pytest.fixture(scope="module", params=families.FAMILIES)
def both(request, tmp_path_factory):
    """Both engines on a tiny checkpoint, up to three clips in a prompt."""
    folder = families.make(tmp_path_factory.mktemp("family"), request.param)
    serving, reference = parity.engines(folder, max_clips=3)
    yield SimpleNamespace(family=request.param, serving=serving, reference=reference)
    serving.close()
    reference.close()


def clips_of(family, *shapes):
    """Clips of noise that come at odd moments, one of each (frames, rows, columns)."""
    side, made = families.PATCH[family] * families.MERGE, []
    for seed, (frames, rows, columns) in enumerate(shapes):
        rng = np.random.default_rng(seed)
        pixels = rng.integers(0, 255, (frames, rows * side, columns * side, 3), dtype=np.uint8)
        made.append(Clip(pixels, np.cumsum(rng.uniform(0.1, 1.5, frames)).tolist(), 2.0 * frames))
    return tuple(made)


def questions(engine, family):
    several = clips_of(family, (8, 2, 2), (1, 3, 1), (5, 1, 4))
    for number in range(4):
        prompt = engine.chat("Which one?", clips=number)
        yield Question(f"{number} clips", prompt, several[:number], tails=("", " First:", " Second: then"))


def test_engines_agree_on_every_code_whatever_the_prompt_holds(both):
    found = [
        {done.key: done for done in engine.classify(questions(engine, both.family), CODES)}
        for engine in (both.serving, both.reference)
    ]
    assert found[0].keys() == found[1].keys() == {f"{number} clips" for number in range(4)}
    for key, fast in found[0].items():
        assert fast.error is None and fast.logprobs.shape == (3, 4)
        assert fast.logprobs == pytest.approx(found[1][key].logprobs, abs=1e-4)
        assert fast.prompt_tokens == found[1][key].prompt_tokens
        assert len(np.unique(fast.logprobs.round(3))) > 8  # tails and codes differ


def test_more_codes_than_go_into_one_pass_are_exact_too(both):
    tokenizer = both.serving._tokenizer
    texts = [tokenizer.decode([token]) for token in range(450)]
    many = tuple(text for token, text in enumerate(texts) if codes.encode(tokenizer, text) == (token,))
    assert len(many) > 140
    found = [next(e.classify(questions(e, both.family), many)).logprobs for e in (both.serving, both.reference)]
    assert found[0].shape == (3, len(many))
    assert found[0] == pytest.approx(found[1], abs=1e-4)


def test_what_the_questions_of_a_video_share_is_computed_once(both):
    (clip,) = clips_of(both.family, (32, 4, 4))
    prompt = both.serving.chat("Which one?")
    tails = tuple(next_turn(both.serving._processor, f"Number {number}?") for number in range(40))
    (found,) = both.serving.classify(iter([Question("k", prompt, (clip,), tails)]), CODES)
    assert found.prompt_tokens > 200
    assert found.cached_tokens >= 39 * (found.prompt_tokens - 32)  # all but a block's end, for all but the first


def test_a_question_that_cannot_be_asked_costs_only_itself(both):
    engine = both.serving
    (clip,) = clips_of(both.family, (2, 1, 1))
    prompt = engine.chat("Which one?")
    asked = [
        Question("no clip", prompt, ()),
        Question("long", prompt, (clip,), (" word" * 9000,)),
        Question("one long", prompt, (clip,), ("", " word" * 9000, " word")),
        Question("adapter", prompt, (clip,), adapter="mine"),
        Question("crooked", prompt, (replace(clip, pixels=clip.pixels[:, 1:]),)),
        Question("fine", prompt, (clip,)),
    ]
    for each in (engine, both.reference):
        found = {done.key: done for done in each.classify(iter(asked), CODES)}
        assert found["fine"].error is None and found["fine"].logprobs.shape == (1, 4)
        assert "once for each clip, 0 in all, found it 1 times" in found["no clip"].error
        assert "max_model_len=8192" in found["long"].error and found["long"].logprobs is None
        assert "max_model_len=8192" in found["one long"].error
        assert np.isnan(found["one long"].logprobs).all(axis=1).tolist() == [False, True, False]
        assert not np.isnan(found["one long"].logprobs[[0, 2]]).any()
        assert "expected one that this engine was opened with (none), found 'mine'" in found["adapter"].error
        assert "sides of whole tokens" in found["crooked"].error
    with pytest.raises(ValueError, match="code 'two words'"):
        list(engine.classify(iter(asked[-1:]), ("two words",)))


def test_rollouts_and_questions_run_side_by_side_through_submit_and_step(both):
    """The core that look-again stands on: nothing waits for a batch to end."""
    engine = both.serving
    (clip,) = clips_of(both.family, (4, 2, 2))
    prompt = engine.chat("Which one?")
    engine.submit(Request("r", prompt, (clip,), 0, 3, 7), Sampling(max_tokens=12))
    engine.ask(Question("q", prompt, (clip,)), CODES)
    found, steps = [], 0
    while engine.unfinished:
        found += engine.step()
        steps += 1
        if steps == 2:
            engine.submit(Request("late", prompt, (clip,), 0, 1, 9), Sampling(max_tokens=4))
    assert sorted(done.key for done in found) == ["late", "q", "r", "r", "r"]
    assert next(place for place, done in enumerate(found) if done.key == "q") == 0
    alone = list(engine.generate(iter([Request("r", prompt, (clip,), 0, 3, 7)]), Sampling(max_tokens=12)))
    assert {d.token_ids for d in alone} == {d.token_ids for d in found if d.key == "r"}


def test_a_request_goes_on_from_what_was_generated_with_another_clip(both):
    """Look again: the tokens are those that were drawn, not their text tokenized anew."""
    first, second = clips_of(both.family, (6, 2, 2), (2, 2, 2))
    found = []
    for engine in (both.serving, both.reference):
        tokenizer = engine._tokenizer
        prompt = codes.encode(tokenizer, engine.chat("Which one?"))
        asked = Request("a", prompt, (first,), 0, 1, 3)
        (begun,) = engine.generate(iter([asked]), Sampling(temperature=0, max_tokens=10), token_logprobs=True)
        (as_text,) = engine.generate(
            iter([replace(asked, prompt=engine.chat("Which one?"))]), Sampling(temperature=0, max_tokens=10)
        )
        assert begun.token_ids == as_text.token_ids
        drawn = codes.encode(tokenizer, "seen: ") + tuple(
            codes.encode(tokenizer, letter)[0] for letter in "nor"
        )  # which a tokenizer would put together
        look = codes.encode(tokenizer, "<|vision_start|><|video_pad|><|vision_end|>")
        more = Request("b", (*prompt, *drawn, *look), (first, second), 0, 1, 3)
        (done,) = engine.generate(iter([more]), Sampling(temperature=0, max_tokens=10), token_logprobs=True)
        assert done.error is None
        found.append((begun, done))
    for fast, slow in zip(*found, strict=True):
        assert fast.token_ids == slow.token_ids and fast.prompt_tokens == slow.prompt_tokens
        assert fast.token_logprobs == pytest.approx(slow.token_logprobs, abs=1e-4)
