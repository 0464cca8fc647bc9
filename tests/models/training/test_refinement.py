"""Rounds on the tiny model and real vLLM: what is drawn is what the trainer computes, once, and in any number of pieces."""

from __future__ import annotations

import os
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from support import free_port

import models.handwriting
from models.engines.promise import EngineDead, EngineSpec, Sampling
from models.handwriting import scenes, tiny
from models.handwriting.rule import LABELS, label_argued
from models.handwriting.sight import sampled
from models.training import parallel
from models.training.attempts import Attempts
from models.training.batches import completion_logprobs
from models.training.drawing import Past, draw
from models.training.lessons import COLUMNS, Lessons, write
from models.training.model import load
from models.training.refinement import Refinement, RefineSpec, Task
from models.training.rewards import rewards
from models.training.rounds import Drawn, groups
from models.training.trainer import TrainSpec, accumulate, train
from models.video.container import MediaError

CHECKPOINT = Path(models.handwriting.__file__).parent / "checkpoint"
TASK = Task(
    tiny.PROMPT,
    "observation",
    LABELS,
    False,
    label_argued,
    rewards({"accuracy": 1.0, "format": 0.5, "evidence": 0.5}, 1, 64),
    Sampling(max_tokens=48),
)
SPEC = RefineSpec(
    objective="clipped",
    credit="trace",
    groups=4,
    rollouts=4,
    updates=1,
    refills=1,
    tau=0.5,
    low=0.2,
    high=0.28,
    cap=2.0,
    beta=0.04,
    micro_batch=5,
    seed=0,
)


class Kept(dict):
    """Rounds in memory; `writes` counts."""

    writes = 0

    def published(self, step):
        return self.get(step)

    def successes(self, first, before):
        drawn = [group[0] for step in range(first, before) for group in groups(self.get(step, []))]
        return [(one.video_id, one.success) for one in drawn]

    def publish(self, step, drawn):
        assert step not in self
        self.writes += 1
        self[step] = list(drawn)


def nobody(*arguments, **named):
    raise AssertionError("this round is published: nothing is to be drawn")


class Silent:
    submit = step = replace_weights = nobody
    unfinished = 0


@pytest.fixture(scope="module")
def engine():
    from models.engines.vllm import VllmEngine

    cores = os.sched_getaffinity(0)
    made = VllmEngine(EngineSpec("vllm", str(CHECKPOINT), max_model_len=256, max_num_seqs=64, kv_cache_bytes=1 << 27))
    os.sched_setaffinity(0, cores)
    yield made
    made.close()


@pytest.fixture(scope="module")
def lessons(tmp_path_factory):
    rows = [
        {"video_id": f"{n:02}", "uri": "", "said": None, "text": None, "labels": [scenes.scene(0, "refine", n).label]}
        for n in range(12)
    ]
    folder = tmp_path_factory.mktemp("lessons")
    return Lessons(write(folder, [pa.RecordBatch.from_pylist(rows, COLUMNS)]))


def shown(asked):
    return [sampled(scenes.scene(0, "refine", int(lesson.video_id))) for lesson in asked]


def stage(lessons, engine, store, spec=SPEC, clips=shown, model=None, **named):
    model, processor = model or load(CHECKPOINT)
    return model, Refinement(spec, TASK, lessons, clips, model, processor, engine, store, **named)


@pytest.fixture(scope="module")
def drawn(lessons, engine):
    """Two rounds of an unchanged model."""
    store = Kept()
    _, own = stage(lessons, engine, store)
    own.batches(0)
    own.batches(1)
    return store


