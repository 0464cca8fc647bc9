"""Probe files inside Spark tasks: which content a file holds and what kind of video it is, or why it is refused."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import pyarrow as pa

from models.video.container import Limits, MediaError
from models.video.frames import Probe, probe
from models.video.pool import DecodePool, DecodeSettings
from udfs.reading import read

PROBE_COLUMNS = pa.schema(
    [
        ("uri", pa.string()),
        ("etag", pa.string()),
        ("video_id", pa.string()),
        ("codec", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("fps", pa.float64()),
        ("duration_s", pa.float64()),
        ("frames", pa.int64()),
        ("rotation", pa.int32()),
        ("has_audio", pa.bool_()),
        ("frames_promised", pa.int64()),
        ("frames_tried", pa.int32()),
        ("frames_decoded", pa.int32()),
        ("damage", pa.float64()),
        ("reason", pa.string()),
        ("message", pa.string()),
    ]
)


@dataclass(frozen=True)
class ProbePlan:
    """What a probing task needs."""

    limits: Limits
    decode: DecodeSettings
    on_progress: Callable[[int, int], None] | None = None
    on_end: Callable[[], None] | None = None


def content_and_probe(uri: str, limits: Limits) -> tuple[str | None, Probe | MediaError]:
    """SHA-256 of the bytes (None if they cannot be read) and the probe, or why there is none. Runs in a decoder child."""
    try:
        data = read(uri, limits)
    except MediaError as error:
        return None, error
    video_id = hashlib.sha256(data).hexdigest()
    try:
        return video_id, probe(data, limits)
    except MediaError as error:
        return video_id, error


def probe_files(plan: ProbePlan) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """For mapInArrow: batches with `uri` and `etag` in, PROBE_COLUMNS out, one row for every row."""

    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        items = (row for batch in batches for row in batch.select(["uri", "etag"]).to_pylist())
        rows: list[dict[str, Any]] = []
        done = 0
        with DecodePool(partial(content_and_probe, limits=plan.limits), plan.decode) as pool:
            for item, result in pool.map(items, argument=lambda item: item["uri"]):
                rows.append(_row(item, result))
                done += 1
                if plan.on_progress:
                    plan.on_progress(done, 0)
                if len(rows) == 256:
                    yield pa.RecordBatch.from_pylist(rows, PROBE_COLUMNS)
                    rows = []
        if plan.on_end:
            plan.on_end()
        if rows:
            yield pa.RecordBatch.from_pylist(rows, PROBE_COLUMNS)

    return run


def _row(item: dict[str, Any], result: tuple[str | None, Probe | MediaError] | MediaError) -> dict[str, Any]:
    video_id, found = (None, result) if isinstance(result, MediaError) else result
    if isinstance(found, MediaError):
        return item | {"video_id": video_id, "reason": found.reason, "message": str(found)}
    return item | {"video_id": video_id, **asdict(found)}
