"""Stage 2, `refine`: reinforcement learning of the reasoning model by rule rewards (DeepIntuit; GRPO).

A round draws videos, lets the engine write K rollouts of each under the newest weights, gives each rollout its rewards, and
teaches by them. What a round drew is published before anything is learned from it: a run that goes on after a kill reads
what is there instead of drawing again.

Three objectives, each over its own denominator:

    softmax   -sum_k w_k log g(R_k, y_k | x), w the softmax of a group's rewards     videos       the paper as printed
    clipped   PPO's clipped ratio times z-scored rewards                             tokens       its public code (DAPO)
    grpo      the same per sequence, with a distance to the aligned model            sequences    DeepSeekMath

Beside `clipped`: groups whose rewards are all equal teach nothing, so others are drawn in their place (`refills` times at
most), and rollouts that the token limit cut are not learned from, whichever the objective.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Any, Literal

import torch
from transformers import PreTrainedModel, ProcessorMixin

from models.engines.asking import seed_of
from models.engines.promise import Classified, Completion, Engine, Request, RequestRefused, Sampling
from models.language.prompts import begun, chat
from models.language.rule import Rule
from models.language.terminal import harmless
from models.training import parallel
from models.training.attempts import Attempts
from models.training.batches import Batch, Sample, collate, completion_logprobs
from models.training.credit import Credit, by_token, gains
from models.training.drawing import Past, draw
from models.training.lessons import Lesson, Rows
from models.training.model import served
from models.training.objectives import (
    clipped_loss_sum,
    group_advantages,
    grpo_loss_sum,
    softmax_loss_sum,
    softmax_weights,
)
from models.training.rewards import Rewards, accuracy, consistency, judge
from models.training.rounds import Drawn, Store, figures, groups
from models.training.trainer import OnMetric
from models.video.clip import Clip
from models.video.container import MediaError

Objective = Literal["softmax", "clipped", "grpo"]


@dataclass(frozen=True)
class RefineSpec:
    """What a refinement is.

    credit: see credit.py. groups: videos of a round; rollouts: K; updates: optimiser steps of a round, each over its own
    part of the groups; refills: times that groups which teach nothing are replaced (clipped). tau: of softmax; low, high,
    cap: of clipped, see objectives; low, beta: of grpo. micro_batch: sequences in memory at once.
    """

    objective: Objective
    credit: Credit
    groups: int
    rollouts: int
    updates: int
    refills: int
    tau: float
    low: float
    high: float
    cap: float
    beta: float
    micro_batch: int
    seed: int


@dataclass(frozen=True)
class Task:
    """What a rollout is asked and read by; rule: the task's own, where it has one."""

    prompt: str
    grammar: str
    labels: tuple[str, ...]
    several: bool
    rule: Rule | None
    rewards: Rewards
    sampling: Sampling


@dataclass(frozen=True)
class Micro:
    """A piece of a batch. gain: softmax weight or advantage of each token; sampled, old: log-probabilities; all [B, n]."""

    batch: Batch
    gain: torch.Tensor
    sampled: torch.Tensor
    old: torch.Tensor | None
    weight: float


