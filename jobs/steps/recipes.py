"""From settings to a recipe (identity) and from a recipe to a plan that workers can run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from conf.sections import Settings, Task
from jobs.runtime.errors import UsageError
from lake import storage
from models import identity
from models.engines.config import config_of, quantization_of
from models.engines.folder import TIME_WORDS, check_folder
from models.engines.promise import Adapter, EngineSpec, Sampling
from models.engines.reviews import ReviewPlan
from models.engines.rollouts import Plan
from models.language import prompts
from models.language.codes import yes_no
from models.language.label_scores import Checks, Choice, Scored
from models.language.review import WORDING
from models.language.rule import code_of
from models.video.cell import cell_of
from models.video.container import Limits
from models.video.frames import FrameSpec
from models.video.pool import DecodeSettings
from udfs.reading import sample_video

_ADAPTER = "recipe"  # its name in an engine
_FORMS = 64  # tokens around a trace that is told to a model: what comes before it, conclusion, rationale


@dataclass(frozen=True)
class Recipe:
    """A recipe, its id, and the folders in which this site keeps the model and the adapter that it names by digest.

    is_trial: what comes of it may be as odd as it likes, which is what it is made to see.
    """

    id: str
    json: dict[str, Any]
    model_path: str
    adapter_path: str | None = None
    is_trial: bool = False

    @property
    def reviewed(self) -> str | None:
        """Of a recipe of reviews the id of the recipe whose traces they are about."""
        return self.json.get("reviewed")

    @property
    def imported(self) -> int:
        """How many traces of a video another system wrote; 0 for a recipe of rollouts."""
        return sum(self.json["prompts"].values()) if self.json.get("origin") == "imported" else 0

    @property
    def prompts(self) -> int:
        """How many indices of its traces stand for a prompt each; 0 where all are drawn alike."""
        return self.imported if len(self.json.get("prompts", ())) > 1 else 0

    @property
    def texts(self) -> list[tuple[str, int]]:
        """Which fields of text enter its prompts beside the pictures, in order, and of how many characters at most."""
        return [(field, most) for field, most in self.json.get("texts", {}).get("fields", ())]


def prompt_of(settings: Settings) -> str:
    """The text of the user's turn. Raises UsageError for a template that will not do."""
    task = settings.labels
    template, independent = task.prompt or prompts.DEFAULT_TEMPLATE, task.mode == "independent"
    try:
        return prompts.user_text(template, task.labels, settings.rollout.grammar, independent)
    except ValueError as error:
        raise UsageError(f"task {task.task}: {error}") from None


def check_rule(task: Task) -> None:
    """Raises UsageError for a rule that is not there. It is no part of a recipe, but what comes later needs it."""
    if task.rule:
        try:
            code_of(task.rule)
        except ValueError as error:
            raise UsageError(f"task {task.task}: {error}") from None
        except (OSError, TypeError):
            raise UsageError(
                f"task {task.task}: rule: expected a function in a Python file, whose code can be read; found {task.rule!r}"
            ) from None


def of_settings(settings: Settings) -> Recipe:
    """The recipe that these settings describe. Raises UsageError if the model folder, the prompt or the rule of the task
    will not do."""
    task, rollout, model = settings.labels, settings.rollout, settings.model
    check_rule(task)
    value = identity.recipe(
        model=model_digest(model.path),
        adapter=adapter_digest(model.adapter) if model.adapter else "",
        quantization=_of_folder(quantization_of, model.path),
        checks=_of_folder(_checks, model.path, task.labels) if task.mode == "independent" else None,
        prompt=prompt_of(settings),
        labels=task.labels,
        grammar=rollout.grammar,
        frames=settings.frames.model_dump(),
        sampling={
            "temperature": rollout.temperature,
            "top_p": rollout.top_p,
            "max_tokens": rollout.max_tokens,
            "stop": list(rollout.stop),
        },
        dtype=settings.engine.dtype,
        seed=rollout.seed,
        texts=rollout.texts
        and {
            "before": prompts.CAME_WITH,
            "fields": [[field, most] for field, most in rollout.texts.items()],  # a list: their order is the prompt's
        },
        salt=rollout.salt,
    )
    frame_spec(value["frames"], model.path)
    return Recipe(
        identity.digest(value), value, storage.absolute(model.path), model.adapter and storage.absolute(model.adapter)
    )


