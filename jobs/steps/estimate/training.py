"""Jobs that train: align and refine."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from conf.sections import Settings
from jobs.runtime.errors import UsageError
from jobs.runtime.run import Run
from jobs.steps import recipes, training
from jobs.steps.estimate import counts, fitting
from jobs.steps.estimate.prompt import CHARACTERS_PER_TOKEN, Prompt, prompt_of, shown, with_frames
from jobs.steps.estimate.told import HOUR, Estimate, does_not_fit, room, shape_in, tell
from lake.storage import StoreError
from models.footprint import serving
from models.footprint import training as cost
from models.footprint.devices import GIB, Device, device_of
from models.footprint.memory import Memory, Parts
from models.footprint.serving import Draw, Serving
from models.footprint.shape import Shape
from models.footprint.training import Among, Piece

SECTIONS = {
    "align": ("align", "training", "frames", "rollout"),
    "refine": ("refine", "training", "frames", "rollout", "engine"),
}


@dataclass(frozen=True)
class _Found:
    """What the lake says, None where it does not: how many lessons; tokens of the longest text to learn and of one on
    average, where the model does not write its own; rate and length as of counts.measured."""

    lessons: int | None = None
    longest: int | None = None
    mean: float | None = None
    rate: float | None = None
    length: float | None = None


@dataclass(frozen=True)
class _Case:
    """What a footprint follows from beside the settings. said: the prompt, with frames of any settings; longest: tokens of
    a text to learn, None where the model writes its own."""

    stage: str
    shape: Shape
    folder: str
    device: str
    said: Prompt
    longest: int | None

    def prompt(self, settings: Settings) -> Prompt:
        return with_frames(self.said, self.shape, shown(self.folder, self.shape, settings.frames.model_dump()))

    def completion(self, settings: Settings) -> int:
        return self.longest or settings.rollout.max_tokens

    def on(self, settings: Settings) -> Device:
        return device_of(self.device, settings.training.processes)

    def engine(self, settings: Settings) -> Serving:
        engine, own = settings.engine, settings.refine.kv_cache_mb or settings.engine.kv_cache_mb
        cache = own and own << 20
        return Serving(engine.dtype, cache, engine.max_model_len, engine.max_num_seqs, engine.gpus)

    def engine_parts(self, settings: Settings) -> Parts:
        refines = self.stage == "refine"
        return serving.parts(self.shape, self.engine(settings), self.on(settings)) if refines else {}

    def memory(self, settings: Settings) -> Memory:
        """On one device; every process has one."""
        prompt, chosen = self.prompt(settings), getattr(settings, self.stage)
        size = min(chosen.micro_batch, sequences(settings, self.stage))
        piece = Piece(size, prompt.tokens, self.completion(settings), prompt.patches)
        among = Among(settings.training.processes, settings.training.parallel == "fsdp")
        reference = self.stage == "refine" and chosen.objective == "grpo"
        rank = chosen.lora.rank if chosen.lora else None
        return cost.memory(self.shape, piece, self.on(settings), among, self.engine_parts(settings), reference, rank)

    def fits(self, settings: Settings) -> bool:
        """All of it, and into the engine's cache a sequence of its full length."""
        longest = serving.longest(self.shape, self.engine(settings))
        cache = self.engine_parts(settings).get(serving.CACHE, longest)
        return self.memory(settings).peak <= self.on(settings).usable and cache >= longest


def sequences(settings: Settings, stage: str) -> int:
    """That one process learns from in one optimiser step, at most."""
    if stage == "align":
        return ceil(settings.align.batch / settings.training.processes)
    chosen = settings.refine
    return ceil(ceil(chosen.groups / chosen.updates) * chosen.rollouts / settings.training.processes)


def estimate(run: Run, arguments: argparse.Namespace, stage: str, start: str, lessons: Callable[[], DataFrame]) -> None:
    """Tell what a stage of training would do. start: the model to begin with, by folder or name; lessons: looks into the
    lake; its rows have the column text.

    Raises UsageError where a process does not fit onto its device, naming what to change.
    """
    settings = run.settings
    folder = start_folder(run, start)
    shape = shape_in(folder)
    found, why = counts.counted(run, lambda: _count(run, stage, folder, lessons()))
    seen = found or _Found()
    spec, texts = shown(folder, shape, settings.frames.model_dump()), list(settings.rollout.texts.items())
    prompt = prompt_of(folder, shape, spec, recipes.prompt_of(settings), texts)
    case = _Case(stage, shape, folder, arguments.device, prompt, seen.longest)
    length = seen.mean or seen.length or float(case.completion(settings))
    memory, device = case.memory(settings), case.on(settings)
    fits = case.fits(settings)
    told = Estimate(
        SECTIONS[stage],
        folder,
        shape,
        prompt,
        device,
        settings.training.processes,
        why,
        {"lessons": seen.lessons},
        _work(settings, stage, shape, seen.lessons),
        _tokens(case, settings, length),
        memory,
        fits,
        _time(case, settings, length, seen.rate),
        _mistakes(case, settings, memory, fits),
    )
    tell(run, arguments, told)


def _mistakes(case: _Case, settings: Settings, memory: Memory, fits: bool) -> list[str]:
    engine = case.engine(settings) if case.stage == "refine" else None
    found = room(case.prompt(settings).tokens, settings.rollout.max_tokens, engine.length) if engine else []
    if fits:
        return found
    ways = fitting.that_fit(settings, _levers(case, settings), case.fits)
    return [*found, does_not_fit(case.stage, case.shape, engine, case.on(settings), memory, ways)]


