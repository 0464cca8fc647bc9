"""Waves: write, audit, publish. The only way rows enter the lake's tables from a stage that costs something.

1. write    one stage runs the model and stages Parquet under staging/<run>/<wave>/; its manifest is written last
2. audit    each table's contract reads the staged files
3. publish  compare-and-set append of the kept rows: the commit point
4. record   quarantine, quality and the run's event, each once under the wave's id
5. remove   the wave's folder, manifest first

A kill between any two steps is mended by the next run's `recover`: with a manifest, from step 2 on without running the
model; without one, the wave is discarded and its work is pending again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from jobs import lease
from models import storage
from schemas.contract import Audit, audit
from schemas.lake import BY_NAME
from schemas.quality import QUALITY
from schemas.quarantine import QUARANTINE
from schemas.runs import RUNS
from schemas.table import Landed, Table, append_once, note_once, publish


class Held(RuntimeError):
    """A gate stopped a wave; it stays staged until somebody decides."""


@dataclass(frozen=True)
class Output:
    """Rows staged for one table. scope: the compare-and-set's counter, shared by all writers of the same keys.

    missing_at: the counter at which none of these keys was in the table; None where nobody looked.
    """

    table: str
    scope: str
    rows: int
    missing_at: int | None = None


@dataclass(frozen=True)
class Manifest:
    """What a staged wave holds and what settling it needs; nothing else does."""

    wave_id: str
    run_id: str
    job: str
    task: str
    labels: tuple[str, ...]
    max_refused: float
    outputs: tuple[Output, ...]
    counts: dict[str, int] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0  # the write step took

    def json(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    @staticmethod
    def parse(data: bytes) -> Manifest:
        value = json.loads(data)
        outputs = tuple(Output(**output) for output in value.pop("outputs"))
        return Manifest(outputs=outputs, labels=tuple(value.pop("labels")), **value)


@dataclass(frozen=True)
class Wave:
    """One wave's place in staging."""

    root: str
    run_id: str
    name: str

    @property
    def id(self) -> str:
        return f"{self.run_id}.{self.name}"

    @property
    def folder(self) -> str:
        return storage.join(run_folder(self.root, self.run_id), self.name)

    def data(self, name: str) -> str:
        return storage.join(self.folder, "data", name)

    @property
    def manifest_uri(self) -> str:
        return storage.join(self.folder, "manifest.json")

    @property
    def held_uri(self) -> str:
        return storage.join(self.folder, "held.json")

    def manifest(self) -> Manifest | None:
        try:
            return Manifest.parse(storage.read_bytes(self.manifest_uri))
        except FileNotFoundError:
            return None


@dataclass(frozen=True)
class Settled:
    """What a wave came to: per table what landed and how many rows were refused, and the stage's own counts."""

    landed: dict[str, Landed]
    refused: dict[str, int]
    counts: dict[str, int]


def run_folder(root: str, run_id: str) -> str:
    return storage.join(root, "staging", run_id)


def stage(
    spark: SparkSession, wave: Wave, table: Table, rows: DataFrame, scope: str, missing_at: int | None = None
) -> Output:
    """Write rows for one table into the wave's folder, stamped with its id. Runs the plan behind `rows` exactly once."""
    path = wave.data(table.name)
    rows.withColumn("wave_id", F.lit(wave.id)).write.mode("overwrite").parquet(path)
    return Output(table.name, scope, spark.read.parquet(path).count(), missing_at)


def commit(spark: SparkSession, wave: Wave, write: Callable[[Wave], Manifest]) -> Settled:
    """All five steps. `write` stages the data and returns the manifest, which this function puts down."""
    began = time.monotonic()
    manifest = write(wave)
    seal(wave, manifest, time.monotonic() - began)
    return settle(spark, wave)


def seal(wave: Wave, manifest: Manifest, seconds: float) -> None:
    """End of step 1: from here on the wave will be published and its model never runs again."""
    storage.write(wave.manifest_uri, Manifest(**{**manifest.__dict__, "seconds": seconds}).json())


def settle(spark: SparkSession, wave: Wave, release: bool = False) -> Settled:
    """Steps 2 to 5 of a sealed wave. Raises Held if a gate fails, unless a person has released it."""
    manifest = wave.manifest()
    if manifest is None:
        raise FileNotFoundError(f"{wave.manifest_uri}: the wave is not sealed, or was settled by another run")
    audits = audit_wave(spark, wave, manifest)
    if not release:
        _gate(spark, wave, manifest, audits)
    landed = publish_wave(spark, wave, manifest, audits)
    settled = Settled(landed, {name: audits[name].rows_refused for name in audits}, manifest.counts)
    record_wave(spark, wave, manifest, audits, settled)
    remove_wave(wave)
    return settled


def audit_wave(spark: SparkSession, wave: Wave, manifest: Manifest) -> dict[str, Audit]:
    """Step 2: the contract of each table over its staged files."""
    audits = {}
    for output in manifest.outputs:
        table = BY_NAME[output.table]
        staged = spark.read.parquet(wave.data(output.table))
        audits[output.table] = audit(staged, table.contract(manifest.labels))
        if audits[output.table].rows != output.rows:
            raise RuntimeError(
                f"{wave.data(output.table)}: expected {output.rows} staged rows, found {audits[output.table].rows}; "
                f"staging was changed from outside: `deepintuit waves discard {wave.id}` makes the work pending again"
            )
    return audits


def _gate(spark: SparkSession, wave: Wave, manifest: Manifest, audits: dict[str, Audit]) -> None:
    faults = [
        f"{name}: {found.rows_broken} of {found.rows} rows broke the contract, allowed are {manifest.max_refused:.0%} "
        f"({'; '.join(entry['check'] for entry in found.results if not entry['success'])})"
        for name, found in audits.items()
        if found.rows_broken > manifest.max_refused * found.rows
    ]
    if not faults:
        return
    storage.write(wave.held_uri, json.dumps({"faults": faults, "at": time.time()}).encode())
    note_once(QUALITY, wave.root, _quality_rows(wave, audits), f"{wave.id}/quality")
    raise Held(held_message(wave.id, faults))