def test_the_trainer_computes_what_the_engine_drew_after_each_of_five_weight_replacements(lessons, engine):
    """64 rollouts, every token of each within 1e-4, under weights that moved."""
    store, compared = Kept(), 0
    model, own = stage(lessons, engine, store, replace(SPEC, groups=4, rollouts=4, objective="softmax"))
    generator = torch.Generator().manual_seed(0)
    for step in range(5):
        for micro in own.batches(step):
            with torch.no_grad():
                found = completion_logprobs(model, micro.batch)
            keep = micro.batch.keep
            torch.testing.assert_close(found[keep], micro.sampled[keep], atol=1e-4, rtol=0)
            compared += len(micro.batch)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 0.02 * parameter.std() * torch.randn(parameter.shape, generator=generator)
    assert compared >= 64
    texts = [{one.text for one in store[step]} for step in range(5)]
    assert all(a != b for a, b in pairwise(texts))


def test_every_video_that_is_drawn_has_its_k_rollouts_with_their_rewards(drawn, lessons):
    for step in (0, 1):
        by_video: dict[str, list[Drawn]] = {}
        for one in drawn[step]:
            by_video.setdefault(one.video_id, []).append(one)
        assert SPEC.groups <= len(by_video) <= 2 * SPEC.groups
        for video_id, group in by_video.items():
            truth = lessons[int(video_id)].labels
            assert [one.index for one in group] == [0, 1, 2, 3]
            assert {one.success for one in group} == {np.mean([one.labels == truth for one in group])}
            for one in group:
                assert one.rewards["accuracy"] == float(one.labels == truth)
                assert one.reward == sum(
                    {"accuracy": 1.0, "format": 0.5, "evidence": 0.5}[n] * v for n, v in one.rewards.items()
                )
                assert len(one.token_ids) == len(one.logprobs) > 0
        assert len({one.text for one in drawn[step]}) > len(by_video)  # siblings differ


def test_a_published_round_is_read_and_not_drawn_again(drawn, lessons):
    _, own = stage(lessons, Silent(), drawn)
    again = own.batches(1)
    assert again and drawn.writes == 2
    with pytest.raises(AssertionError, match="nothing is to be drawn"):
        own.batches(2)


def test_the_same_weights_and_seed_draw_the_same_rollouts(drawn, lessons, engine):
    store = Kept()
    stage(lessons, engine, store)[1].batches(0)
    assert store[0] == drawn[0]
    other = Kept()
    stage(lessons, engine, other, replace(SPEC, seed=1))[1].batches(0)
    assert other[0] != drawn[0]


def test_groups_that_teach_nothing_are_left_out_and_replaced_within_bounds(drawn, lessons):
    _, own = stage(lessons, Silent(), drawn)
    micros = own.batches(0)
    found: dict[str, set[float]] = {}
    for one in drawn[0]:
        found.setdefault(one.video_id, set()).add(one.reward)
    telling = [video_id for video_id, rewards_ in found.items() if len(rewards_) > 1]
    assert sum(len(micro.batch) for micro in micros) == len(telling) * SPEC.rollouts
    assert len(found) > SPEC.groups or len(telling) == SPEC.groups  # else there would have been a refill


def test_cut_rollouts_and_stray_pictures_are_not_learned_from(drawn, lessons):
    cut = Kept(drawn)
    video = drawn[0][0].video_id
    strange = load(CHECKPOINT)[0].config.video_token_id
    own_rows = [one for one in drawn[0] if one.video_id == video]
    changed = [
        replace(paid(own_rows[0], 0.0), finish_reason="length"),
        replace(paid(own_rows[1], 0.0), token_ids=(strange, *own_rows[1].token_ids[1:])),
        *(paid(one, float(one.index)) for one in own_rows[2:]),
    ]
    cut[0] = changed
    _, own = stage(lessons, Silent(), cut)
    micros = own.batches(0)
    assert sum(len(micro.batch) for micro in micros) == 2
    assert sorted({value for micro in micros for value in micro.gain[micro.batch.keep].tolist()}) == pytest.approx(
        sorted([(2 - 1.25) / (np.std([0, 0, 2, 3]) + 1e-4), (3 - 1.25) / (np.std([0, 0, 2, 3]) + 1e-4)]), abs=1e-5
    )  # what was cut still counts in what its siblings are held against


