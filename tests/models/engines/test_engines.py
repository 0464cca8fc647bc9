"""Engines with the real vLLM and the real transformers on the tiny untrained model."""

import shutil
import threading
import time

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from models.engines import process
from models.engines.promise import Adapter, EngineDead, EngineSpec, Sampling
from models.engines.transformers import TransformersEngine
from models.language.label_scores import Choice
from models.video.clip import Clip

CHOICE = Choice(("rising", "falling", "mixed"))
GREEDY = Sampling(temperature=0.0, max_tokens=48)


def in_batches(ask, sizes, pause_s):
    """Requests as Spark delivers them: in batches of uneven length, with a pause before each."""
    number = 0
    for size in sizes:
        time.sleep(pause_s)
        for _ in range(size):
            yield ask(number)
            number += 1


def running_counts(engine, streams):
    """The number of running sequences after every step, as long as more input was still to come."""
    counts = []
    engine.on_step = lambda running, ended: counts.append(running) if not ended else None
    try:
        for stream in streams:
            assert list(engine.generate(stream, Sampling(max_tokens=64), CHOICE))
    finally:
        engine.on_step = None
    return counts


def test_the_batch_never_drains_between_arrow_batches(vllm_engine, ask):
    sizes = (8, 3, 12, 5)
    counts = running_counts(vllm_engine, [in_batches(ask, sizes, 0.15)])
    assert len(counts) > 10
    assert min(counts) > 0
    # The same observation sees the draining of one generate() per batch: it can fail.
    drained = []
    vllm_engine.on_step = lambda running, ended: drained.append(running)
    for size in sizes:
        list(vllm_engine.generate(in_batches(ask, (size,), 0), Sampling(max_tokens=64), CHOICE))
    vllm_engine.on_step = None
    assert drained.count(0) == len(sizes)


def test_a_slow_source_does_not_hold_up_what_runs(vllm_engine, ask):
    answered, in_time = threading.Event(), []

    def slow():
        yield ask(0)
        in_time.append(answered.wait(60))
        yield ask(1)

    for completion in vllm_engine.generate(slow(), Sampling(max_tokens=16)):
        if completion.key == "clip0":
            answered.set()
    assert in_time == [True]