def held_message(wave_id: str, faults: list[str]) -> str:
    return (
        f"wave {wave_id} is held: {' | '.join(faults)}. Look at it with `deepintuit waves list`, then "
        f"`deepintuit waves release {wave_id}` publishes what is good, `deepintuit waves discard {wave_id}` drops it"
    )


def publish_wave(spark: SparkSession, wave: Wave, manifest: Manifest, audits: dict[str, Audit]) -> dict[str, Landed]:
    """Step 3: the kept rows of each table, in the order in which the job named them."""
    return {
        output.table: publish(
            spark,
            BY_NAME[output.table],
            wave.root,
            audits[output.table].kept,
            output.scope,
            audits[output.table].rows_kept,
            output.missing_at,
        )
        for output in manifest.outputs
    }


def record_wave(
    spark: SparkSession, wave: Wave, manifest: Manifest, audits: dict[str, Audit], settled: Settled
) -> None:
    """Step 4: side rows, each set once under the wave's id."""
    for name, found in audits.items():
        if found.rows_refused:
            rows = quarantine_rows(found.refused, BY_NAME[name], wave.id)
            append_once(spark, QUARANTINE, wave.root, rows, f"{wave.id}/quarantine/{name}")
    note_once(QUALITY, wave.root, _quality_rows(wave, audits), f"{wave.id}/quality")
    counts = dict(manifest.counts)
    for name, landed in settled.landed.items():
        counts |= {
            f"{name}_landed": landed.rows,
            f"{name}_known": landed.known,
            f"{name}_refused": settled.refused[name],
            "collisions": counts.get("collisions", 0) + landed.collisions,
        }
    event = {
        "run_id": manifest.run_id,
        "event": f"wave {wave.name}",
        "job": manifest.job,
        "task": manifest.task,
        "at": datetime.now(UTC),
        "seconds": manifest.seconds,
        "versions": manifest.versions,
        "counts": counts,
    }
    note_once(RUNS, wave.root, [event], f"{wave.id}/run")


def remove_wave(wave: Wave) -> None:
    """Step 5: the manifest first, so that half a removal reads as a wave that was never sealed."""
    storage.delete(wave.manifest_uri)
    storage.delete(wave.folder)


def quarantine_rows(refused: DataFrame, table: Table, wave_id: str) -> DataFrame:
    """Refused rows as rows of the quarantine table, with all their values as JSON."""
    known = [name for name in refused.columns if not name.startswith("refused_")]
    key = F.concat_ws("/", *[F.coalesce(F.col(name).cast("string"), F.lit("?")) for name in table.key])
    if "refused_key" in refused.columns:
        key = F.coalesce("refused_key", key)
    return refused.select(
        key.alias("row_key"),
        F.lit(wave_id).alias("wave_id"),
        F.lit(table.name).alias("table"),
        F.col("refused_reason").alias("reason"),
        F.col("refused_message").alias("message"),
        F.to_json(F.struct(*known)).alias("original"),
        F.current_timestamp().alias("refused_at"),
    )


def _quality_rows(wave: Wave, audits: dict[str, Audit]) -> list[dict[str, Any]]:
    now = datetime.now(UTC)
    return [
        {"wave_id": wave.id, "table": name, "checked_at": now, **result}
        for name, found in audits.items()
        for result in found.results
    ]


def remove_run(root: str, run_id: str) -> None:
    """Remove a run's folder, its lease last: what half a removal leaves is still known as a dead run's."""
    folder = run_folder(root, run_id)
    for name in storage.children(folder):
        if name != lease.FILE:
            storage.delete(storage.join(folder, name))
    storage.delete(folder)


def staged_waves(root: str, run_id: str) -> list[Wave]:
    """All wave folders of a run, sealed or not."""
    names = storage.children(run_folder(root, run_id))
    return [Wave(root, run_id, name) for name in names if name.startswith("w")]


def runs_by_life(root: str, silence_seconds: float) -> tuple[list[str], list[str]]:
    """Runs that have a folder in staging: those at work, and those whose process is gone."""
    living, dead = [], []
    for run_id in storage.children(storage.join(root, "staging")):
        record = lease.read(run_folder(root, run_id))
        if record is not None:
            (living if lease.alive(record, silence_seconds) else dead).append(run_id)
    return living, dead


def recover(spark: SparkSession, root: str, silence_seconds: float) -> dict[str, int]:
    """Roll forward what dead runs left: sealed waves are settled, unsealed ones discarded. Raises Held for held ones."""
    settled = discarded = 0
    held: list[str] = []
    for run_id in runs_by_life(root, silence_seconds)[1]:
        kept = False
        for wave in staged_waves(root, run_id):
            if wave.manifest() is None:
                storage.delete(wave.folder)
                discarded += 1
            elif storage.exists(wave.held_uri):
                held.append(held_message(wave.id, json.loads(storage.read_bytes(wave.held_uri))["faults"]))
                kept = True
            else:
                settled += _settle_left(spark, wave)
        if not kept:
            remove_run(root, run_id)
    if held:
        raise Held("\n".join(held))
    return {"waves_recovered": settled, "waves_discarded": discarded}


def _settle_left(spark: SparkSession, wave: Wave) -> int:
    try:
        settle(spark, wave)
    except Exception:
        # Two runs may recover the same wave at once; the one that finishes first removes it under the other's feet.
        if storage.exists(wave.manifest_uri):
            raise
        return 0
    return 1
