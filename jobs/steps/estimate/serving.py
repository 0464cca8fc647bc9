"""Jobs that draw rollouts: rollout and nightly."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from conf.sections import Settings
from jobs.runtime.run import Run
from jobs.steps import recipes
from jobs.steps.estimate import counts, fitting
from jobs.steps.estimate.prompt import Prompt, prompt_of, shown
from jobs.steps.estimate.told import HOUR, Estimate, does_not_fit, room, shape_in, tell
from jobs.steps.recipes import Recipe
from jobs.steps.scope import Scope
from models.footprint import serving
from models.footprint.devices import Device, device_of
from models.footprint.memory import Memory
from models.footprint.serving import Draw, Serving
from models.footprint.shape import Shape

SECTIONS = ("model", "frames", "engine", "rollout")
_MANY = 1000  # videos, for a figure where nobody knows how many there are


@dataclass(frozen=True)
class Asked:
    """What the lake says: under which recipe how many rollouts of which videos; files: new ones at the source."""

    recipe: Recipe
    k: int
    scope: Scope | None
    files: int | None = None


@dataclass(frozen=True)
class _Found:
    """What there is to do: videos and rollouts that are missing, and what may come of new files; rate and length as of
    counts.measured."""

    asked: Asked
    videos: int
    rollouts: int
    coming: int
    rate: float | None
    length: float | None

    @property
    def all_videos(self) -> int:
        return self.videos + self.coming

    @property
    def all_rollouts(self) -> int:
        return self.rollouts + self.coming * self.asked.k

    @property
    def rows(self) -> dict[str, int | None]:
        files = {} if self.asked.files is None else {"files_new_at_most": self.asked.files}
        return {"videos_pending": self.videos, "rollouts_pending": self.rollouts, **files}


@dataclass(frozen=True)
class _Wanted:
    """What is drawn, by a recipe or, where there is no lake to name one, by the settings."""

    folder: str
    frames: dict[str, Any]
    user_text: str
    texts: list[tuple[str, int]]
    dtype: str
    max_tokens: int
    k: int


@dataclass(frozen=True)
class _Case:
    """What a footprint follows from beside the settings; length: tokens of a rollout on average, as far as it is known."""

    wanted: _Wanted
    shape: Shape
    prompt: Prompt
    device: Device
    length: float

    def engine(self, settings: Settings) -> Serving:
        engine = settings.engine
        cache = engine.kv_cache_mb and engine.kv_cache_mb << 20
        return Serving(self.wanted.dtype, cache, engine.max_model_len, engine.max_num_seqs, engine.gpus)

    def memory(self, settings: Settings) -> Memory:
        context = {"context": self.device.context} if self.device.context else {}
        return Memory({"drawing": serving.parts(self.shape, self.engine(settings), self.device) | context})

    def fits(self, settings: Settings) -> bool:
        """All of it, and into the cache a sequence of the full length."""
        held, longest = self.memory(settings), serving.longest(self.shape, self.engine(settings))
        return held.peak <= self.device.usable and held.phases["drawing"][serving.CACHE] >= longest

    def draw(self, videos: int, rollouts: int) -> Draw:
        each = max(1, round(rollouts / max(videos, 1)))
        return Draw(videos, each, self.prompt.tokens, self.length, self.prompt.patches)


def estimate(run: Run, arguments: argparse.Namespace, ask: Callable[[], Asked]) -> None:
    """Tell what a job that draws rollouts would do. ask: looks into the lake; may raise UsageError and RegistryError.

    Raises UsageError where an engine does not fit onto the device, naming what to change.
    """
    settings, engine = run.settings, run.settings.engine
    found, why = counts.counted(run, lambda: _count(run, ask()))
    wanted = _of_recipe(found.asked) if found else _of_settings(settings)
    shape = shape_in(wanted.folder)
    spec = shown(wanted.folder, shape, wanted.frames)
    prompt = prompt_of(wanted.folder, shape, spec, wanted.user_text, wanted.texts)
    length = (found and found.length) or float(wanted.max_tokens)
    case = _Case(wanted, shape, prompt, device_of(arguments.device, engine.per_cluster), length)
    memory, fits = case.memory(settings), case.fits(settings)
    told = Estimate(
        SECTIONS,
        wanted.folder,
        shape,
        prompt,
        case.device,
        engine.per_cluster * engine.gpus,
        why,
        found.rows if found else {"videos_pending": None, "rollouts_pending": None},
        _work(case, settings, memory),
        {
            "prompts": found and found.all_videos * prompt.tokens,
            "generated_at_most": found and found.all_rollouts * wanted.max_tokens,
            "generated_by_one_rollout": length,
        },
        memory,
        fits,
        _time(case, settings, found),
        _mistakes(run.job, case, settings, memory, fits),
    )
    tell(run, arguments, told)


def _count(run: Run, asked: Asked) -> _Found:
    videos, rollouts = counts.pending(run, asked.recipe, asked.k, asked.scope) if asked.scope else (0, 0)
    coming, most = asked.files or 0, run.budget.max_videos  # each may be a video
    coming = coming if most is None else min(coming, most - videos)
    return _Found(asked, videos, rollouts, coming, *counts.measured(run, asked.recipe))


def _of_recipe(asked: Asked) -> _Wanted:
    value, recipe = asked.recipe.json, asked.recipe
    return _Wanted(
        recipe.model_path,
        value["frames"],
        value["prompt"],
        recipe.texts,
        value["dtype"],
        value["sampling"]["max_tokens"],
        asked.k,
    )


def _of_settings(settings: Settings) -> _Wanted:
    rollout = settings.rollout
    return _Wanted(
        settings.model.path,
        settings.frames.model_dump(),
        recipes.prompt_of(settings),
        list(rollout.texts.items()),
        settings.engine.dtype,
        rollout.max_tokens,
        rollout.n,
    )


def _work(case: _Case, settings: Settings, memory: Memory) -> dict[str, Any]:
    cache, k = memory.phases["drawing"][serving.CACHE], case.wanted.k
    return {
        "rollouts_per_video": k,
        "engines": settings.engine.per_cluster,
        "gpus_per_engine": settings.engine.gpus,
        "sequences_at_once": serving.together(case.shape, case.engine(settings), cache, case.draw(1, k)),
    }


def _time(case: _Case, settings: Settings, found: _Found | None) -> dict[str, Any]:
    """Hours of all devices together and of each, and of so many videos where nobody knows how many there are."""
    rate = found and found.rate
    engines, gpus = settings.engine.per_cluster, settings.engine.gpus

    def hours(videos: int, rollouts: int) -> float:
        if rate:
            return rollouts / rate * engines * gpus / HOUR
        parts = serving.seconds(case.shape, case.engine(settings), case.device, case.draw(videos, rollouts))
        return sum(parts) * gpus / HOUR

    spent = hours(found.all_videos, found.all_rollouts) if found else None
    told: dict[str, Any] = {
        "by": {"drawing": "the waves measured last" if rate else "arithmetic"},
        "device_hours_by_part": {"drawing": spent},
    }
    told |= {} if spent is None else {"device_hours": spent, "hours": spent / (engines * gpus)}
    return told | {"device_hours_per_1000_videos": hours(_MANY, _MANY * case.wanted.k)}


def _mistakes(job: str, case: _Case, settings: Settings, memory: Memory, fits: bool) -> list[str]:
    engine = case.engine(settings)
    found = room(case.prompt.tokens, case.wanted.max_tokens, engine.length)
    if fits:
        return found
    needed = case.prompt.tokens + case.wanted.max_tokens
    cache = engine.kv_cache_bytes  # where it is not told, it takes what there is
    levers: list[list[fitting.Change]] = [
        fitting.other_cache("engine.kv_cache_mb", cache, serving.longest(case.shape, engine)) if cache else [],
        [{"engine.max_model_len": needed}] if needed < engine.length else [],
        [{"engine.gpus": number} for number in (2, 4, 8) if number > engine.gpus] if case.device.is_gpu else [],
    ]
    ways = fitting.that_fit(settings, levers, case.fits)
    return [*found, does_not_fit(job, case.shape, engine, case.device, memory, ways)]