def start_folder(run: Run, name: str) -> str:
    """The folder of the model to begin with; of a lake that cannot be asked it is none of its registered ones."""
    try:
        return str(training.model_folder(run, "--start", name))
    except StoreError as error:
        if Path(name).is_dir():
            return name
        raise UsageError(
            f"--start {name}: expected a folder, for the lake cannot be asked for a model of that name: {error}"
        ) from None


def _count(run: Run, stage: str, folder: str, lessons: DataFrame) -> _Found:
    length = F.length("text")
    row = lessons.agg(
        F.count("*").alias("rows"), F.max(length).alias("longest"), F.avg(length).alias("mean")
    ).collect()[0]
    if stage == "align":
        longest, mean = (value and value / CHARACTERS_PER_TOKEN + 1 for value in (row["longest"], row["mean"]))
        return _Found(row["rows"], longest and ceil(longest), mean)
    model = run.settings.model.model_copy(update={"path": folder, "adapter": None})
    try:
        recipe = recipes.of_settings(run.settings.model_copy(update={"model": model}))
    except UsageError:  # a folder without weights has no recipe, and no wave of it can have been
        return _Found(row["rows"])
    rate, drawn = counts.measured(run, recipe)
    return _Found(row["rows"], rate=rate, length=drawn)


def _work(settings: Settings, stage: str, shape: Shape, lessons: int | None) -> dict[str, Any]:
    """What is done in all; a checkpoint holds what is trained and its moments, whole."""
    lora = getattr(settings, stage).lora
    trained = shape.adapters(lora.rank)[0] if lora else shape.parameters
    beside = {"checkpoint_gib": 3 * 4 * trained / GIB}
    if stage == "align":
        chosen = settings.align
        taught = chosen.steps * chosen.batch
        return {"steps": chosen.steps, "examples": taught, "epochs": taught / lessons if lessons else None, **beside}
    refine = settings.refine
    rounds = ceil(refine.steps / refine.updates)
    videos = rounds * refine.groups
    return {
        "steps": refine.steps,
        "rounds": rounds,
        "videos_drawn": videos,
        "epochs": videos / lessons if lessons else None,
        "rollouts": videos * refine.rollouts,
        "rollouts_with_every_refill": videos * refine.rollouts * (1 + _refills(settings)),
        **beside,
    }


def _tokens(case: _Case, settings: Settings, length: float) -> dict[str, float]:
    """length: of a completion on average, as far as it is known."""
    stage, most = case.stage, case.completion(settings)
    learned = sequences(settings, stage) * settings.training.processes * getattr(settings, stage).steps
    told: dict[str, float] = {"completion_at_most": most, "completion": length}
    if stage == "refine":
        drawn = _work(settings, stage, case.shape, None)["rollouts_with_every_refill"]
        told["generated_at_most"] = drawn * settings.rollout.max_tokens
    return told | {
        "learned_at_most": learned * most,
        "passed_in_training": learned * (case.prompt(settings).tokens + length),
    }


def _refills(settings: Settings) -> int:
    """How often at most every video of a round is replaced."""
    return settings.refine.refills if settings.refine.objective == "clipped" else 0


def _time(case: _Case, settings: Settings, length: float, rate: float | None) -> dict[str, Any]:
    """Hours of all devices together and of each. rate: rollouts a second that the lake's engines were seen to draw."""
    stage, processes, device = case.stage, settings.training.processes, case.on(settings)
    prompt = case.prompt(settings)
    steps, each = getattr(settings, stage).steps, sequences(settings, stage)
    passes = float(cost.passes(device))
    if stage == "refine":  # once more for the log-probabilities of the round, once more by the reference
        passes += (settings.refine.updates > 1) + (settings.refine.objective == "grpo")
    one = Piece(1, prompt.tokens, ceil(length), prompt.patches)
    spent = {"training": steps * each * cost.seconds(case.shape, one, device, passes)}
    by = {"training": "arithmetic"}
    if stage == "refine":
        chosen, engine = settings.refine, case.engine(settings)
        rounds, videos = ceil(chosen.steps / chosen.updates), ceil(chosen.groups / processes)
        draw = Draw(videos, chosen.rollouts, prompt.tokens, length, prompt.patches)
        seen = rate and videos * chosen.rollouts / (rate / settings.engine.per_cluster)
        spent["drawing"] = rounds * (seen or sum(serving.seconds(case.shape, engine, device, draw)))
        by["drawing"] = "the waves measured last" if rate else "arithmetic"
    hours = sum(spent.values()) / HOUR
    told: dict[str, Any] = {
        "by": by,
        "device_hours_by_part": {name: seconds * processes / HOUR for name, seconds in spent.items()},
        "device_hours": hours * processes,
        "hours": hours,
    }
    if stage == "refine" and _refills(settings):
        more = spent["drawing"] * _refills(settings) * processes / HOUR
        told["device_hours_with_every_refill"] = hours * processes + more
    return told


def _levers(case: _Case, settings: Settings) -> list[list[fitting.Change]]:
    cell = case.shape.cell
    levers = [fitting.smaller_pieces(case.stage, settings)]
    if case.stage == "refine":
        now, least = case.engine_parts(settings)[serving.CACHE], serving.longest(case.shape, case.engine(settings))
        levers.append(fitting.other_cache("refine.kv_cache_mb", now, least))
    levers.append(fitting.more_processes(settings))
    if case.longest is None:
        levers.append(fitting.halves("rollout.max_tokens", settings.rollout.max_tokens, 64))
    return [*levers, fitting.halves("frames.max_pixels", settings.frames.max_pixels, 16 * cell**2)]
