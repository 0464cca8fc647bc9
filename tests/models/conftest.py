"""Engines are slow to start: one of each for all tests of this room."""

import numpy as np
import pytest

from models.engines.promise import EngineSpec, Request, Sampling
from models.language.label_scores import Choice
from models.video.clip import Clip

LABELS = ("rising", "falling", "mixed")


@pytest.fixture(scope="session")
def random_model(tmp_path_factory):
    """A folder with the tiny model, untrained: its tokens are varied and its completions end at any length."""
    from models.handwriting import tiny

    folder = tmp_path_factory.mktemp("model") / "tiny"
    tiny.make(folder, seed=0)
    return str(folder)


@pytest.fixture(scope="module")  # an engine that is closed takes with it what others of its process rest on
def vllm_engine(random_model):
    from models.engines.vllm import VllmEngine

    engine = VllmEngine(EngineSpec("vllm", random_model, max_model_len=512, max_num_seqs=64))
    yield engine
    engine.close()


@pytest.fixture(scope="session")
def reference_engine(random_model):
    from models.engines.transformers import TransformersEngine

    return TransformersEngine(EngineSpec("transformers", random_model, max_model_len=512))


@pytest.fixture
def ask(vllm_engine):
    """ask(i, n=.., first=..): a request for n rollouts of the i-th made-up clip."""
    prompt = vllm_engine.chat("Four digits: rising, falling or mixed?")

    def make(i: int, n: int = 4, first: int = 0, **changed) -> Request:
        frames = np.random.default_rng(i).integers(0, 255, (8, 56, 56, 3), dtype=np.uint8)
        wanted = {"key": f"clip{i}", "prompt": prompt, "clips": (Clip.even(frames, 2.0),), "first_index": first, "n": n}
        return Request(**(wanted | {"seed": 1000 * i + first} | changed))

    return make


SOME = Sampling(max_tokens=48)


@pytest.fixture
def collect():
    """collect(engine, requests, sampling): {(key, index): completion}, each of which came once."""

    def run(engine, requests, sampling=SOME, labels=LABELS):
        found = list(engine.generate(iter(requests), sampling, Choice(labels) if labels else None))
        named = {(c.key, c.index): c for c in found}
        assert len(named) == len(found)
        return named

    return run