def plan_of_settings(settings: Settings) -> list[tuple[Recipe, int]]:
    """The recipes of effort.steps with how many rollouts of each, in order; without steps the one of the settings.

    Raises UsageError as `of_settings`, and for steps that ask for nothing more.
    """
    if not settings.effort.steps:
        return [(of_settings(settings), settings.rollout.n)]
    found: list[tuple[Recipe, int]] = []
    for step in settings.effort.steps:
        frames = settings.frames.model_copy(update={"count": step.frames or settings.frames.count})
        recipe = of_settings(settings.model_copy(update={"frames": frames}))
        if any(before.id == recipe.id and most >= step.n for before, most in found):
            raise UsageError(f"effort.steps: expected each step to ask for more than those before it, found {step}")
        found.append((recipe, step.n))
    return found


def _checks(folder: str, labels: dict[str, str]) -> dict[str, Any]:
    """Codes and questions of independent labels, for a model's tokenizer."""
    from transformers import AutoTokenizer  # takes seconds to import, and few tasks need it

    codes = yes_no(AutoTokenizer.from_pretrained(folder, local_files_only=True))
    questions = {label: prompts.check_question(label, policy, codes) for label, policy in labels.items()}
    return {"codes": list(codes), "questions": questions}


def _of_folder(look: Callable[..., Any], folder: str, *rest: Any) -> Any:
    try:
        return look(folder, *rest)
    except (OSError, ValueError) as error:
        raise UsageError(f"model.path: {error}") from None


def frame_spec(frames: dict[str, Any], folder: str) -> FrameSpec:
    """What the model in a folder is shown, by the settings or a recipe's JSON. Raises UsageError if they do not fit it."""
    try:
        spec = FrameSpec(**frames, cell=cell_of(folder))
        family = config_of(folder).get("model_type")
        if spec.sampling != "uniform" and family not in TIME_WORDS:
            raise ValueError(
                f"sampling: expected uniform, as {family} is told how far apart pictures are and not when each was; found "
                f"{spec.sampling}"
            )
        return spec
    except TypeError:
        raise UsageError(
            f"frames: expected count, max_pixels, fps and perhaps fit and sampling, found {', '.join(frames)}: a recipe of "
            "an earlier version; roll out, calibrate and promote anew"
        ) from None
    except ValueError as error:
        raise UsageError(f"frames: {error}") from None


def model_digest(folder: str) -> str:
    """Digest of a model folder. Raises UsageError if there is none."""
    return _digest("model.path", folder, "Hugging Face layout, or the name or id of a registered model")


def adapter_digest(folder: str) -> str:
    """Digest of a LoRA adapter's folder. Raises UsageError if there is none."""
    return _digest("model.adapter", folder, "peft's layout")


def _digest(setting: str, folder: str, layout: str) -> str:
    try:
        return identity.model_digest(folder)
    except FileNotFoundError as error:
        raise UsageError(f"{setting}: {error}; expected a folder in {layout}") from None


def greedy(recipe: Recipe) -> Recipe:
    """The same recipe with the most probable token at every step: one rollout says all."""
    value = recipe.json | {"sampling": recipe.json["sampling"] | {"temperature": 0.0}}
    return replace(recipe, id=identity.digest(value), json=value)


def blinded(recipe: Recipe) -> dict[str, Recipe]:
    """The recipe on less than the video, by name: what it still gets right needs no more. One frame is the middle one."""
    frames = {"shuffled frames": {"show": "shuffled"}, "one frame": {"count": 1}, "no frames": {"show": "none"}}
    made = {}
    for name, less in frames.items():
        value = recipe.json | {"frames": recipe.json["frames"] | less}
        made[name] = replace(recipe, id=identity.digest(value), json=value, is_trial=True)
    return made


def check_model(recipe: Recipe) -> None:
    """Raises UsageError if the model folder no longer holds what the recipe names, and where reviews would be told traces
    otherwise than it says."""
    if recipe.reviewed and (found := code_of(WORDING)) != (wanted := recipe.json["asks"]["wording"]):
        raise UsageError(
            f"recipe {recipe.id}: expected the code {wanted} of {WORDING}, by which its model was told traces "
            f"while it learned, found {found}: calibrate and promote again, or put it back"
        )
    folders = [(recipe.model_path, "model", model_digest)]
    folders += [(recipe.adapter_path, "adapter", adapter_digest)] if recipe.adapter_path else []
    for folder, part, digest in folders:
        found = digest(folder)
        if found != recipe.json[part]:
            raise UsageError(
                f"{folder}: expected the {part} {recipe.json[part]} of recipe {recipe.id}, found {found}; "
                f"put the folder back, or roll out, calibrate and promote with the new {part}"
            )


