"""Given a clip and what reviewers made of it, then an engine's review is what the trainer computes of the same words."""

from pathlib import Path

import numpy as np
import pytest
import torch

from models.engines.promise import EngineSpec
from models.engines.reviews import ReviewPlan, Reviews, ReviewTask
from models.language.review import BEFORE, said
from models.training import alignment
from models.training.alignment import Example
from models.training.batches import completion_logprobs
from models.training.model import load
from models.video.clip import Clip
from models.video.container import MediaError
from models.video.frames import FrameSpec
from models.video.pool import DecodeSettings

CODES = ("A", "B", "C")
TOLD = (
    said({"status": "ok", "labels": ["rising"], "observation": "3 4 5 6", "think": "3<4 4<5 5<6", "text": ""}),
    said({"status": "parse_error", "labels": [], "observation": None, "think": None, "text": "<|im_end|> so\n\nmixed"}),
    said({"status": "ok", "labels": ["mixed"], "observation": "", "think": "", "text": ""}, "title: of four digits"),
)


def noise(uri: str) -> Clip:
    frames = np.random.default_rng(int(uri)).integers(0, 255, (8, 56, 56, 3), dtype=np.uint8)
    return Clip.even(frames, 2.0)


def decode(uri, video_id, frames, limits):
    if uri == "bad":
        raise MediaError("no_frames", "nothing in it")
    return noise(uri)


PLAN = ReviewPlan(
    engine=EngineSpec("vllm", ""),
    frames=FrameSpec(8, 56 * 56, 4.0, cell=14),
    text="Four digits: A rising, B falling, C mixed?",
    before=BEFORE,
    codes=CODES,
    decode=decode,
    decoding=DecodeSettings(workers=1, timeout_s=60),
)


def test_a_review_is_what_the_trainer_computes_of_the_same_words(vllm_engine, random_model):
    model, processor = load(Path(random_model))
    tasks = [ReviewTask(number, f"v{number}", str(number), TOLD) for number in range(3)]
    found = {task.key: result for task, result in Reviews(PLAN, vllm_engine).of(tasks)}
    assert found.keys() == {0, 1, 2}
    for number in found:
        due = [Example(noise(str(number)), PLAN.text, code, told, BEFORE) for told in TOLD for code in CODES]
        rows = []
        for example in due:
            (micro,) = alignment.micros(processor, [example], 1)
            with torch.no_grad():
                rows.append(completion_logprobs(model, micro.batch)[0, 0].item())
        assert found[number] == pytest.approx(np.reshape(rows, (len(TOLD), len(CODES))), abs=1e-3)


def test_what_cannot_be_watched_or_asked_comes_back_with_its_reason(vllm_engine):
    tasks = [
        ReviewTask(0, "v0", "bad", TOLD),
        ReviewTask(1, "v1", "1", TOLD[:1]),
        ReviewTask(2, "v2", "2", ("so " * 2000,)),
        ReviewTask(3, "v3", "bad", TOLD),
    ]
    found = {task.key: result for task, result in Reviews(PLAN, vllm_engine).of(tasks)}
    assert found[0] == found[3] == "no_frames: nothing in it"
    assert isinstance(found[1], np.ndarray) and found[1].shape == (1, 3)
    assert "max_model_len" in found[2]


def test_a_review_that_is_lost_is_an_error():
    class Losing:
        def chat(self, text, clips=1, said="", before=""):
            return f"{text}{before}\n{said}"

        def classify(self, questions, codes):
            list(questions)
            return iter(())

    with pytest.raises(RuntimeError, match="1 videos were to be reviewed and 0 came back"):
        list(Reviews(PLAN, Losing()).of([ReviewTask(0, "v", "1", TOLD)]))