def test_with_credit_by_segment_what_is_seen_gains_by_what_it_is_evidence_of(drawn, lessons):
    """And what comes behind it by the answer, each against the siblings."""
    group = groups(drawn[0])[0]
    told = [(1.0, 0.0), (0.0, 1.0), (0.0, 0.0), (1.0, 0.0)]  # evidence, accuracy
    own_rows = [
        replace(one, rewards={"accuracy": right, "format": 1.0, "evidence": seen}, finish_reason="stop")
        for one, (seen, right) in zip(group, told, strict=True)
    ]
    _, own = stage(lessons, Silent(), Kept({0: own_rows}), replace(SPEC, credit="segment"))
    tokenizer, found = own._tokenizer, []
    for micro in own.batches(0):
        for row, keep in enumerate(micro.batch.keep):
            ids = micro.batch.inputs["input_ids"][row, -micro.batch.places :][keep].tolist()
            found.append((tuple(ids), micro.gain[row][keep].tolist()))
    for one, (seen, right), (ids, gain) in zip(own_rows, told, found, strict=True):
        ends = [len(tokenizer.decode(one.token_ids[: n + 1])) for n in range(len(one.token_ids))]
        border = one.text.index("</observation>") + len("</observation>")
        due = [
            (0.5 * seen - 0.25) / (0.25 + 1e-4) if end <= border else (right - 0.25) / (np.std([0, 0, 0, 1]) + 1e-4)
            for end in ends
        ]
        assert ids == one.token_ids and gain == pytest.approx(due, abs=1e-5)
        assert len(set(due)) == 2


class Cursed:
    """An engine that dies over some videos."""

    def __init__(self, engine, videos: set[str]) -> None:
        self._engine, self._videos, self._asked = engine, videos, set()

    def submit(self, request, *arguments, **named):
        self._asked.add(request.key)
        self._engine.submit(request, *arguments, **named)

    def step(self):
        if self._asked & self._videos:
            while self._engine.unfinished:  # what it holds is not for the next test
                self._engine.step()
            raise EngineDead("out of order")
        return self._engine.step()

    def __getattr__(self, name):
        return getattr(self._engine, name)


def test_videos_over_which_the_engine_dies_three_times_are_left_out_by_the_next_run(
    drawn, lessons, engine, tmp_path, capsys
):
    video = drawn[0][0].video_id
    first = list(dict.fromkeys(one.video_id for one in drawn[0]))[: SPEC.groups]
    for _ in range(3):
        with pytest.raises(EngineDead):
            stage(lessons, Cursed(engine, {video}), Kept(), attempts=Attempts(tmp_path / "a"))[1].batches(0)
    assert "left out" not in capsys.readouterr().err
    store = Kept()
    _, fourth = stage(lessons, Cursed(engine, {video}), store, attempts=Attempts(tmp_path / "a"))
    fourth.batches(0)
    assert f"drawing step 0 ended the process 3 times: {', '.join(first)}" in capsys.readouterr().err
    fourth.batches(1)
    assert store[0] and store[1] and not {one.video_id for step in (0, 1) for one in store[step]} & set(first)


def test_a_run_that_was_killed_once_draws_the_same(drawn, lessons, engine, tmp_path):
    with pytest.raises(EngineDead):
        stage(lessons, Cursed(engine, {drawn[0][0].video_id}), Kept(), attempts=Attempts(tmp_path / "a"))[1].batches(0)
    store = Kept()
    stage(lessons, engine, store, attempts=Attempts(tmp_path / "a"))[1].batches(0)
    assert [(one.video_id, one.text) for one in store[0]] == [(one.video_id, one.text) for one in drawn[0]]


def test_what_the_engine_gives_passes_by_a_watch(lessons, engine):
    seen = []

    def watched(steps):
        for step in steps:
            seen.append(len(step))
            yield step

    store = Kept()
    stage(lessons, engine, store, watched=watched)[1].batches(0)
    assert sum(seen) == len(store[0])


