"""The loop on a small real model in float64: resuming changes nothing, and neither does cutting a batch into pieces."""

from __future__ import annotations

import math
import re
import shutil
from dataclasses import dataclass, replace

import pytest
import torch

from models.training.objectives import next_token_logprobs, sft_loss_sum
from models.training.trainer import FACTS, ResumeError, TrainSpec, train

SPEC = TrainSpec(steps=12, learning_rate=0.05, warmup=3, checkpoint_every=4)


@dataclass
class Texts:
    ids: torch.Tensor
    keep: torch.Tensor

    @property
    def weight(self) -> float:
        return int(self.keep.sum())


def make_model() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Embedding(7, 8), torch.nn.Dropout(0.3), torch.nn.Linear(8, 7)).double()


def calm_model() -> torch.nn.Module:
    """Without dropout, whose draws depend on how a batch is cut."""
    model = make_model()
    model[1].p = 0.0
    return model


def draw(step: int, rows: int = 8) -> Texts:
    """Rows that keep very different numbers of tokens, so that a mean of means would show."""
    generator = torch.Generator().manual_seed(step)
    ids = torch.randint(0, 7, (rows, 10), generator=generator)
    lengths = torch.randint(1, 10, (rows, 1), generator=generator)
    return Texts(ids, torch.arange(9)[None] < lengths)


def pieces(step: int, size: int) -> list[Texts]:
    whole = draw(step)
    return [Texts(whole.ids[i : i + size], whole.keep[i : i + size]) for i in range(0, 8, size)]


def loss_sum(model, texts):
    return sft_loss_sum(next_token_logprobs(model(texts.ids), texts.ids), texts.keep)


def losses_of(spec=SPEC, folder=None, batches=lambda step: [draw(step)], model=None, stop_at=None):
    seen = {}

    def on_metric(name, step, value):
        if step == stop_at:
            raise KeyboardInterrupt
        seen[name, step] = value

    try:
        train(model or make_model(), batches, loss_sum, spec, folder, on_metric)
    except KeyboardInterrupt:
        assert stop_at is not None
    return {step: value for (name, step), value in seen.items() if name == "loss"}


def test_it_learns():
    losses = losses_of(replace(SPEC, steps=60), batches=lambda step: [draw(0)], model=calm_model())
    assert losses[59] < 0.9 * losses[0]


@pytest.mark.parametrize("stop_at", [1, 4, 5, 9, 11])
def test_a_resumed_run_reports_the_uninterrupted_losses(tmp_path, stop_at):
    whole = losses_of()
    before = losses_of(folder=tmp_path, stop_at=stop_at)
    torch.manual_seed(99)  # another process starts with another random state; dropout must not notice
    after = losses_of(folder=tmp_path, model=make_model())
    assert min(after) == stop_at // 4 * 4
    assert before | after == whole
    assert all(before[step] == after[step] for step in before.keys() & after.keys())


def test_a_checkpoint_that_was_cut_short_does_not_count(tmp_path):
    losses_of(folder=tmp_path, stop_at=9)
    newest = max(tmp_path.glob("step-*"))
    assert newest.name == "step-00000008"
    (newest / "complete").unlink()
    (newest / "state.pt").write_bytes(b"half")
    assert min(losses_of(folder=tmp_path)) == 4


def test_only_the_newest_checkpoints_stay(tmp_path):
    losses_of(folder=tmp_path)
    assert sorted(path.name for path in tmp_path.glob("step-*")) == ["step-00000008", "step-00000012"]


def test_a_finished_run_has_nothing_to_do(tmp_path):
    losses_of(folder=tmp_path)
    assert losses_of(folder=tmp_path) == {}


def test_a_step_with_nothing_to_learn_changes_nothing():
    model = calm_model()
    before = [parameter.clone() for parameter in model.parameters()]
    assert losses_of(replace(SPEC, steps=1), batches=lambda step: [], model=model) == {}
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_going_on_over_other_data_or_settings_is_refused_by_name(tmp_path):
    facts = {"lessons": 12, "rate": 0.1, "start": "abc"}

    def go(facts, steps):
        train(make_model(), lambda step: [draw(step)], loss_sum, replace(SPEC, steps=steps), tmp_path, facts=facts)

    go(facts, 4)
    go(facts, 8)  # further, of the same
    for changed, said in (
        (facts | {"rate": 0.2}, "rate: then 0.1, now 0.2"),
        (facts | {"lessons": 13, "start": "x"}, "lessons: then 12, now 13; start: then 'abc', now 'x'"),
        ({"rate": 0.1, "start": "abc"}, "lessons: then 12, now None"),
    ):
        with pytest.raises(ResumeError, match=re.escape(said)):
            go(changed, 12)
    go(facts, 12)