def test_only_as_many_videos_are_taken_as_keep_the_engine_full(vllm_engine, ask):
    pulled = []

    def source():
        for i in range(60):
            pulled.append(i)
            yield ask(i)

    most = 0
    for done, _ in enumerate(vllm_engine.generate(source(), Sampling(max_tokens=8))):
        most = max(most, len(pulled) - done // 4)
    assert 64 // 4 <= most <= 64 // 4 + 2 + 4 + 3  # running, refill, queue, one in each hand and one half done


def test_order_and_company_change_nothing(vllm_engine, ask, collect):
    alone = collect(vllm_engine, [ask(i) for i in range(12)])
    mixed = collect(vllm_engine, [ask(i, n=3 if i > 11 else 4) for i in reversed(range(25))])
    assert len({c.token_ids for c in alone.values()}) == 48  # siblings and neighbours do differ
    assert len({len(c.token_ids) for c in alone.values()}) > 1
    for key, completion in alone.items():
        assert mixed[key].token_ids == completion.token_ids
        assert mixed[key].logprob_sum == pytest.approx(completion.logprob_sum, abs=1e-4)


@pytest.mark.parametrize("name", ["vllm_engine", "reference_engine"])
def test_four_rollouts_are_two_and_two_more(name, request, ask, collect):
    engine = request.getfixturevalue(name)
    four = collect(engine, [ask(3, n=4)])
    halves = collect(engine, [ask(3, n=2, first=2), ask(3, n=2, first=0)])
    assert sorted(four) == sorted(halves) == [("clip3", i) for i in range(4)]
    for key, completion in four.items():
        assert halves[key].token_ids == completion.token_ids
        assert halves[key].seed == completion.seed == 3000 + key[1]


@pytest.mark.parametrize("name", ["vllm_engine", "reference_engine"])
def test_greedy_ignores_the_seed(name, request, ask, collect):
    engine = request.getfixturevalue(name)
    found = collect(engine, [ask(5, n=3), ask(5, n=2, seed=77, key="other")], GREEDY)
    assert len(found) == 5
    assert len({c.token_ids for c in found.values()}) == 1
    assert {c.seed for c in found.values()} == {5000, 5001, 5002, 77, 78}


def test_greedy_tokens_agree_with_transformers(vllm_engine, reference_engine, ask, collect):
    fast = collect(vllm_engine, [ask(i, n=1) for i in range(6)], GREEDY)
    slow = collect(reference_engine, [ask(i, n=1) for i in range(6)], GREEDY)
    for key in slow:
        assert fast[key].token_ids == slow[key].token_ids
        assert fast[key].text == slow[key].text
        assert fast[key].finish_reason == slow[key].finish_reason
        assert fast[key].prompt_tokens == slow[key].prompt_tokens
        assert fast[key].logprob_sum == pytest.approx(slow[key].logprob_sum, abs=1e-3)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_sampled_log_probabilities_are_the_raw_ones(vllm_engine, reference_engine, ask, collect, temperature):
    requests = {f"clip{i}": ask(i, n=8) for i in range(12)}
    fast = collect(vllm_engine, requests.values(), Sampling(temperature=temperature, top_p=0.999, max_tokens=64))
    answered = [c for c in fast.values() if c.label_logprobs]
    assert answered  # the untrained model writes <answer> by chance
    for completion in answered:
        forced = reference_engine.score(requests[completion.key], completion.token_ids, CHOICE)
        assert completion.logprob_sum == pytest.approx(forced.logprob_sum, abs=1e-3)
        assert completion.label_logprobs == pytest.approx(forced.label_logprobs, abs=1e-3)
        assert forced.text == completion.text
    for completion in fast.values():
        assert (completion.label_logprobs is not None) <= ("<answer>" in completion.text)


def test_the_reference_samples_what_it_scores(reference_engine, ask, collect):
    found = collect(reference_engine, [ask(1, n=6)], Sampling(temperature=0.7, top_p=0.9, max_tokens=64))
    assert len({c.token_ids for c in found.values()}) == 6
    for completion in found.values():
        forced = reference_engine.score(ask(1), completion.token_ids, CHOICE)
        assert completion.logprob_sum == pytest.approx(forced.logprob_sum, abs=1e-3)


@pytest.mark.parametrize("name", ["vllm_engine", "reference_engine"])
def test_a_stop_string_stays_in_the_text(name, request, ask, collect):
    found = collect(request.getfixturevalue(name), [ask(i) for i in range(6)], Sampling(max_tokens=64, stop=("e",)), ())
    stopped = [c for c in found.values() if c.finish_reason == "stop" and "e" in c.text]
    assert len(stopped) > 10
    assert all(c.text.endswith("e") and c.text.count("e") == 1 for c in stopped)
    assert all(c.label_logprobs is None for c in found.values())


@pytest.mark.parametrize("name", ["vllm_engine", "reference_engine"])
def test_a_refused_request_costs_only_itself(name, request, ask, collect):
    engine = request.getfixturevalue(name)
    good = ask(1, n=2)
    bad = {
        "long": ask(2, n=3, prompt=good.prompt.replace("Four", "Four " * 600)),
        "tight": ask(2, n=2, prompt=good.prompt.replace("Four", "Four " * 190)),
        "float": ask(2, n=2, clips=(Clip.even(np.zeros((8, 56, 56, 3), np.float32), 2.0),)),
        "flat": ask(2, n=1, clips=(Clip.even(np.zeros((8, 56, 56), np.uint8), 2.0),)),
        "backwards": ask(2, n=1, clips=(Clip(good.clips[0].pixels, [7 - i for i in range(8)], 8.0),)),
        "blind": ask(2, n=1, prompt="no video here"),
        "double": ask(2, n=1, prompt=good.prompt + good.prompt),
    }
    requests = [good, *(r.__class__(**(vars(r) | {"key": key})) for key, r in bad.items()), ask(4, n=1)]
    found = collect(engine, requests, Sampling(max_tokens=256))
    assert len(found) == 3 + sum(r.n for r in bad.values())
    for (key, index), completion in found.items():
        if key in bad:
            assert (completion.finish_reason, completion.text, completion.token_ids) == ("error", "", ())
            assert completion.error and completion.seed == 2000 + index
        else:
            assert completion.error is None and completion.token_ids
    assert "max_model_len" in found["tight", 0].error
    assert "uint8 [T, H, W, 3], found float32 [8, 56, 56, 3]" in found["float", 0].error


def test_an_error_of_the_source_is_raised_and_the_engine_lives_on(vllm_engine, ask, collect):
    def source():
        yield ask(0)
        raise OSError("the source broke")

    with pytest.raises(OSError, match="the source broke"):
        list(vllm_engine.generate(source(), Sampling(max_tokens=400)))
    assert sorted(collect(vllm_engine, [ask(1, n=1)])) == [("clip1", 0)]


def test_a_caller_who_leaves_early_leaves_nothing_behind(vllm_engine, ask, collect):
    left = vllm_engine.generate(iter([ask(i) for i in range(9)]), Sampling(max_tokens=32))
    next(left)
    left.close()
    assert sorted(collect(vllm_engine, [ask(20, n=2)])) == [("clip20", 0), ("clip20", 1)]


def test_a_dead_engine_refuses_further_use(vllm_engine, ask, monkeypatch):
    def broken():
        raise RuntimeError("device lost")

    monkeypatch.setattr(vllm_engine._engine, "step", broken)
    try:
        with pytest.raises(EngineDead, match="a step: RuntimeError: device lost"):
            list(vllm_engine.generate(iter([ask(0)]), GREEDY))
        monkeypatch.undo()
        with pytest.raises(EngineDead, match="failed or was closed"):
            next(vllm_engine.generate(iter([ask(0)]), GREEDY))
    finally:  # nothing really broke: give it back to the other tests
        vllm_engine.dead = False
        vllm_engine.abandon()


@pytest.mark.parametrize("name", ["vllm_engine", "reference_engine"])
def test_new_weights_take_effect_at_once(name, request, ask, collect, random_model, tmp_path):
    """Also where the prompt was computed before: as if an engine had been opened with them."""
    engine = request.getfixturevalue(name)
    old = load_file(f"{random_model}/model.safetensors")
    new = {name: tensor.roll(1, 0).contiguous() if "embed_tokens" in name else tensor for name, tensor in old.items()}
    shutil.copytree(random_model, tmp_path, dirs_exist_ok=True)
    save_file(new, tmp_path / "model.safetensors", {"format": "pt"})
    fresh = TransformersEngine(EngineSpec("transformers", str(tmp_path)))
    wanted = collect(fresh, [ask(1, n=1)], GREEDY)["clip1", 0]
    before = collect(engine, [ask(1, n=1)], GREEDY)["clip1", 0]
    engine.replace_weights(iter(new.items()))
    changed = collect(engine, [ask(1, n=1)], GREEDY)["clip1", 0]
    assert engine.changed and changed.token_ids == wanted.token_ids != before.token_ids
    assert changed.logprob_sum == pytest.approx(wanted.logprob_sum, abs=1e-3)
    engine.submit(ask(1, n=1), GREEDY)
    with pytest.raises(ValueError, match="while nothing runs"):
        engine.replace_weights(old.items())
    engine.abandon()
    engine.replace_weights(old.items())
    after = collect(engine, [ask(1, n=1)], GREEDY)["clip1", 0]
    assert (after.token_ids, after.logprob_sum) == (before.token_ids, before.logprob_sum)


def test_new_weights_are_all_of_them(random_model):
    engine = TransformersEngine(EngineSpec("transformers", random_model))
    tensors = load_file(f"{random_model}/model.safetensors")
    name = min(tensors)
    with pytest.raises(EngineDead, match=f"the new weights lack 1 tensors of {random_model}, for example {name}"):
        engine.replace_weights((other, tensor) for other, tensor in tensors.items() if other != name)


def test_one_engine_per_process(random_model):
    spec = EngineSpec("transformers", random_model)
    try:
        first = process.open_engine(spec)
        assert process.open_engine(EngineSpec("transformers", random_model)) is first
        other = process.open_engine(EngineSpec("transformers", random_model, max_model_len=256))
        assert other is not first and first.dead and not other.dead
        other.changed = True  # its weights are no longer those of the folder
        assert process.open_engine(other._spec) is not other and other.dead
        other_adapter = (Adapter("tuned", random_model, digest="0" * 16),)
        with pytest.raises(ValueError, match="expected the adapter 0000000000000000, found"):
            process.open_engine(EngineSpec("transformers", random_model, adapters=other_adapter))
        with pytest.raises(ValueError, match="expected vllm, transformers or module:Class, found 'sglang'"):
            process.open_engine(EngineSpec("sglang", random_model))
    finally:
        process.close_engine()
