"""What may be done only once, named by its content: model digests, recipe ids, scorer ids, rule ids.

An id is the first 16 hex digits of the SHA-256 of canonical JSON (sorted keys, no spaces). A field added later is
left out while at its default, so that ids given out earlier stay what they are.
"""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from pathlib import Path
from typing import Any

# Files of a model folder that change what the model does. Notes, logs and manifests beside them do not.
# generation_config.json is among them for its end tokens; its defaults for sampling change nothing.
MODEL_FILES = (
    *(
        "*.safetensors",
        "*.safetensors.index.json",
        "config.json",
        "generation_config.json",
        "adapter_config.json",
        "*processor_config.json",
    ),
    *("tokenizer*.json", "vocab.json", "merges.txt", "added_tokens.json", "special_tokens_map.json", "*.model"),
    *("chat_template.json", "*.jinja", "additional_chat_templates/*.jinja"),
)


def canonical(value: Any) -> str:
    """JSON with sorted keys and no spaces; the same for equal values on every machine. Raises ValueError on NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest(value: Any) -> str:
    """16 hex digits that name a JSON-like value."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()[:16]


def model_digest(folder: str) -> str:
    """Names a model folder by its weights, configuration, tokenizer, processor and template.

    Raises FileNotFoundError if the folder is missing or holds no weights.
    """
    if not Path(folder).is_dir():
        raise FileNotFoundError(f"model folder {Path(folder).resolve()}: no such folder")
    found = {path for pattern in MODEL_FILES for path in Path(folder).glob(pattern)}
    files = sorted(path for path in found if path.name[0] != ".")  # a copy that was killed leaves hidden ones
    if not any(path.suffix == ".safetensors" for path in files):
        within = Path(folder) / "model"
        perhaps = f"; perhaps {within}" if within.is_dir() else ""  # where a training leaves its own
        raise FileNotFoundError(f"model folder {folder}: no *.safetensors in it{perhaps}")
    return _files_digest(tuple((str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files))


@lru_cache(maxsize=8)
def _files_digest(stamped: tuple[tuple[str, int, int], ...]) -> str:
    # Size and time are only the cache's key: hashing 15 GB of weights once per process is enough.
    total = hashlib.sha256()
    for name, _, _ in stamped:
        with Path(name).open("rb") as file:
            total.update(f"{Path(name).name}:{hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return total.hexdigest()[:16]


# Of nested parts: what a value of these says is what was done before the field was there.
_NEUTRAL: dict[str, dict[str, Any]] = {
    "frames": {"fit": "aspect", "sampling": "uniform", "show": "all"},
    "sampling": {"top_p": 1.0, "stop": []},
}


def recipe(
    *,
    model: str,
    prompt: str,
    labels: dict[str, str],
    grammar: str,
    frames: dict[str, Any],
    sampling: dict[str, Any],
    dtype: str,
    seed: int,
    adapter: str = "",
    quantization: str = "",
    checks: dict[str, Any] | None = None,
    texts: dict[str, Any] | None = None,
    salt: str = "",
) -> dict[str, Any]:
    """Everything that decides what the model says in a rollout; how many are drawn (K) is not part of it.

    model: digest of the model folder; adapter: of a LoRA adapter's; quantization: method of a quantised folder. labels: slug
    -> policy text, in order; the policies enter as a digest. checks: codes and questions of a task whose labels are
    independent. texts: how per-video text enters the prompt, see `language/prompts.py`. Nested fields at their neutral value
    and parts that are empty are left out.
    """
    value: dict[str, Any] = {
        "origin": "model",
        "model": model,
        "prompt": prompt,
        "labels": list(labels),
        "policy": digest(list(labels.values())),
        "grammar": grammar,
        "frames": _without_neutral("frames", frames),
        "sampling": _without_neutral("sampling", sampling),
        "dtype": dtype,
        "seed": seed,
    }
    rare = {"adapter": adapter, "quantization": quantization, "checks": checks, "texts": texts, "salt": salt}
    return value | {name: part for name, part in rare.items() if part}


def review_recipe(
    *,
    model: str,
    reviewed: str,
    longest: int,
    asks: dict[str, Any],
    labels: dict[str, str],
    frames: dict[str, Any],
    dtype: str,
    texts: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """What a model says of another recipe's traces: a rollout of one token, which depends on no seed.

    model: digest of its folder; reviewed: id of the recipe whose traces these are, of at most `longest` tokens; asks: text,
    before, codes (see language/review.py) and what names the code by which a trace is told. The rest as of `recipe`.
    """
    value: dict[str, Any] = {
        "origin": "review",
        "model": model,
        "reviewed": reviewed,
        "longest": longest,
        "asks": asks,
        "labels": list(labels),
        "policy": digest(list(labels.values())),
        "frames": _without_neutral("frames", frames),
        "dtype": dtype,
    }
    return value | ({"texts": texts} if texts else {})


def teacher_recipe(
    *, teacher: str, source: str, labels: list[str], grammar: str, version: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Traces that somebody else wrote: who, for the videos of which source, how they are read, and what they come from.

    version: what names that source as it is now, such as the digest of a file; left out where nothing is known of it.
    """
    value = {"origin": "teacher", "teacher": teacher, "source": source, "labels": labels, "grammar": grammar}
    return value | ({"version": version} if version else {})


def imported_recipe(
    *, by: str, source: str, mapped: dict[str, Any], labels: list[str], grammar: str, prompts: dict[str, int]
) -> dict[str, Any]:
    """Traces of another system: whose, about the videos of which source, how its rows are read, and which prompts there are,
    each with the most traces that a video has of it; together they are K."""
    value = {"origin": "imported", "by": by, "source": source, "mapped": mapped, "labels": labels, "grammar": grammar}
    return value | {"prompts": prompts}


def _without_neutral(part: str, value: dict[str, Any]) -> dict[str, Any]:
    neutral = _NEUTRAL[part]
    return {name: field for name, field in value.items() if name not in neutral or field != neutral[name]}


def scorer(*, recipes: list[str], rollouts: int, calibrator: str, calibration: str) -> dict[str, Any]:
    """Everything that decides a score: which traces, how many per video, which weights, which temperature."""
    return {"recipes": recipes, "rollouts": rollouts, "calibrator": calibrator, "calibration": calibration}