def test_a_folder_of_another_stage_is_told_without_all_that_differs(tmp_path):
    def go(facts):
        train(make_model(), lambda step: [draw(step)], loss_sum, SPEC, tmp_path, facts=facts)

    go({"stage": "align", "align.batch": 4})
    with pytest.raises(ResumeError, match="are of the stage align, expected refine: begin in another folder") as told:
        go({"stage": "refine", "refine.groups": 16})
    assert "batch" not in str(told.value)


def test_a_checkpoint_that_was_cut_names_itself_and_without_it_the_one_before_goes_on(tmp_path):
    spec = replace(SPEC, steps=8, checkpoint_every=2)
    whole = make_model()
    train(whole, lambda step: [draw(step)], loss_sum, spec, tmp_path / "whole")
    train(make_model(), lambda step: [draw(step)], loss_sum, spec, tmp_path / "cut")
    newest = max((tmp_path / "cut").glob("step-*"))
    state = newest / "state.pt"
    state.write_bytes(state.read_bytes()[: state.stat().st_size // 2])
    model = make_model()
    with pytest.raises(ResumeError, match=re.escape(f"{state}: expected a whole checkpoint")):
        train(model, lambda step: [draw(step)], loss_sum, spec, tmp_path / "cut")
    shutil.rmtree(newest)
    steps = []
    model = make_model()
    train(
        model,
        lambda step: [draw(step)],
        loss_sum,
        spec,
        tmp_path / "cut",
        on_metric=lambda name, step, value: steps.append(step),
    )
    assert min(steps) == 6
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), model.parameters(), strict=True))


def test_half_of_what_tells_what_checkpoints_are_about_is_one_line_and_deleting_it_goes_on(tmp_path):
    train(make_model(), lambda step: [draw(step)], loss_sum, SPEC, tmp_path, facts={"rate": 1})
    facts = tmp_path / FACTS
    facts.write_bytes(facts.read_bytes()[:5])
    with pytest.raises(ResumeError, match=re.escape(f"{facts}: expected a JSON document")) as told:
        train(make_model(), lambda step: [draw(step)], loss_sum, SPEC, tmp_path, facts={"rate": 1})
    assert "\n" not in str(told.value) and "delete it" in str(told.value)
    facts.unlink()
    train(make_model(), lambda step: [draw(step)], loss_sum, SPEC, tmp_path, facts={"rate": 1})


def test_facts_of_a_run_that_never_reached_a_checkpoint_bind_nobody(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(
            make_model(), lambda step: [draw(step)], loss_sum, SPEC, tmp_path, facts={"rate": 1}, on_metric=interrupted
        )
    train(make_model(), lambda step: [draw(step)], loss_sum, SPEC, tmp_path, facts={"rate": 2})


def interrupted(name, step, value):
    raise KeyboardInterrupt


def test_eight_pieces_of_one_and_one_of_eight_give_one_loss_curve():
    whole = losses_of(batches=lambda step: pieces(step, 8), model=calm_model())
    cut = losses_of(batches=lambda step: pieces(step, 1), model=calm_model())
    uneven = losses_of(batches=lambda step: pieces(step, 3), model=calm_model())
    assert whole == pytest.approx(cut, rel=1e-10)
    assert whole == pytest.approx(uneven, rel=1e-10)


def test_the_gradient_is_clipped():
    model = make_model()
    before = [p.detach().clone() for p in model.parameters()]
    spec = TrainSpec(steps=1, learning_rate=0.1, warmup=0, weight_decay=0.0, clip_norm=0.0)
    train(model, lambda step: [draw(step)], loss_sum, spec)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_the_rate_rises_then_falls_to_zero():
    spec = TrainSpec(steps=110, learning_rate=1.0, warmup=10)
    assert [spec.rate(0), spec.rate(9), spec.rate(10), spec.rate(60)] == pytest.approx([0.1, 1.0, 1.0, 0.5])
    assert 0 < spec.rate(109) < 0.01


def test_a_batch_without_a_counting_token_is_refused():
    nothing = Texts(torch.zeros(1, 4, dtype=torch.long), torch.zeros(1, 3, dtype=torch.bool))
    with pytest.raises(ValueError, match="step 0: nothing in the batch counts"):
        losses_of(batches=lambda step: [nothing])


@pytest.mark.parametrize("factor", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_stops_the_run_before_it_spoils_the_weights(factor):
    model = make_model()
    before = [parameter.clone() for parameter in model.parameters()]
    with pytest.raises(FloatingPointError, match="step 0"):
        train(model, lambda step: [draw(step)], lambda m, t: loss_sum(m, t) * factor, SPEC)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
