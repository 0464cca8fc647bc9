"""transformers and vLLM say the same, token for token, on the checkpoint that travels with the package."""

from __future__ import annotations

from pathlib import Path

import pytest

import models.handwriting
from models.engines.promise import EngineSpec, Request, Sampling
from models.engines.transformers import TransformersEngine
from models.engines.vllm import VllmEngine
from models.handwriting import clips, scenes, tiny
from models.language.label_scores import Checks, Choice
from models.video.container import Limits
from models.video.frames import sample

LABELS = Choice((*scenes.LABELS, "rising_fast", "mix", "fall", "f"))  # some begin like those that the model knows
CHECKS = Checks(tuple((label, f"Does {label} apply? Answer with y or n.") for label in scenes.LABELS), ("y", "n"))
CHECKPOINT = Path(models.handwriting.__file__).parent / "checkpoint"


@pytest.mark.parametrize("scored", [LABELS, CHECKS], ids=["choice", "checks"])
def test_transformers_and_vllm_agree_token_for_token(tmp_path, scored):
    files = clips.generate(tmp_path, "test", 16, seed=11)
    spec = {"model": str(CHECKPOINT), "dtype": "float32", "max_model_len": 256, "max_num_seqs": 32}
    spec["kv_cache_bytes"] = 1 << 27
    greedy = Sampling(temperature=0.0, max_tokens=64)
    found = {}
    for engine in (TransformersEngine(EngineSpec("transformers", **spec)), VllmEngine(EngineSpec("vllm", **spec))):
        prompt = engine.chat(tiny.PROMPT)
        requests = (
            Request(path.stem, prompt, (sample(path.read_bytes(), tiny.FRAMES, Limits()),), 0, 1, 0) for path in files
        )
        found[engine.name] = {done.key: done for done in engine.generate(requests, greedy, scored)}
        engine.close()
    reference, other = found["transformers"], found["vllm"]
    assert reference.keys() == other.keys() and len(reference) == 16
    for key in reference:
        assert reference[key].token_ids == other[key].token_ids, key
        assert reference[key].logprob_sum == pytest.approx(other[key].logprob_sum, abs=1e-3)
        assert reference[key].label_logprobs == pytest.approx(other[key].label_logprobs, abs=1e-3)
        if scored is LABELS:
            assert max(other[key].label_logprobs, key=other[key].label_logprobs.get) in other[key].text
    assert len({done.token_ids for done in reference.values()}) > 8  # not the same words for every clip
    assert len({tuple(done.label_logprobs.values()) for done in reference.values()}) > 8
    assert all(done.text.startswith("<observation>") for done in reference.values())