def check_served(recipe: Recipe, settings: Settings) -> None:
    """Raises UsageError for what would fail in every worker, before one is started: see engines/folder.py."""
    value = recipe.json
    adapters = [recipe.adapter_path] if recipe.adapter_path else []
    frames, reviews = frame_spec(value["frames"], recipe.model_path), recipe.reviewed is not None
    text, scored = (value["asks"]["text"], None) if reviews else (value["prompt"], _scored(value))
    written = value["longest"] + _FORMS if reviews else value["sampling"]["max_tokens"]
    try:
        asked = check_folder(recipe.model_path, text, scored, frames, adapters)
    except ValueError as error:
        raise UsageError(str(error)) from None
    # Of most scripts a token holds a character or more.
    told = sum(len(f"\n{field}: ") + most for field, most in recipe.texts)
    needed = asked + told + written
    if needed > settings.engine.max_model_len:
        raise UsageError(
            f"engine.max_model_len: expected at least {needed}: up to {asked} tokens of clip, prompt and questions, {told} "
            f"of rollout.texts, {written} of a trace; found {settings.engine.max_model_len}: raise it, "
            "or lower frames.count, frames.max_pixels or the others"
        )


def limits(settings: Settings) -> Limits:
    decode = settings.decode
    return Limits(
        max_bytes=decode.max_mb << 20,
        max_pixels=decode.max_pixels,
        max_seconds=decode.max_seconds,
        max_frames=decode.max_frames,
        max_damage=decode.max_damage,
        probe_frames=decode.probe_frames,
    )


def decoding(settings: Settings) -> DecodeSettings:
    decode = settings.decode
    return DecodeSettings(decode.workers, decode.timeout_seconds, decode.memory_mb << 20)


def engine_of(settings: Settings, model: str, digest: str, kv_cache_mb: int | None = None) -> EngineSpec:
    """The engine of these settings on a model's folder. kv_cache_mb: where it is to have another cache than they say."""
    engine, kv_cache_mb = settings.engine, kv_cache_mb or settings.engine.kv_cache_mb
    return EngineSpec(
        kind=engine.kind,
        model=model,
        digest=digest,
        dtype=engine.dtype,
        max_model_len=engine.max_model_len,
        max_num_seqs=engine.max_num_seqs,
        kv_cache_bytes=kv_cache_mb and kv_cache_mb << 20,
        gpus=engine.gpus,
    )


def plan(recipe: Recipe, settings: Settings) -> Plan:
    """What a worker needs: identity from the recipe, everything that only costs time or memory from the settings."""
    value = recipe.json
    return Plan(
        engine=replace(
            engine_of(settings, recipe.model_path, value["model"]),
            dtype=value["dtype"],
            adapters=(Adapter(_ADAPTER, recipe.adapter_path, value["adapter"]),) if recipe.adapter_path else (),
        ),
        sampling=Sampling(**value["sampling"] | {"stop": tuple(value["sampling"].get("stop", ()))}),
        frames=frame_spec(value["frames"], recipe.model_path),
        user_text=value["prompt"],
        scored=_scored(value),
        adapter=_ADAPTER if recipe.adapter_path else "",
        grammar=value["grammar"],
        seed_base=value["seed"],
        **_costs(settings),
    )


def review_plan(recipe: Recipe, settings: Settings) -> ReviewPlan:
    """The same of a recipe of reviews."""
    value, asks = recipe.json, recipe.json["asks"]
    return ReviewPlan(
        engine=replace(engine_of(settings, recipe.model_path, value["model"]), dtype=value["dtype"]),
        frames=frame_spec(value["frames"], recipe.model_path),
        text=asks["text"],
        before=asks["before"],
        codes=asks["codes"],
        **_costs(settings),
    )


def _costs(settings: Settings) -> dict[str, Any]:
    """What only costs time or memory."""
    return {
        "decode": sample_video,
        "limits": limits(settings),
        "decoding": decoding(settings),
        "rows_per_batch": 64,
        "stall_seconds": settings.engine.stall_seconds,
    }


def _scored(value: dict[str, Any]) -> Scored:
    checks = value.get("checks")
    if checks is None:
        return Choice(tuple(value["labels"]))
    yes, no = checks["codes"]
    return Checks(tuple((label, checks["questions"][label]) for label in value["labels"]), (yes, no))
