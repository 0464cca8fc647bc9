"""One night of an archive: its rows, drawn at random, in every table that a real night writes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import lru_cache
from hashlib import sha256
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from benchmarks.null_engine import prose
from jobs.steps.inputs import NO_INPUT
from lake.names import wave_id, wave_name
from lake.parquet import DataFile, PartWriter
from lake.table import arrow_schema
from schemas.decisions import DECISIONS
from schemas.files import FILES
from schemas.label_set import LabelSet
from schemas.quality import QUALITY
from schemas.quarantine import QUARANTINE
from schemas.runs import RUNS
from schemas.scores import SCORES
from schemas.table import Table
from schemas.traces import TRACES
from schemas.videos import VIDEOS

WAVES_A_NIGHT = 2  # of rollouts, each followed by one of scores and one of decisions
REFUSED_A_NIGHT = 10  # files that are no video
ROLLOUTS = 4
_ROWS_A_SECOND = 100.0  # the speed that its waves tell of: the next night is cut by it
_PHRASES = 2000  # different observations, and as many lines of reasoning


@dataclass(frozen=True)
class Versions:
    """What every night of the archive rests on; plain values, for the processes that write."""

    task: str
    labels: tuple[str, ...]
    recipe_id: str
    scorer_id: str
    rule_id: str

    def ids(self) -> list[tuple[str, str]]:
        return [("recipe_id", self.recipe_id), ("scorer_id", self.scorer_id), ("rule_id", self.rule_id)]


@dataclass(frozen=True)
class Night:
    """One night to write: its number, its day, the videos of it."""

    number: int
    day: date
    videos: int

    @property
    def began(self) -> datetime:
        return datetime(self.day.year, self.day.month, self.day.day, 2, tzinfo=UTC)

    @property
    def run_id(self) -> str:
        return f"nightly-{self.began:%Y%m%dT%H%M%S}-{sha256(str(self.number).encode()).hexdigest()[:6]}"

    def wave(self, number: int) -> str:
        return wave_id(self.run_id, number)


@dataclass(frozen=True)
class Written:
    """Files of one table on their way into its log."""

    table: str
    mark: str
    wave_id: str
    files: list[DataFile]


def write_night(root: str, night: Night, versions: Versions) -> list[Written]:
    """Write all files of a night; what to commit, in the order of a real night."""
    rng = np.random.default_rng(night.number)
    videos = _videos(night, rng)
    first = night.wave(1)
    found = [
        _note(root, RUNS, night, 0, "started", [_event(night, versions, "started", 0.0)]),
        _write(root, VIDEOS, first, videos),
        _write(root, FILES, first, _files(night, videos)),
        _note(root, QUARANTINE, night, 1, QUARANTINE.name, _refused(night)),
        *_side_rows(root, night, versions, 1, [VIDEOS, FILES], videos.num_rows),
    ]
    wave = 1
    for part in np.array_split(np.arange(videos.num_rows), WAVES_A_NIGHT):
        own = videos.take(part)
        for table, rows in (
            (TRACES, _traces(own, versions, rng)),
            (SCORES, scores := _scores(own, versions, rng)),
            (DECISIONS, _decisions(scores, versions)),
        ):
            wave += 1
            found.append(_write(root, table, night.wave(wave), rows))
            found += _side_rows(root, night, versions, wave, [table], rows.num_rows)
    found.append(_note(root, RUNS, night, 0, "finished", [_event(night, versions, "finished", 4000.0)]))
    return found


def _write(root: str, table: Table, wave_id: str, rows: pa.Table, mark: str | None = None) -> Written:
    """Rows with the table's columns, in any order and without wave_id, as files."""
    schema = arrow_schema(table)
    rows = rows.append_column("wave_id", pa.repeat(wave_id, rows.num_rows)) if "wave_id" in schema.names else rows
    with PartWriter(table, root, wave_id) as parts:
        parts.write(rows.select(schema.names))
        return Written(table.name, mark or f"{wave_id}/{table.name}", wave_id, parts.close())


def _note(root: str, table: Table, night: Night, wave: int, name: str, rows: list[dict[str, Any]]) -> Written:
    """A few rows as a file."""
    schema = arrow_schema(table)
    with PartWriter(table, root, night.wave(wave)) as parts:
        parts.write(pa.Table.from_pylist([{n: row.get(n) for n in schema.names} for row in rows], schema))
        mark = f"{night.wave(wave) if wave else night.run_id}/{name}"
        return Written(table.name, mark, night.wave(wave), parts.close())


