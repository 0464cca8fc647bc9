"""What can be set: every section of the settings with its keys, types, bounds and meaning. settings.py reads them."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

CONF = Path(__file__).parent
SLUG = r"^[a-z0-9][a-z0-9_-]*$"
Slug = Annotated[str, Field(pattern=SLUG)]


def _label(text: str) -> str:
    """Letters and digits of any script, lower case where there is one; signs would be tags, lists or quotes in an answer."""
    text = unicodedata.normalize("NFC", text)  # as answers and label files are read
    beside = "-_\u200c\u200d"  # joiners are spelling
    kinds = "".join(unicodedata.category(sign)[0] for sign in text if sign not in beside)
    if not re.fullmatch("[LN][LMN]*", kinds) or text[0] in "-_" or text != text.lower():
        raise PydanticCustomError("label", "expected a label of lower-case letters and digits of any script, - and _")
    return text


Label = Annotated[str, AfterValidator(_label)]
Stage = Literal["align", "refine", "calibrate", "dev", "test"]
NONE = "none"  # in a labels file of independent labels: that none of them applies


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Lake(Section):
    root: str = Field(description="URI of the folder that holds tables, staging and registry")


class Spark(Section):
    properties: str | None = Field(description="file of Spark properties, relative to the folder conf/")
    jars_dir: str | None = Field(description="folder of Delta's jars; null: ask Maven")


class Model(Section):
    path: str = Field(
        description="folder of the reasoning model, Hugging Face layout, quantised or not; or the name or id of a "
        "registered one: aligned, refined"
    )
    adapter: str | None = Field(description="folder of a LoRA adapter for it, peft's layout")

    @field_validator("path")
    @classmethod
    def _of_the_project(cls, path: str) -> str:
        """Commands run in any folder; the model that comes with the project is in this one."""
        own = CONF.parent / path
        return str(own) if not Path(path).exists() and own.is_dir() else path


class Frames(Section):
    count: int = Field(ge=1, le=4096, description="most frames of a video")
    max_pixels: int = Field(ge=1, description="width x height of one frame as the model sees it, at most")
    fps: float = Field(gt=0, description="most frames a second: a short video has fewer than count")
    fit: Literal["aspect", "square"] = Field(description="each video in its own shape, or all in a square with black")
    sampling: Literal["uniform", "scene"] = Field(description="evenly in time, or more where the picture changes")


class Decode(Section):
    """Bounds on every decode; a file beyond them is refused with a reason."""

    workers: int = Field(ge=1, le=64, description="child processes per Spark task")
    timeout_seconds: float = Field(gt=0)
    memory_mb: int = Field(ge=128, description="of a child, beside what it begins with")
    max_mb: int = Field(ge=1, description="size of a file")
    max_pixels: int = Field(ge=1, description="width x height")
    max_seconds: float = Field(gt=0, le=86400, description="length of a video")
    max_frames: int = Field(ge=1, description="frames decoded per video")
    max_damage: float = Field(ge=0, le=1, description="share of its frames that may be missing or broken")
    probe_frames: int = Field(
        ge=1, description="frames decoded when a video comes, to know how many of them are broken"
    )


class Engine(Section):
    kind: str = Field(
        pattern=r"^(vllm|transformers|[\w.]+:\w+)$",
        description="vllm, transformers, or module:Class of another engine that keeps the same promise",
    )
    dtype: Literal["float32", "bfloat16", "float16"]
    max_model_len: int = Field(ge=64, description="tokens, video included")
    max_num_seqs: int = Field(ge=1, description="sequences decoded together")
    kv_cache_mb: int | None = Field(ge=16, description="null: the engine's own default")
    gpus: int = Field(ge=1, description="GPUs that one engine holds together (tensor parallel), those of its executor")
    per_cluster: int = Field(ge=1, description="engines that run side by side: one task each")
    stall_seconds: float = Field(gt=0, description="silence after which an engine is given up and its task tried again")


class Rollout(Section):
    n: int = Field(ge=1, le=1024, description="rollouts per video (K)")
    temperature: float = Field(ge=0)
    top_p: float = Field(gt=0, le=1)
    max_tokens: int = Field(ge=1)
    stop: tuple[str, ...]
    grammar: Literal["think_answer", "observation", "thinker"]
    texts: dict[Slug, Annotated[int, Field(ge=1, le=100_000)]] = Field(
        description="text beside a video that enters the prompt: field -> most characters, in this order"
    )
    seed: int = Field(ge=0, lt=2**30)
    salt: str


class Waves(Section):
    seconds: float = Field(gt=0, description="aim for one wave")
    first_rate: float = Field(gt=0, description="rollouts per second assumed until a wave was measured")
    max_attempts: int = Field(ge=1, description="tries of a rollout that failed for a passing reason")
    max_refused: float = Field(
        ge=0, le=1, description="a wave is held where surely a larger share of its rows breaks the contract"
    )
    min_rows: int = Field(
        ge=1,
        description="videos below which a wave and the small ones before it have one rate (schemas/rates.py)",
    )
    lease_seconds: float = Field(gt=0, description="silence after which another host's run counts as dead")


class LabelFile(Section):
    """Which column of a labels file means what, and what its values are called here.

    Of independent labels a cell may list several, separated by a comma, a semicolon or a bar; `none` says that no label
    applies. An empty cell says nothing: its row is refused.
    """

    id: str = Field(description="file name or external id")
    label: str
    split: str | None = Field(description="column with the stage; null or absent: see --split")
    values: dict[str, Label] = Field(description="value in the file -> label slug; slugs map to themselves")
    splits: dict[str, Stage] = Field(description="value in the file -> stage; stages map to themselves")
    facets: dict[str, Slug] = Field(
        description="column -> facet by which figures are told apart (kind, camera, ...); several between , ; or |, but one "
        "in those that evaluate.cluster and evaluate.observation name"
    )
    folders: tuple[Literal["split", "label", "-"], ...] = Field(
        description="what the folders of --source name, the one right above a file last; []: nothing, labels come by file"
    )


class TextFile(Section):
    """Which column of a file with texts means what."""

    id: str = Field(description="file name or external id")
    fields: dict[str, Slug] = Field(
        description="column -> field (title, transcript, ...); {}: every column under its name"
    )


class Ingest(Section):
    source: Slug = Field(description="name of where files come from; part of external ids")
    extensions: tuple[str, ...]
    labels: LabelFile
    texts: TextFile


class Training(Section):
    """What align and refine share: how they run, not what comes out."""

    reader: Literal["arrow", "petastorm"] = Field(
        description="of the lessons: a mapped file, or petastorm over a Parquet dataset, which has to be installed; the "
        "same rows in the same order"
    )
    processes: int = Field(ge=1, description="that train one model together, each with a share of the batch")
    parallel: Literal["ddp", "fsdp"] = Field(description="each has the whole model, or a part of every layer")
    threads: int | None = Field(ge=1, description="of each process; null: the host's cores, shared out")
    checkpoint_every: int = Field(ge=1, description="steps")
    cache_mb: int = Field(ge=1, description="decoded frames kept on disk while training")


class Lora(Section):
    """Low-rank adapters on the language model's linear maps, trained in place of all weights."""

    rank: int = Field(ge=1)
    alpha: int = Field(ge=1, description="weight of an adapter: alpha / rank")