def paid(one: Drawn, reward: float) -> Drawn:
    return replace(one, rewards={"accuracy": reward, "format": 0.0, "evidence": 0.0}, reward=reward)


@pytest.mark.parametrize("objective", ["softmax", "clipped", "grpo"])
def test_gradients_do_not_depend_on_how_a_batch_is_cut(drawn, lessons, objective):
    found = []
    for size in (1, 3, 64):
        model, processor = load(CHECKPOINT)
        near = load(CHECKPOINT)[0].requires_grad_(False)
        with torch.no_grad():
            near.lm_head.weight *= 1.01  # so that a distance is felt
        spec = replace(SPEC, objective=objective, micro_batch=size)
        _, own = stage(lessons, Silent(), drawn, spec, model=(model, processor), reference=near)
        accumulate(model, list(model.parameters()), own.batches(0), own.loss_sum)
        found.append(torch.cat([parameter.grad.flatten() for parameter in model.parameters()]))
    assert found[0].norm() > 0
    for other in found[1:]:
        assert (other - found[0]).norm() < 1e-5 * found[0].norm()


def test_a_round_of_several_updates_is_held_against_what_the_trainer_computed_when_it_drew(lessons, engine):
    spec, store = replace(SPEC, updates=2, refills=0), Kept()
    model, own = stage(lessons, engine, store, spec)
    train(model, own.batches, own.loss_sum, TrainSpec(steps=4, learning_rate=1e-4, warmup=0, weight_decay=0.0))
    assert sorted(store) == [0, 2]
    for one in store[0]:
        assert one.old == pytest.approx(one.logprobs, abs=1e-4)
    sums = []
    for shift in (0.0, 0.1, 2.0):
        held = Kept({0: [replace(one, old=tuple(value - shift for value in one.old)) for one in store[0]]})
        model, own = stage(lessons, Silent(), held, spec)
        (first, *_) = own.batches(0)
        sums.append(own.loss_sum(model, first).item())
    assert sums[1] == pytest.approx(sums[0], rel=1e-3)  # near by, ratio and importance weight make up for each other
    assert abs(sums[2] - sums[0]) > 1  # far away the one is clipped and the other is not
    missing = Kept({0: [replace(one, old=None) if one.index == 0 else one for one in store[0]]})
    _, own = stage(lessons, Silent(), missing, spec)
    counted = sum(len(micro.batch) for step in (0, 1) for micro in own.batches(step))
    whole = sum(len(micro.batch) for step in (0, 1) for micro in stage(lessons, Silent(), store, spec)[1].batches(step))
    assert 0 < counted < whole  # what cannot be held against anything is not learned from


def test_each_objective_states_its_denominator(drawn, lessons):
    """A flat group pulls to the reference and counts for grpo, not for clipped; a video is one however much was cut."""
    rows = [one for one in drawn[0] if one.video_id in {one.video_id for one in drawn[0][: 2 * SPEC.rollouts]}]
    flat, telling = rows[: SPEC.rollouts], rows[SPEC.rollouts :]
    group = [paid(one, 1.0) for one in flat] + [paid(one, float(one.index)) for one in telling]
    group[-1] = replace(group[-1], finish_reason="length")
    weights = {}
    for objective in ("softmax", "clipped", "grpo"):
        _, own = stage(lessons, Silent(), Kept({0: group}), replace(SPEC, objective=objective))
        weights[objective] = sum(micro.weight for micro in own.batches(0))
    tokens = sum(len(one.token_ids) for one in telling[:-1])
    assert weights == {"softmax": pytest.approx(2.0), "clipped": tokens, "grpo": 2 * SPEC.rollouts - 1}


def test_a_video_that_cannot_be_decoded_costs_that_video(lessons, engine):
    def some(asked):
        return [MediaError("decode_error", "broken") if one.video_id < "06" else shown([one])[0] for one in asked]

    store = Kept()
    _, own = stage(lessons, engine, store, replace(SPEC, groups=12), clips=some)
    own.batches(0)
    assert {one.video_id for one in store[0]} == {f"{n:02}" for n in range(6, 12)}