class Refinement:
    """The two functions that the loop needs: `batches` and `loss_sum`.

    clips: gives what the model is shown of each video, or why there is nothing to show. reference: the model to stay near
    to (grpo). on_metric: figures of each round. attempts: at drawing a round, see there; watched: passes on what the engine
    gives, and sees where it gives nothing.
    """

    def __init__(
        self,
        spec: RefineSpec,
        task: Task,
        lessons: Rows,
        clips: Callable[[Sequence[Lesson]], list[Clip | MediaError]],
        model: PreTrainedModel,
        processor: ProcessorMixin,
        engine: Engine,
        store: Store,
        reference: PreTrainedModel | None = None,
        on_metric: OnMetric = lambda name, step, value: None,
        attempts: Attempts | None = None,
        watched: Callable[[Iterator[Any]], Iterator[Any]] = iter,
    ) -> None:
        self._spec, self._task, self._lessons, self._clips = spec, task, lessons, clips
        self._model, self._processor, self._engine, self._store = model, processor, engine, store
        self._reference, self._on_metric = reference, on_metric
        self._attempts, self._watched = attempts or Attempts(), watched
        self._past = Past(len(lessons))
        self._noted = 0  # rounds whose outcome `_past` has
        self._place = {video_id: place for place, video_id in enumerate(lessons.ids())}
        self._prompts: dict[str, str] = {}
        self._tokenizer = processor.tokenizer
        config = model.config
        self._strays = {config.video_token_id, config.image_token_id}
        self._round: tuple[int, list[Drawn]] = (-1, [])

    def batches(self, step: int) -> list[Micro]:
        """The pieces of one optimiser step; none where the round taught nothing."""
        first = step - step % self._spec.updates
        if self._round[0] != first:
            self._round = first, self._drawn(first)
        learned = [group for group in groups(self._round[1]) if self._teaches(group)]
        return self._micros(learned[step - first :: self._spec.updates])

    def loss_sum(self, model: PreTrainedModel, micro: Micro) -> torch.Tensor:
        """The objective, summed over a piece."""
        spec, logprobs = self._spec, completion_logprobs(model, micro.batch)
        keep, gain = micro.batch.keep.to(logprobs.device), micro.gain.to(logprobs)
        old = logprobs.detach() if micro.old is None else micro.old.to(logprobs)
        if spec.objective == "softmax":
            return softmax_loss_sum(logprobs, keep, gain)
        if spec.objective == "clipped":
            sampled = micro.sampled.to(logprobs)
            return clipped_loss_sum(logprobs, old, sampled, keep, gain, spec.low, spec.high, spec.cap)
        with torch.no_grad():
            near = completion_logprobs(self._reference, micro.batch)
        return grpo_loss_sum(logprobs, old, near, keep, gain, spec.low, spec.beta)

    def _drawn(self, step: int) -> list[Drawn]:
        """The round of a step: read where it is published, else drawn and published."""
        if self._noted < step:  # a resumed run learns what came of the rounds before it
            for video_id, success in self._told(lambda: self._store.successes(self._noted, step)):
                self._past.note(self._place[video_id], success)
        self._noted = step + self._spec.updates
        drawn, seconds = self._told(lambda: self._store.published(step)), None
        if drawn is None:
            began = time.monotonic()
            drawn = self._draw(step)
            seconds = time.monotonic() - began
            self._told(lambda: self._store.publish(step, drawn))
        self._note(drawn)
        telling, collapsed = (sum(map(of, groups(drawn))) for of in (self._teaches, self._collapsed))
        for name, value in figures(drawn, telling, collapsed, seconds).items():
            self._on_metric(name, step, value)
        return drawn

    def _told(self, ask: Callable[[], Any]) -> Any:
        """What the first process finds, in all of them; the others do not ask."""
        return parallel.told(ask() if parallel.rank() == 0 else None)

    def _draw(self, step: int) -> list[Drawn]:
        """Rollouts under the newest weights, until enough groups teach something or `refills` are used up."""
        spec, made, wanted = self._spec, list[Drawn](), self._spec.groups
        left_out = {self._place.get(video_id) for video_id in self._told(lambda: self._attempts.begin(step))}
        order = (int(place) for place in draw(self._past, (spec.seed, step)) if place not in left_out)
        self._engine.replace_weights(served(self._model))
        for _ in range(1 + (spec.refills if spec.objective == "clipped" else 0)):
            lessons = [self._lessons[place] for place in islice(order, wanted)]
            self._told(partial(self._attempts.ask, [lesson.video_id for lesson in lessons]))
            drawn = self._roll_out(step, lessons)
            made += drawn
            wanted -= sum(self._teaches(group) for group in groups(drawn))
            if wanted <= 0 or not lessons:
                break
        self._told(self._attempts.end)
        return made if spec.updates == 1 else self._with_old(made)

    def _roll_out(self, step: int, lessons: Sequence[Lesson]) -> list[Drawn]:
        """K rollouts of each video that can be shown, videos in the order given; each process makes those of its share."""
        lessons = parallel.share(lessons)
        shown = {
            lesson.video_id: (lesson, clip)
            for lesson, clip in zip(lessons, self._clips(lessons), strict=True)
            if isinstance(clip, Clip)
        }
        found: dict[str, dict[int, Completion]] = {}
        for request in self._requests(step, shown):
            try:
                self._engine.submit(request, self._task.sampling, token_logprobs=True)
                found[request.key] = {}
            except RequestRefused as error:  # it costs that video, as one that cannot be decoded does
                print(harmless(f"left out of this round: {request.key}: {error}"), file=sys.stderr, flush=True)
        # All at once, then to the end: what is computed together, and so the last digit, depends on no clock.
        for finished in self._watched(self._steps()):
            for done in finished:
                if isinstance(done, Completion):
                    found[done.key][done.index] = done
        made = [
            self._judged(shown[video_id][0], [completions[index] for index in sorted(completions)])
            for video_id, completions in found.items()
        ]
        return [drawn for group in parallel.gathered(made) for drawn in group]

    def _steps(self) -> Iterator[Sequence[Completion | Classified]]:
        while self._engine.unfinished:
            yield self._engine.step()

    def _requests(self, step: int, shown: dict[str, tuple[Lesson, Clip]]) -> Iterator[Request]:
        for video_id, (lesson, clip) in shown.items():
            seed = seed_of(self._spec.seed, f"{video_id}/{step}", 0)
            yield Request(video_id, self._prompt(lesson), (clip,), 0, self._spec.rollouts, seed)

    def _prompt(self, lesson: Lesson) -> str:
        if lesson.said not in self._prompts:
            if len(self._prompts) > 1000:
                self._prompts.clear()
            self._prompts[lesson.said] = chat(self._processor, self._task.prompt, said=lesson.said)
        return self._prompts[lesson.said]

    def _judged(self, lesson: Lesson, completions: Sequence[Completion]) -> list[Drawn]:
        """A group with its rewards."""
        task = self._task
        opened = begun(self._prompt(lesson))
        judged = [
            judge(
                done.text,
                task.grammar,
                done.finish_reason,
                len(done.token_ids),
                lesson.labels,
                task.labels,
                task.several,
                opened,
                task.rule,
            )
            for done in completions
        ]
        success = sum(map(accuracy, judged)) / len(judged)
        made = []
        for done, each in zip(completions, judged, strict=True):
            rewards = task.rewards.of(each)
            made.append(
                Drawn(
                    lesson.video_id,
                    done.index,
                    done.token_ids,
                    done.token_logprobs or (),
                    done.text,
                    done.finish_reason,
                    each.parsed.labels,
                    consistency(each) > 0,
                    rewards,
                    task.rewards.total(rewards),
                    success,
                )
            )
        return made

    def _teaches(self, group: Sequence[Drawn]) -> bool:
        """Whether anything can be learned from a group."""
        if not any(self._usable(drawn) for drawn in group):
            return False
        return self._spec.objective != "clipped" or not self._collapsed(group)

    def _collapsed(self, group: Sequence[Drawn]) -> bool:
        """Whether all advantages of a group are zero."""
        return not any(any(gain) for gain in self._gains(group, group_advantages))

    def _gains(
        self, group: Sequence[Drawn], of_group: Callable[[Sequence[float]], list[float]]
    ) -> list[tuple[float, float]]:
        """How much what each rollout of a group sees is to gain, and what it makes of it."""
        return gains(self._spec.credit, self._task.rewards, [drawn.rewards for drawn in group], of_group)

    def _counts(self, drawn: Drawn) -> bool:
        """Whether a rollout is learned from: it is usable, and what it is to be held against is known."""
        return self._usable(drawn) and (self._spec.updates == 1 or drawn.old is not None)

    def _usable(self, drawn: Drawn) -> bool:
        """Whether a rollout ended by itself and holds no token that stands for pictures."""
        return drawn.finish_reason == "stop" and not self._strays & set(drawn.token_ids)

    def _micros(self, learned: Sequence[Sequence[Drawn]]) -> list[Micro]:
        """This process's part of some groups, whole ones, in pieces; a video that cannot be decoded any more is left out."""
        spec = self._spec
        of_group = partial(softmax_weights, tau=spec.tau) if spec.objective == "softmax" else group_advantages
        found: list[tuple[Drawn, tuple[float, float], float]] = []  # with its share of its video
        # A piece is as wide as the longest sequence in it.
        for group in parallel.share(sorted(learned, key=_longest)):
            kept = [self._counts(drawn) for drawn in group]
            rows = zip(group, self._gains(group, of_group), kept, strict=True)
            found += [(drawn, gain, 1 / sum(kept)) for drawn, gain, counts in rows if counts]
        shown = self._shown([drawn for drawn, *_ in found])
        found = [item for item in found if item[0].video_id in shown]
        made = []
        for at in range(0, len(found), spec.micro_batch):
            piece = found[at : at + spec.micro_batch]
            batch = self._batch([drawn for drawn, *_ in piece], shown)
            old = None if spec.updates == 1 else batch.align([drawn.old or () for drawn, *_ in piece])
            weight = {
                "softmax": sum(share for *_, share in piece),
                "clipped": float(batch.keep.sum()),
                "grpo": float(len(batch)),
            }[spec.objective]
            own = batch.align([by_token(self._tokenizer, one.token_ids, one.text, gain) for one, gain, _ in piece])
            made.append(Micro(batch, own, batch.align([drawn.logprobs for drawn, *_ in piece]), old, weight))
        return made

    def _shown(self, drawn: Sequence[Drawn]) -> dict[str, tuple[Lesson, Clip]]:
        """Lesson and clip of the videos of these rollouts; one that cannot be decoded any more is left out."""
        lessons = [self._lessons[self._place[video_id]] for video_id in dict.fromkeys(one.video_id for one in drawn)]
        pairs = zip(lessons, self._clips(lessons), strict=True)
        return {lesson.video_id: (lesson, clip) for lesson, clip in pairs if isinstance(clip, Clip)}

    def _batch(self, drawn: Sequence[Drawn], shown: dict[str, tuple[Lesson, Clip]]) -> Batch:
        samples = [Sample(self._prompt(shown[one.video_id][0]), shown[one.video_id][1], one.token_ids) for one in drawn]
        return collate(self._processor, samples)

    def _with_old(self, drawn: Sequence[Drawn]) -> list[Drawn]:
        """The same with the trainer's own log-probabilities: later updates of the round are held against them."""
        usable: dict[str, list[int]] = {}
        for place, one in enumerate(drawn):
            if self._usable(one):
                usable.setdefault(one.video_id, []).append(place)
        mine = [place for own in parallel.share(list(usable.values())) for place in own]
        shown = self._shown([drawn[place] for place in mine])
        there = [place for place in mine if drawn[place].video_id in shown]
        size = self._spec.micro_batch
        pieces = [
            self._batch([drawn[place] for place in there[at : at + size]], shown) for at in range(0, len(there), size)
        ]
        values: list[tuple[float, ...]] = []
        for batch, counts in parallel.padded(pieces, self._model):
            with torch.no_grad():
                made = completion_logprobs(self._model, batch).cpu()
            values += [tuple(own[keep].tolist()) for own, keep in zip(made, batch.keep, strict=True) if counts]
        old = dict(parallel.gathered(list(zip(there, values, strict=True))))
        return [replace(one, old=old.get(place)) for place, one in enumerate(drawn)]

    def _note(self, drawn: Sequence[Drawn]) -> None:
        """Keep what came of a round for the draws after it."""
        for group in groups(drawn):
            self._past.note(self._place[group[0].video_id], group[0].success)


def _longest(group: Sequence[Drawn]) -> int:
    return max(len(drawn.token_ids) for drawn in group)
