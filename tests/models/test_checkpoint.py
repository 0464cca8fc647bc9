"""The checkpoint that travels with the package: small, bfloat16, and able to do the task."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open

import models.handwriting
from models.frames import Limits, sample
from models.handwriting import clips, evaluate, teacher, tiny

CHECKPOINT = Path(models.handwriting.__file__).parent / "checkpoint"


def test_it_is_at_most_10_megabytes_and_bfloat16():
    assert sum(path.stat().st_size for path in CHECKPOINT.iterdir()) <= 10_000_000
    with safe_open(CHECKPOINT / "model.safetensors", "pt") as file:
        assert {file.get_tensor(name).dtype for name in file.keys()} == {torch.bfloat16}  # noqa: SIM118
    assert "seed" in (CHECKPOINT / "TRAINING.md").read_text()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return clips.generate(tmp_path_factory.mktemp("clips"), "test", 48, seed=11)


def test_it_is_right_on_most_unseen_handwriting_and_its_traces_differ(files):
    shown = [clips.scene(11, "test", n).digits for n in range(len(files))]
    figures = evaluate.evaluate(CHECKPOINT, files, shown)
    assert 0.70 <= figures.greedy < 1.0  # a third would be luck; with all right there would be nothing to calibrate
    assert figures.distinct > 0.4


def test_transformers_and_vllm_agree_token_for_token(files):
    from models.engine import EngineSpec, Request, Sampling
    from models.engine_transformers import TransformersEngine
    from models.engine_vllm import VllmEngine

    spec = {"model": str(CHECKPOINT), "dtype": "float32", "max_model_len": 256, "max_num_seqs": 32}
    spec["kv_cache_bytes"] = 1 << 27
    greedy = Sampling(temperature=0.0, max_tokens=64)
    found = {}
    for engine in (TransformersEngine(EngineSpec("transformers", **spec)), VllmEngine(EngineSpec("vllm", **spec))):
        prompt = engine.chat(tiny.PROMPT)
        requests = (
            Request(path.stem, prompt, sample(path.read_bytes(), tiny.FRAMES, Limits()), tiny.FRAMES.fps, 0, 1, 0)
            for path in files[:16]
        )
        found[engine.name] = {done.key: done for done in engine.generate(requests, greedy, clips.LABELS)}
        engine.close()
    reference, other = found["transformers"], found["vllm"]
    assert reference.keys() == other.keys() and len(reference) == 16
    for key in reference:
        assert reference[key].token_ids == other[key].token_ids, key
        assert reference[key].logprob_sum == pytest.approx(other[key].logprob_sum, abs=1e-3)
    assert len({done.token_ids for done in reference.values()}) > 8  # not the same words for every clip
    assert all(done.text.startswith(teacher.observation(())[:13]) for done in reference.values())
