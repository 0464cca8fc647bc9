"""What is seen in passing is what a look behind the completion would find, and it spares that look."""

import pytest

from benchmarks.label_cost import CHECKPOINT, FORTY, THREE, Blind, Measured, requests
from models.engines.promise import EngineSpec, Sampling
from models.engines.witness import Witness
from models.handwriting import clips
from models.language.label_scores import Look

SPEC = EngineSpec("vllm", str(CHECKPOINT), max_model_len=512, max_num_seqs=8, kv_cache_bytes=1 << 28)


def seeing(logprobs):
    return lambda ids: [logprobs[token] for token in ids]


def test_what_was_asked_once_is_seen_from_then_on():
    witness, said = Witness(), (7, 1, 2, 9)
    look = Look((1, 2), (5, 6))
    assert witness.testimony(("a", 0), said).find(1, look) is None
    assert not witness.wants(9) and witness.wants(2)
    witness.see(("a", 0), [7, 1, 2], seeing({5: -1.0, 6: -2.0}))
    witness.see(("a", 1), [3, 1, 2], seeing({5: -3.0, 6: -4.0}))
    assert witness.testimony(("a", 0), said).find(1, look) == {5: -1.0, 6: -2.0}
    assert witness.testimony(("a", 1), (3, 1, 2)).find(1, look) == {5: -3.0, 6: -4.0}
    witness.forget("a")
    assert witness.testimony(("a", 0), said).find(1, look) is None


def test_nothing_is_seen_where_the_completion_went_another_way():
    witness = Witness()
    witness.testimony(("a", 0), (1, 2)).find(0, Look((1, 2), (5,)))
    witness.see(("b", 0), [1, 3, 2], seeing({5: -1.0}))  # ends alike, and is not that tail
    assert witness.testimony(("b", 0), (1, 3, 2)).find(1, Look((3, 2), (5,))) is None
    witness.see(("a", 0), [4, 1, 2], seeing({5: -1.0}))
    told = witness.testimony(("a", 0), (4, 1, 2, 8))
    assert told.find(1, Look((1, 3), (5,))) is None  # was not said
    assert told.find(1, Look((1, 2), (5, 6))) is None  # not all of it was seen
    assert told.find(1, Look((), (5,))) is None
    assert told.find(1, Look((1, 2), (5,))) == {5: -1.0}


@pytest.mark.parametrize("scored", [THREE, FORTY], ids=["three", "forty"])
def test_label_scores_are_the_same_seen_or_looked_up(scored, tmp_path):
    files = clips.generate(tmp_path, "test", 12, seed=5)
    engine = Measured(SPEC, least=0)
    asked = list(requests(engine, files))
    looked = []
    look, engine._look = engine._look, lambda *given: looked.extend(given[3]) or look(*given)

    def scores():
        looked.clear()
        done = engine.generate(iter(asked), Sampling(temperature=0.8, max_tokens=64), scored)
        return {(one.key, one.index): one.label_logprobs for one in done if one.label_logprobs}, len(looked)

    scores()  # where a look is needed is learned here
    seen, asked_seeing = scores()
    assert engine._witness._seen == {}
    engine._witness = Blind()
    looked_up, asked_blind = scores()
    engine.close()
    assert len(seen) >= 40 and seen.keys() == looked_up.keys()
    assert asked_blind >= len(seen) and asked_seeing <= asked_blind / 4
    for key, found in seen.items():
        assert found == pytest.approx(looked_up[key], abs=1e-4)
