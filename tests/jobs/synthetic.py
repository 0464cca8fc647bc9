"""A lake that is filled by hand: videos, labels, traces of a model that never ran."""

from __future__ import annotations

import hashlib
import math
from datetime import UTC, date, datetime
from pathlib import Path

from support import Lake

from jobs.runtime.run import Run
from jobs.steps.inputs import NO_INPUT
from lake.table import spark_schema
from lake.write import stage
from schemas.tables import BY_NAME

DAY, NOW = date(2026, 3, 1), datetime(2026, 3, 1, tzinfo=UTC)


def site(
    folder: Path, task: str, slugs: tuple[str, ...], mode: str = "exclusive", more: str = "", settings: str = ""
) -> str:
    """A site's file whose task has these labels; more: lines of the task's file, settings: of the site's."""
    (folder / "labels").mkdir(parents=True, exist_ok=True)
    policies = "".join(f"  {slug}: There is {slug}.\n" for slug in slugs)
    (folder / "labels" / f"{task}.yaml").write_text(f"task: {task}\nmode: {mode}\n{more}labels:\n{policies}")
    conf = folder / "site.yaml"
    conf.write_text(f"task: {task}\n{settings}")
    return str(conf)


def land(lake: Lake, **rows: list[dict]) -> None:
    """Rows into tables as a run of `ingest` publishes them."""
    with Run("ingest", lake.settings(), quiet=True) as run:

        def write(wave):
            staged = []
            for name, values in rows.items():
                table = BY_NAME[name]
                full = [tuple(value.get(column.name) for column in table.columns) for value in values]
                frame = run.lake.spark.createDataFrame(full, spark_schema(table)).drop("wave_id").coalesce(1)
                staged.append(stage(wave, table, frame))
            return staged, {}

        settled = run.waves.make(write, {})
        assert not any(settled.reasons.values()), settled.reasons


def video_id(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def videos(names: list[str]) -> dict[str, list[dict]]:
    """Files of these names and their videos."""
    common = {"source": "files", "etag": "1", "status": "ok", "seen_at": NOW, "size": 1, "modified_at": NOW}
    shape = {"size": 1, "width": 64, "height": 64, "duration_s": 1.0, "fps": 8.0, "rotation": 0, "damage": 0.0}
    return {
        "files": [{"uri": f"/{name}", "external_id": name, "video_id": video_id(name)} | common for name in names],
        "videos": [
            {"video_id": video_id(name), "uri": f"/{name}", "ingested_at": NOW, "ingested_on": DAY} | shape
            for name in names
        ],
    }


def trace(name: str, task: str, recipe_id: str, index: int, probs: dict[str, float], **changes) -> dict:
    """A trace with these label probabilities; `changes`: its other columns."""
    return {
        "video_id": video_id(name),
        "task": task,
        "recipe_id": recipe_id,
        "input_digest": NO_INPUT,
        "rollout_index": index,
        "attempt": 0,
        "status": "ok",
        "label": None,
        "labels": None,
        "text": "",
        "label_logprobs": {slug: math.log(p) for slug, p in probs.items()},
        "logprob_sum": -3.0,
        "tokens": 10 + index,
        "ingested_on": DAY,
    } | changes
