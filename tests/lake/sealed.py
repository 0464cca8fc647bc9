"""Waves of scores as a run leaves them behind that died right after it sealed them. No model runs."""

from __future__ import annotations

import json
import secrets
from datetime import UTC, date, datetime

from things import rows_of

from lake import storage
from lake.catalog import Lake
from lake.recovery import recover
from lake.staging import Manifest, Staged, Wave, run_folder
from lake.table import spark_schema
from lake.write import stage
from schemas.label_set import LabelSet
from schemas.scores import SCORES
from schemas.table import Table

TASK = "handwriting"
SILENCE = 120
LABELS = LabelSet(("falling", "mixed", "rising"))
GONE = {"host": "gone", "boot": "", "pid": 1, "started": 1}


def score_rows(wave: Wave, good: int, broken: int) -> list[dict]:
    """Scores of as many videos; those of the broken ones do not sum to 1."""
    return [
        {
            "video_id": f"{wave.id}-{number}",
            "task": TASK,
            "scorer_id": "s" * 16,
            "input_digest": "0" * 16,
            "probs": {"falling": 0.1, "mixed": 0.2, "rising": 0.7 if number < good else 0.9},
            "rollouts": 4,
            "rollouts_ok": 4,
            "agreement": 1.0,
            "scored_at": datetime.now(UTC),
            "ingested_on": date(2026, 1, 2),
        }
        for number in range(good + broken)
    ]


def trace(video: int, index: int, **of) -> dict:
    """A good one: each says something of its own, and what it is turns with the video."""
    label = LABELS.slugs[video % 3]
    own = {
        "video_id": f"v{video:04}",
        "task": TASK,
        "recipe_id": "",
        "input_digest": "0" * 16,
        "rollout_index": index,
        "attempt": 0,
        "status": "ok",
        "label": label,
        "labels": [label],
        "text": f"{video} {index}",
        "observation": "a digit",
        "think": "hm",
        "logprob_sum": -1.0,
        "tokens": 20,
        "seed": 1,
        "ingested_on": date(2026, 1, 2),
    }
    return own | of


def frame(lake: Lake, table: Table, rows: list[dict]):
    values = [tuple(row.get(column.name) for column in table.columns) for row in rows]
    return lake.spark.createDataFrame(values, spark_schema(table)).drop("wave_id").coalesce(2)


def seal(wave: Wave, *outputs: Staged, allowed: float = 0.05) -> Wave:
    wave.seal(Manifest(wave.id, "score", TASK, LABELS, allowed, outputs, {"scores": sum(o.rows for o in outputs)}))
    return wave


def put_down(
    lake: Lake, good: int, broken: int, allowed: float = 0.05, run_id: str | None = None, number: int = 1
) -> Wave:
    """A sealed wave of a run whose process is gone."""
    run_id = run_id or f"score-20260102T030405-{secrets.token_hex(3)}"
    wave = Wave(lake.root, run_id, f"w{number:05d}")
    staged = stage(wave, SCORES, frame(lake, SCORES, score_rows(wave, good, broken)))
    abandon(lake, run_id)
    return seal(wave, staged, allowed=allowed)


def abandon(lake: Lake, run_id: str) -> None:
    """The lease of a run that is gone."""
    lease = {"job": "score", "owner": GONE, "heartbeat": 0.0, "started_at": 0.0}
    storage.write(storage.join(run_folder(lake.root, run_id), "run.json"), json.dumps(lease).encode())


def of_wave(lake: Lake, wave: Wave, wanted=SCORES) -> list[dict]:
    return [row for row in rows_of(lake.root, wanted) if row["wave_id"] == wave.id]


def staging(lake: Lake) -> list[str]:
    return storage.children(storage.join(lake.root, "staging"))


def mended(lake: Lake) -> tuple[int, int]:
    """Waves that a recovery settled and dropped; none may be held."""
    found = recover(lake, SILENCE)
    assert not found.held and not found.warnings
    return found.settled, found.discarded