def _event(night: Night, versions: Versions, event: str, seconds: float, **counts: int) -> dict[str, Any]:
    return {
        "run_id": night.run_id,
        "event": event,
        "job": "nightly",
        "task": versions.task,
        "at": night.began,
        "seconds": seconds,
        "versions": versions.ids(),
        "counts": list(counts.items()),
    }


def _side_rows(
    root: str, night: Night, versions: Versions, wave: int, tables: list[Table], rows: int
) -> Iterator[Written]:
    """What a wave notes of itself in quality and runs."""
    checked = [
        {"wave_id": night.wave(wave), "table": table.name, "check": check.name, "success": True, "unexpected": 0}
        | {"rows": rows, "expected": check.expectation[0], "checked_at": night.began}
        for table in tables
        for check in table.contract(LabelSet(versions.labels))
    ]
    yield _note(root, QUALITY, night, wave, QUALITY.name, checked)
    counts = {f"{table.name}_landed": rows for table in tables} | ({"rollouts": rows} if TRACES in tables else {})
    yield _note(
        root,
        RUNS,
        night,
        wave,
        RUNS.name,
        [_event(night, versions, f"wave {wave_name(wave)}", rows / _ROWS_A_SECOND, **counts)],
    )


def _refused(night: Night) -> list[dict[str, Any]]:
    row = {"wave_id": night.wave(1), "table": VIDEOS.name, "reason": "no_video", "refused_at": night.began}
    return [
        row | {"row_key": uri, "message": "expected a video, found none", "original": json.dumps({"uri": uri})}
        for uri in (_uri(night, f"broken-{n}") for n in range(REFUSED_A_NIGHT))
    ]


def _uri(night: Night, name: str) -> str:
    return f"/archive/{night.day:%Y/%m/%d}/{name}.mp4"


def _times(night: Night, count: int) -> pa.Array:
    micros = int(night.began.timestamp() * 1e6) + np.arange(count) * 5000
    return pa.array(micros, pa.int64()).cast(pa.timestamp("us", "UTC"))


def _videos(night: Night, rng: np.random.Generator) -> pa.Table:
    n = night.videos
    digits = rng.bytes(32 * n).hex()
    return pa.table(
        {
            "video_id": [digits[64 * i : 64 * i + 64] for i in range(n)],
            "uri": [_uri(night, f"{night.number:04d}-{i:06d}") for i in range(n)],
            "size": rng.integers(100_000, 5_000_000, n),
            "codec": pa.repeat("h264", n),
            "width": pa.array(rng.choice([640, 1280, 1920], n), pa.int32()),
            "height": pa.array(rng.choice([360, 720, 1080], n), pa.int32()),
            "fps": np.full(n, 25.0),
            "duration_s": rng.uniform(5, 60, n).round(2),
            "frames": (frames := rng.integers(125, 1500, n)),
            "frames_promised": frames,
            "frames_tried": pa.repeat(pa.scalar(128, pa.int32()), n),
            "frames_decoded": pa.repeat(pa.scalar(128, pa.int32()), n),
            "rotation": pa.repeat(pa.scalar(0, pa.int32()), n),
            "has_audio": rng.random(n) < 0.7,
            "damage": np.zeros(n),
            "ingested_at": _times(night, n),
            "ingested_on": pa.repeat(pa.scalar(night.day, pa.date32()), n),
        }
    )


def _files(night: Night, videos: pa.Table) -> pa.Table:
    n, broken = videos.num_rows, REFUSED_A_NIGHT
    uris = videos["uri"].to_pylist() + [_uri(night, f"broken-{i}") for i in range(broken)]
    sizes = videos["size"].to_pylist() + [100] * broken
    stamp = int(night.began.timestamp()) * 10**9
    return pa.table(
        {
            "uri": uris,
            "etag": [f"{size}-{stamp + i}" for i, size in enumerate(sizes)],
            "source": pa.repeat("files", n + broken),
            "external_id": [uri.rpartition("/")[2].removesuffix(".mp4") for uri in uris],
            "size": pa.array(sizes, pa.int64()),
            "modified_at": _times(night, n + broken),
            "status": ["ok"] * n + ["refused"] * broken,
            "reason": pa.array([None] * n + ["no_video"] * broken, pa.string()),
            "video_id": pa.array(videos["video_id"].to_pylist() + [None] * broken, pa.string()),
            "seen_at": _times(night, n + broken),
        }
    )


@lru_cache(maxsize=2)
def _phrases(characters: int) -> pa.Array:
    rng = Random(characters)
    return pa.array([prose(rng, characters + rng.randrange(-80, 80)) for _ in range(_PHRASES)])