class Learning(Section):
    """What every stage of training has."""

    steps: int = Field(ge=1, description="optimiser steps")
    micro_batch: int = Field(ge=1, description="traces (align) or rollouts (refine) that fit into memory at once")
    lora: Lora | None = Field(description="null: all weights are trained")
    learning_rate: float = Field(gt=0)
    warmup: int = Field(ge=0, description="steps")


class Align(Learning):
    batch: int = Field(ge=1, description="traces per step")


class Refine(Learning):
    """Reinforcement learning; models/training/refinement.py and objectives.py say what the objectives are.

    Rollouts are drawn at temperature 1 from the whole distribution, whatever `rollout` says: gradients are of that one.
    """

    objective: Literal["softmax", "clipped", "grpo"]
    credit: Literal["trace", "segment"] = Field(
        description="each reward teaches all tokens, or those that it is about: what is seen, what is made of it"
    )
    groups: int = Field(ge=1, description="videos of a round")
    rollouts: int = Field(ge=2, le=1024, description="rollouts per video (K)")
    updates: int = Field(ge=1, description="optimiser steps of a round, each over its own part of the videos")
    refills: int = Field(ge=0, description="times that videos which teach nothing are replaced in a round; of clipped")
    kv_cache_mb: int | None = Field(
        ge=16, description="of the engine that draws, which has a trainer beside it; null: engine.kv_cache_mb"
    )
    tau: float = Field(gt=0, description="temperature of the rewards' softmax; of softmax")
    clip_low: float = Field(gt=0, lt=1, description="how far below 1 a ratio counts; of clipped and, both ways, grpo")
    clip_high: float = Field(gt=0, description="how far above 1 a ratio counts; of clipped")
    importance_cap: float = Field(ge=1, description="most weight of a token that the engine held for rarer; of clipped")
    beta: float = Field(ge=0, description="weight of the distance to the model it began with; of grpo")
    rewards: dict[str, float] = Field(
        min_length=1,
        description="accuracy, format, consistency, sound, evidence, length or module:function -> weight",
    )
    length: tuple[int, int] = Field(description="least and most tokens of a completion; of the reward length")


class Vlm(Learning):
    """A model that watches the video beside each trace of it; learns from all folds but the first, which judges it."""

    init: str = Field(description="model to begin with: folder, or name or id of a registered one")
    batch: int = Field(ge=1, description="traces per step")