def test_figures_of_a_round_are_told(lessons, drawn):
    told = {}
    _, own = stage(
        lessons, Silent(), drawn, on_metric=lambda name, step, value: told.setdefault(step, {}).update({name: value})
    )
    own.batches(0)
    rows = drawn[0]
    assert told[0]["reward"] == pytest.approx(np.mean([one.reward for one in rows]))
    assert told[0]["reward/accuracy"] == pytest.approx(np.mean([one.rewards["accuracy"] for one in rows]))
    assert told[0]["entropy"] == pytest.approx(
        -sum(sum(one.logprobs) for one in rows) / sum(len(one.token_ids) for one in rows)
    )
    assert told[0]["rollouts"] == len(rows) and 0 <= told[0]["collapse"] <= 1


def test_what_teaches_is_drawn_more_often():
    past = Past(100)
    for place in range(100):
        past.note(place, (0.0, 0.5, 1.0, 0.9)[place % 4])
    first = np.array([draw(past, (0, step))[:10] for step in range(200)]).flatten()
    share = np.bincount(first % 4, minlength=4) / len(first)
    assert share[1] > 0.5 and share[3] > share[0] > 0.03 and share[2] == pytest.approx(share[0], abs=0.03)
    assert sorted(draw(past, (0, 0))) == list(range(100))
    assert (draw(past, (0, 0)) == draw(past, (0, 0))).all() and (draw(past, (0, 0)) != draw(past, (0, 1))).any()


def test_what_was_never_drawn_comes_before_what_is_known_to_teach_nothing():
    past = Past(40)
    for place in range(20):
        past.note(place, 1.0)
    assert np.mean([np.sum(draw(past, (0, step))[:10] >= 20) for step in range(50)]) > 7


# One process and two, on recorded rollouts.


def spread(rank: int, port: int, folder: str, record: str, path: str) -> None:
    if port:
        torch.distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    torch.set_num_threads(1)
    store = Kept(torch.load(record, weights_only=False))
    for objective in ("softmax", "clipped", "grpo"):
        near = load(CHECKPOINT)[0].requires_grad_(False)
        spec = replace(SPEC, objective=objective)
        model, own = stage(Lessons(Path(path)), Silent(), store, spec, reference=near)
        parameters = list(model.parameters())
        for step in range(10):  # the same two rounds again and again
            accumulate(model, parameters, own.batches(step), own.loss_sum)
            if step == 0:
                first = torch.cat([parameter.grad.flatten() for parameter in parameters])
            with torch.no_grad():
                for parameter in parameters:
                    parameter -= 1e-3 * parameter.grad
                    parameter.grad = None
        last = torch.cat([parameter.detach().flatten() for parameter in parameters])
        if parallel.rank() == 0:
            torch.save((first, last), f"{folder}/{objective}-{parallel.size()}.pt")


def test_one_process_and_two_compute_the_same(lessons, drawn, tmp_path):
    record = tmp_path / "record.pt"
    torch.save({step: drawn[step % 2] for step in range(10)}, record)
    torch.multiprocessing.spawn(spread, (free_port(), str(tmp_path), str(record), str(lessons.path)), nprocs=2)
    torch.multiprocessing.spawn(spread, (0, str(tmp_path), str(record), str(lessons.path)), nprocs=1)
    for objective in ("softmax", "clipped", "grpo"):
        (grad, weights), (grad2, weights2) = (torch.load(tmp_path / f"{objective}-{n}.pt") for n in (1, 2))
        assert (grad - grad2).norm() < 1e-5 * grad.norm() and grad.norm() > 0
        assert (weights - weights2).norm() < 1e-5 * weights.norm()
        assert (weights - weights2).abs().max() < 1e-5