def _map(labels: tuple[str, ...], values: np.ndarray) -> pa.Array:
    """A map by label from float64 [N, L]."""
    n, width = values.shape
    keys = pa.array(list(labels)).take(pa.array(np.tile(np.arange(width), n)))
    return pa.MapArray.from_arrays(pa.array(np.arange(n + 1) * width, pa.int32()), keys, pa.array(values.ravel()))


def _alone(label: pa.Array) -> pa.Array:
    """Each label as a list of its own."""
    return pa.ListArray.from_arrays(pa.array(np.arange(len(label) + 1), pa.int32()), label)


def _traces(videos: pa.Table, versions: Versions, rng: np.random.Generator) -> pa.Table:
    n = videos.num_rows * ROLLOUTS
    own = videos.select(["video_id", "ingested_on", "ingested_at"]).take(
        np.repeat(np.arange(videos.num_rows), ROLLOUTS)
    )
    observation = _phrases(250).take(rng.integers(_PHRASES, size=n))
    think = _phrases(350).take(rng.integers(_PHRASES, size=n))
    label = pa.array(versions.labels).take(rng.integers(len(versions.labels), size=n))
    parts = "<observation>", observation, "</observation>\n<think>", think, "</think>\n<answer>", label, "</answer>"
    tokens = rng.integers(120, 180, n).astype(np.int32)
    return pa.table(
        {
            "video_id": own["video_id"],
            "task": pa.repeat(versions.task, n),
            "recipe_id": pa.repeat(versions.recipe_id, n),
            "input_digest": pa.repeat(NO_INPUT, n),
            "rollout_index": pa.array(np.tile(np.arange(ROLLOUTS), videos.num_rows), pa.int32()),
            "attempt": pa.repeat(pa.scalar(0, pa.int32()), n),
            "status": pa.repeat("ok", n),
            "label": label,
            "labels": _alone(label),
            "answer": label,
            "observation": observation,
            "think": think,
            "text": pc.binary_join_element_wise(*parts, ""),
            "well_formed": pa.repeat(True, n),
            "logprob_sum": -40 * rng.random(n),
            "label_logprobs": _map(versions.labels, np.log(rng.dirichlet(np.ones(len(versions.labels)), n) + 1e-9)),
            "prompt_tokens": pa.repeat(pa.scalar(400, pa.int32()), n),
            "tokens": tokens,
            "finish_reason": pa.repeat("stop", n),
            "error": pa.nulls(n, pa.string()),
            "seed": rng.integers(0, 2**28, n),
            "engine": pa.repeat("null", n),
            "engine_version": pa.repeat("1", n),
            "created_at": own["ingested_at"],
            "ingested_on": own["ingested_on"],
        }
    )


def _scores(videos: pa.Table, versions: Versions, rng: np.random.Generator) -> pa.Table:
    n = videos.num_rows
    return pa.table(
        {
            "video_id": videos["video_id"],
            "task": pa.repeat(versions.task, n),
            "scorer_id": pa.repeat(versions.scorer_id, n),
            "input_digest": pa.repeat(NO_INPUT, n),
            "probs": _map(versions.labels, rng.dirichlet(np.ones(len(versions.labels)), n)),
            "rollouts": pa.repeat(pa.scalar(ROLLOUTS, pa.int32()), n),
            "rollouts_ok": pa.repeat(pa.scalar(ROLLOUTS, pa.int32()), n),
            "agreement": rng.choice([0.5, 0.75, 1.0], n),
            "scored_at": videos["ingested_at"],
            "ingested_on": videos["ingested_on"],
        }
    )


def _decisions(scores: pa.Table, versions: Versions) -> pa.Table:
    n, width = scores.num_rows, len(versions.labels)
    probs = scores["probs"].combine_chunks().items.to_numpy().reshape(n, width)
    best, top = probs.argmax(1), probs.max(1)
    clear = top >= 0.6
    label = pa.array(versions.labels).take(pa.array(best))
    given = pa.ListArray.from_arrays(pa.array(np.append(0, clear.cumsum()), pa.int32()), label.filter(pa.array(clear)))
    return pa.table(
        {
            "video_id": scores["video_id"],
            "task": scores["task"],
            "scorer_id": scores["scorer_id"],
            "input_digest": scores["input_digest"],
            "rule_id": pa.repeat(versions.rule_id, n),
            "label": pc.if_else(pa.array(clear), label, pa.scalar(None, pa.string())),
            "labels": given,
            "top_prob": top,
            "expected_cost": pa.nulls(n, pa.float64()),
            "prediction_set": _alone(label),
            "abstain": ~clear,
            "reason": pc.if_else(pa.array(clear), "clear", "below_threshold"),
            "decided_at": scores["scored_at"],
            "ingested_on": scores["ingested_on"],
        }
    )
