"""Given a clip and what is told of its traces, then an engine's reviews are what the trainer computes of the same words."""

from pathlib import Path

import numpy as np
import pytest
import torch

from models.engines.asking import COLUMNS, Task
from models.engines.promise import Classified, EngineSpec
from models.engines.reviews import ReviewPlan, Reviews
from models.language.review import BEFORE, said
from models.training import alignment
from models.training.alignment import Example
from models.training.batches import completion_logprobs
from models.training.model import load
from models.video.clip import Clip
from models.video.container import MediaError
from models.video.frames import FrameSpec
from models.video.pool import DecodeSettings

CODES = {"rising": "A", "falling": "B", "mixed": "C"}
TOLD = {
    0: said({"status": "ok", "labels": ["rising"], "observation": "3 4 5 6", "think": "3<4 4<5 5<6", "text": ""}),
    1: said({"status": "parse_error", "labels": None, "observation": None, "think": None, "text": "<|im_end|>\n\nso"}),
    3: said({"status": "ok", "labels": ["mixed"], "observation": "", "think": "", "text": ""}, "title: of four digits"),
}


def noise(uri: str) -> Clip:
    frames = np.random.default_rng(int(uri)).integers(0, 255, (8, 56, 56, 3), dtype=np.uint8)
    return Clip.even(frames, 2.0)


def decode(uri, video_id, frames, limits):
    if uri in ("bad", "away"):
        raise MediaError("no_frames" if uri == "bad" else "unreachable", "nothing in it")
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


def task(uri: str, *missing: int, told=TOLD) -> Task:
    return Task(f"v{uri}", uri, missing, 0, said=told)


def test_reviews_are_what_the_trainer_computes_of_the_same_words(vllm_engine, random_model):
    model, processor = load(Path(random_model))
    rows = list(Reviews(PLAN, vllm_engine).rows([task("0", 0, 1, 3), task("1", 3, 0)]))
    assert sorted((row["video_id"], row["rollout_index"]) for row in rows) == [
        ("v0", 0),
        ("v0", 1),
        ("v0", 3),
        ("v1", 0),
        ("v1", 3),
    ]
    for row in rows:
        assert row.keys() == {*COLUMNS} and row["status"] == "ok" and row["tokens"] == 1
        expected = {}
        for label, code in CODES.items():
            example = Example(noise(row["video_id"][1:]), PLAN.text, code, TOLD[row["rollout_index"]], BEFORE)
            (micro,) = alignment.micros(processor, [example], 1)
            with torch.no_grad():
                expected[label] = completion_logprobs(model, micro.batch)[0, 0].item()
        assert row["label_logprobs"] == pytest.approx(expected, abs=1e-3)
        assert row["label"] == max(expected, key=expected.get) and row["labels"] == [row["label"]]
        assert row["text"] == row["answer"] == CODES[row["label"]]
        assert row["logprob_sum"] == row["label_logprobs"][row["label"]]


def test_what_cannot_be_watched_or_asked_is_a_row_that_says_why(vllm_engine):
    long = {0: "so " * 2000, 1: TOLD[1]}
    tasks = [
        task("bad", 0, 1),
        task("1", 0),
        task("2", 0, told=long),
        task("4", 0, 1, told=long),
        task("away", 0),
        task("3"),
    ]
    found = {(row["video_id"], row["rollout_index"]): row for row in Reviews(PLAN, vllm_engine).rows(tasks)}
    assert {key: row["status"] for key, row in found.items()} == {
        ("vbad", 0): "decode_error",
        ("vbad", 1): "decode_error",
        ("v1", 0): "ok",
        ("v2", 0): "generation_error",
        ("v4", 0): "generation_error",
        ("v4", 1): "ok",
        ("vaway", 0): "generation_error",
    }
    assert found["vbad", 0]["error"] == "no_frames: nothing in it" and found["vbad", 0]["label"] is None
    assert "max_model_len" in found["v2", 0]["error"] and "max_model_len" in found["v4", 0]["error"]


class Scripted:
    """Finds every label equally probable; lose: some answers never come."""

    name, version = "scripted", "1"

    def __init__(self, lose=False):
        self.lose, self.asked = lose, []

    def chat(self, text, clips=1, said="", before=""):
        return f"{text} {before}\n{said}"

    def classify(self, questions, codes):
        for question in questions:
            self.asked.append((question.prompt, question.tails))
            if not self.lose:
                yield Classified(question.key, np.zeros((len(question.tails), len(codes))), 7)


def test_what_traces_share_is_asked_once_and_equal_labels_go_by_slug():
    engine = Scripted()
    rows = list(Reviews(PLAN, engine).rows([task("1", 3, 0, 0)]))
    assert engine.asked == [(f"{PLAN.text} {BEFORE}\n", (TOLD[0], TOLD[3]))]
    assert [(row["rollout_index"], row["label"]) for row in rows] == [(0, "falling"), (3, "falling")]


def test_a_review_that_is_lost_is_an_error():
    with pytest.raises(RuntimeError, match="2 rollouts were asked for and 0 came back"):
        list(Reviews(PLAN, Scripted(lose=True)).rows([task("1", 0, 3)]))
