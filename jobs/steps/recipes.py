"""From settings to a recipe (identity) and from a recipe to a plan that workers can run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from conf.settings import Settings
from jobs.runtime.errors import UsageError
from lake import storage
from models import identity
from models.engines.promise import EngineSpec, Sampling
from models.engines.rollouts import Plan
from models.language import prompts
from models.video.cell import cell_of
from models.video.frames import FrameSpec, Limits
from models.video.pool import DecodeSettings
from udfs.reading import sample_video


@dataclass(frozen=True)
class Recipe:
    """A recipe, its id, and the folder in which this site keeps the model that it names by digest."""

    id: str
    json: dict[str, Any]
    model_path: str


def of_settings(settings: Settings) -> Recipe:
    """The recipe that these settings describe. Raises UsageError if the model folder or the prompt will not do."""
    task, rollout = settings.labels, settings.rollout
    try:
        text = prompts.user_text(task.prompt or prompts.DEFAULT_TEMPLATE, task.labels, rollout.grammar)
    except ValueError as error:
        raise UsageError(f"labels/{task.task}.yaml: {error}") from None
    value = identity.recipe(
        origin="model",
        model=model_digest(settings.model.path),
        prompt=text,
        labels=task.labels,
        grammar=rollout.grammar,
        frames=_said(settings.frames.model_dump()),
        sampling={
            "temperature": rollout.temperature,
            "top_p": rollout.top_p,
            "max_tokens": rollout.max_tokens,
            "stop": list(rollout.stop),
        },
        dtype=settings.engine.dtype,
        seed=rollout.seed,
        salt=rollout.salt,
    )
    frame_spec(value["frames"], settings.model.path)
    return Recipe(identity.digest(value), value, storage.absolute(settings.model.path))


def _said(frames: dict[str, Any]) -> dict[str, Any]:
    """Without what came later and is at its default: recipes that have it in no word keep their ids."""
    later = {"fit": FrameSpec.fit, "sampling": FrameSpec.sampling}
    return {name: value for name, value in frames.items() if name not in later or value != later[name]}


def frame_spec(frames: dict[str, Any], folder: str) -> FrameSpec:
    """What the model in a folder is shown, by the settings or a recipe's JSON. Raises UsageError if they do not fit it."""
    try:
        return FrameSpec(**frames, cell=cell_of(folder))
    except TypeError:
        raise UsageError(
            f"frames: expected count, max_pixels, fps and perhaps fit and sampling, found {', '.join(frames)}: a recipe of "
            "an earlier version; roll out, calibrate and promote anew"
        ) from None
    except ValueError as error:
        raise UsageError(f"frames: {error}") from None


def model_digest(folder: str) -> str:
    """Digest of a model folder. Raises UsageError if there is none."""
    try:
        return identity.model_digest(folder)
    except FileNotFoundError as error:
        raise UsageError(f"model.path: {error}; expected a folder in Hugging Face layout") from None


def greedy(recipe: Recipe) -> Recipe:
    """The same recipe with the most probable token at every step: one rollout says all."""
    value = recipe.json | {"sampling": recipe.json["sampling"] | {"temperature": 0.0}}
    return Recipe(identity.digest(value), value, recipe.model_path)


def check_model(recipe: Recipe) -> None:
    """Raises UsageError if the model folder no longer holds what the recipe names."""
    found = model_digest(recipe.model_path)
    if found != recipe.json["model"]:
        raise UsageError(
            f"{recipe.model_path}: expected the model {recipe.json['model']} of recipe {recipe.id}, found {found}; "
            "put the folder back, or roll out, calibrate and promote with the new model"
        )


def limits(settings: Settings) -> Limits:
    decode = settings.decode
    return Limits(
        max_bytes=decode.max_mb << 20,
        max_pixels=decode.max_pixels,
        max_seconds=decode.max_seconds,
        max_frames=decode.max_frames,
    )


def decoding(settings: Settings) -> DecodeSettings:
    decode = settings.decode
    return DecodeSettings(decode.workers, decode.timeout_seconds, decode.memory_mb << 20)


def plan(recipe: Recipe, settings: Settings) -> Plan:
    """What a worker needs: identity from the recipe, everything that only costs time or memory from the settings."""
    engine, value = settings.engine, recipe.json
    return Plan(
        engine=EngineSpec(
            kind=engine.kind,
            model=recipe.model_path,
            digest=value["model"],
            dtype=value["dtype"],
            max_model_len=engine.max_model_len,
            max_num_seqs=engine.max_num_seqs,
            kv_cache_bytes=engine.kv_cache_mb and engine.kv_cache_mb << 20,
        ),
        sampling=Sampling(**value["sampling"] | {"stop": tuple(value["sampling"]["stop"])}),
        frames=frame_spec(value["frames"], recipe.model_path),
        user_text=value["prompt"],
        labels=tuple(value["labels"]),
        grammar=value["grammar"],
        decode=sample_video,
        seed_base=value["seed"],
        limits=limits(settings),
        decoding=decoding(settings),
        rows_per_batch=64,
        stall_seconds=engine.stall_seconds,
    )