class Calibrate(Section):
    kind: Literal["linear", "adaptive", "text", "vote", "vlm", "both"] = Field(
        description="what to try; the vote is always there to be beaten"
    )
    hashed_words: int = Field(ge=0, le=65536, description="buckets for the words of the traces")
    l2: float = Field(ge=0)
    folds: int = Field(
        ge=2, le=100, description="parts of the split calibrate; each is judged by what the others teach"
    )
    vlm: Vlm


class EffortStep(Section):
    n: int = Field(ge=1, le=1024, description="rollouts of this step's recipe, earlier steps' of the same included")
    frames: int | None = Field(default=None, ge=1, le=4096, description="in place of frames.count: another recipe")


class Effort(Section):
    """Few rollouts first, more where they do not settle it: calibrate.kind: adaptive. See models/calibration/effort.py."""

    steps: tuple[EffortStep, ...] = Field(description="in order; none: rollout.n of every video")
    agreement: float = Field(
        ge=0, le=1, description="share of the rollouts that has to agree before a video needs no more"
    )


class Decide(Section):
    """What becomes of probabilities, see steps/deciding.py. All but threshold are about labels that exclude each other."""

    by: Literal["threshold", "precision", "cost"] = Field(
        description="the most probable label where it is probable enough, or where labels like it are right often enough; "
        "the label that costs least"
    )
    threshold: float = Field(ge=0, le=1, description="top probability below which the rule abstains; of threshold")
    precision: float = Field(
        gt=0, lt=1, description="share of right ones among those that a label is given to, at least; of precision"
    )
    costs: dict[Label, dict[Label, Annotated[float, Field(ge=0)]]] = Field(
        description="right label -> label given -> cost; what is not named costs 1; of cost"
    )
    review: float = Field(ge=0, description="cost of a person's look, beyond which the rule abstains; of cost")
    sets: Literal["mass", "lac", "aps"] = Field(
        description="prediction sets: a mass of probability, or conformal, see models/calibration/conformal.py"
    )
    coverage: float = Field(gt=0, le=1, description="of a prediction set")
    per_label: bool = Field(description="cover each label as often as that; of lac and aps")


class Evaluate(Section):
    """Facts of videos (ingest.labels.facets) that an evaluation looks at."""

    slices: tuple[Slug, ...] = Field(description="facts by whose values figures are told apart")
    cluster: Slug | None = Field(
        description="what videos share that are no independent evidence; null: each is its own"
    )
    observation: Slug | None = Field(description="what is to be seen in a video, as a right observation says it")


class Maintain(Section):
    target_file_mb: int = Field(ge=1, description="size that small files of one folder are put together to")
    retention_hours: float = Field(ge=0, description="how long a file that was replaced stays, for those who read it")


class Task(Section):
    """The closed set of labels and what each one means."""

    task: Slug
    mode: Literal["exclusive", "independent"] = Field(
        default="exclusive", description="a video has exactly one label, or each applies or not on its own"
    )
    prompt: str | None = Field(default=None, description="text beside the video; null: the default template")
    review: str | None = Field(
        default=None,
        description="what a calibrator that watches is asked, with {codes} or {choices}; null: the default",
    )
    rule: Annotated[str, Field(pattern=r"^[\w.]+:\w+$")] | None = Field(
        default=None,
        description="module:function, from what a trace observes or thinks to the label that it argues for",
    )
    labels: dict[Label, str] = Field(min_length=1, description="slug -> policy text, in order")

    @field_validator("labels")
    @classmethod
    def _of_the_mode(cls, labels: dict[str, str], found: ValidationInfo) -> dict[str, str]:
        independent = found.data.get("mode") == "independent"
        alike: dict[str, list[str]] = {}
        for label in labels:
            alike.setdefault(label.casefold(), []).append(label)
        if same := next((group for group in alike.values() if len(group) > 1), None):
            raise PydanticCustomError("labels", f"expected labels that differ in any case, found {' and '.join(same)}")
        if not independent and len(labels) < 2:
            raise PydanticCustomError(
                "labels", "expected 2 labels or more, or `mode: independent`, in which one label applies or not"
            )
        if independent and NONE in labels:
            raise PydanticCustomError(
                "labels", "expected another slug than none, which in a labels file says that no label applies"
            )
        return labels


class Settings(Section):
    task: Slug = Field(description="name of the task, or the path of its file of labels, from the site's folder")
    lake: Lake
    spark: Spark
    model: Model
    frames: Frames
    decode: Decode
    engine: Engine
    rollout: Rollout
    waves: Waves
    ingest: Ingest
    training: Training
    align: Align
    refine: Refine
    calibrate: Calibrate
    effort: Effort
    decide: Decide
    evaluate: Evaluate
    maintain: Maintain
    labels: Task = Field(description="read from labels/<task>.yaml beside the site's file, or in conf/")
