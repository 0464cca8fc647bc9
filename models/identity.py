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

# Files of a model folder that change what the model does; notes, logs and training reports beside them do not.
MODEL_FILES = ("*.safetensors", "*.json", "*.jinja", "*.txt", "*.model")


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
    files = sorted({path for pattern in MODEL_FILES for path in Path(folder).glob(pattern)})
    if not any(path.suffix == ".safetensors" for path in files):
        raise FileNotFoundError(f"model folder {folder}: no *.safetensors in it")
    return _files_digest(tuple((str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files))


@lru_cache(maxsize=8)
def _files_digest(stamped: tuple[tuple[str, int, int], ...]) -> str:
    # Size and time are only the cache's key: hashing 15 GB of weights once per process is enough.
    total = hashlib.sha256()
    for name, _, _ in stamped:
        with Path(name).open("rb") as file:
            total.update(f"{Path(name).name}:{hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return total.hexdigest()[:16]


def recipe(
    *,
    origin: str,
    model: str,
    prompt: str,
    labels: dict[str, str],
    grammar: str,
    frames: dict[str, Any],
    sampling: dict[str, Any],
    dtype: str,
    seed: int,
    salt: str = "",
) -> dict[str, Any]:
    """Everything that decides what a rollout says; how many are drawn (K) is not part of it.

    model: digest of the model folder. labels: slug -> policy text, in order; the policies enter as a digest.
    """
    value: dict[str, Any] = {
        "origin": origin,
        "model": model,
        "prompt": prompt,
        "labels": list(labels),
        "policy": digest(list(labels.values())),
        "grammar": grammar,
        "frames": frames,
        "sampling": sampling,
        "dtype": dtype,
        "seed": seed,
    }
    return value | ({"salt": salt} if salt else {})


def scorer(*, recipes: list[str], rollouts: int, calibrator: str, calibration: str) -> dict[str, Any]:
    """Everything that decides a score: which traces, how many per video, which weights, which temperature."""
    return {"recipes": recipes, "rollouts": rollouts, "calibrator": calibrator, "calibration": calibration}
