"""Both engines compute the same on both model families, whatever the shape of the clip; see benchmarks/parity.py."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from benchmarks import families, parity
from models.engines.folder import check_folder
from models.engines.promise import EngineSpec, Sampling
from models.engines.transformers import TransformersEngine
from models.training.model import load
from models.training.objectives import next_token_logprobs
from models.video.clip import Clip
from models.video.frames import FrameSpec
from models.video.processors import processor_inputs

SHAPES = [shape for shape in parity.SHAPES if shape.rows < 16]


@pytest.fixture(scope="module", params=families.FAMILIES)
def both(request, tmp_path_factory):
    """Both engines on a tiny checkpoint: family, folder, serving, reference."""
    folder = families.make(tmp_path_factory.mktemp("family"), request.param)
    serving, reference = parity.engines(folder)
    yield SimpleNamespace(family=request.param, folder=folder, serving=serving, reference=reference)
    serving.close()
    reference.close()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_engines_agree_token_for_token_and_in_every_log_probability(both, shape):
    found = parity.compare(both.family, shape, both.serving, both.reference, n=8)
    assert found.agreeing == found.greedy_tokens > 0
    assert found.greedy_difference < 1e-4
    assert found.sampled_tokens > 64 and found.sampled_difference < 1e-4


def test_the_trainer_computes_what_the_engine_drew(both):
    """In one pass over prompt and completion, as it trains: 64 rollouts, up to where one draws a picture or clip."""
    model, processor = load(both.folder)
    asked = {request.key: request for request in parity.requests(both.serving, both.family, SHAPES[1], clips=8, n=8)}
    drawn = list(both.serving.generate(iter(asked.values()), Sampling(max_tokens=24), token_logprobs=True))
    assert len(drawn) == 64
    stray = {
        model.config.video_token_id,
        model.config.image_token_id,
    }  # an untrained model draws them; they stand for none
    compared = 0
    for done in drawn:
        ids = done.token_ids[: next((at for at, token in enumerate(done.token_ids) if token in stray), None)]
        if not ids:
            continue
        request = asked[done.key]
        inputs = processor(text=[request.prompt], **processor_inputs(request.clips), return_tensors="pt")
        for name, more in (("input_ids", torch.tensor([ids])), ("mm_token_type_ids", torch.zeros(1, len(ids)).long())):
            inputs[name] = torch.cat([inputs[name], more], dim=1)
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        with torch.inference_mode():
            logits = model(**inputs, use_cache=False).logits
        found = next_token_logprobs(logits, inputs["input_ids"])[0, -len(ids) :]
        assert found.tolist() == pytest.approx(done.token_logprobs[: len(ids)], abs=1e-4)
        compared += len(ids)
    assert compared > 1000


def test_what_is_said_of_a_clip_depends_on_its_clock(both):
    """Else any positions would do: the same pictures, twice and five times as slowly."""
    (asked,) = parity.requests(both.serving, both.family, SHAPES[1], clips=1, n=1)
    (clip,) = asked.clips
    slower = [Clip(clip.pixels, [time * by for time in clip.times], clip.duration * by) for by in (1, 2, 5)]
    for engine in (both.serving, both.reference):
        requests = [replace(asked, key=str(number), clips=(shown,)) for number, shown in enumerate(slower)]
        found = list(engine.generate(iter(requests), Sampling(temperature=0.0, max_tokens=16)))
        assert len({round(done.logprob_sum, 3) for done in found}) == 3


def test_the_room_that_a_prompt_needs_is_known_before_an_engine_runs(both):
    """With the words by which one family tells the time."""
    shape = SHAPES[1]
    (asked,) = parity.requests(both.serving, both.family, shape, clips=1, n=1)
    (done,) = both.serving.generate(iter([asked]), Sampling(max_tokens=1))
    cell = families.PATCH[both.family] * families.MERGE
    frames = FrameSpec(shape.frames, shape.rows * shape.columns * cell**2, fps=100.0, cell=cell)
    needed = check_folder(str(both.folder), parity.PROMPT, None, frames)
    assert done.prompt_tokens <= needed <= 1.3 * done.prompt_tokens


def test_token_logprobs_come_where_they_are_asked_for(both):
    for engine in (both.serving, both.reference):
        for asked in (False, True):
            (done,) = engine.generate(
                parity.requests(engine, both.family, SHAPES[0], 1, 1), Sampling(max_tokens=8), token_logprobs=asked
            )
            if asked:
                assert len(done.token_logprobs) == len(done.token_ids)
                assert sum(done.token_logprobs) == pytest.approx(done.logprob_sum, abs=1e-4)
            else:
                assert done.token_logprobs is None


def test_a_folder_that_prepares_pictures_and_clips_differently_is_refused(tmp_path):
    families.make(tmp_path, "qwen2_5_vl")
    path = tmp_path / "processor_config.json"
    config = json.loads(path.read_text())
    config["video_processor"]["image_mean"] = [0.1, 0.2, 0.3]
    path.write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"image_mean: expected one value for pictures and clips"):
        TransformersEngine(EngineSpec("transformers", str(tmp_path)))
