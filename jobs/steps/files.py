"""Files at a source -> the tables files and videos: listed, read where they are new, each content kept once."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark import StorageLevel
from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema

from jobs.runtime.errors import UsageError
from jobs.runtime.progress import Watch
from jobs.runtime.run import Run
from jobs.steps import recipes
from jobs.steps.naming import stem
from lake import storage
from lake.listing import walk
from lake.staging import Wave
from lake.waves import Settled, Work
from lake.write import stage
from models.video.container import PASSING
from schemas.files import FILES
from schemas.quarantine import QUARANTINE
from schemas.table import Table
from schemas.videos import VIDEOS
from udfs.inventory import LISTED_COLUMNS, look_up
from udfs.probe import PROBE_COLUMNS, ProbePlan, probe_files
from udfs.progress import TaskProgress

FILES_PER_WAVE = 20_000
_FILES_PER_CHUNK = 50_000  # of a listing: what the driver holds at a time


def fresh_files(listing: DataFrame, files: DataFrame) -> DataFrame:
    """Listed files that were never read in this state."""
    return listing.join(files.select("uri", "etag"), ["uri", "etag"], "left_anti")


def video_rows(probes: DataFrame, known: DataFrame) -> DataFrame:
    """Rows for the table videos: each content that is not known once, under its first uri; refused files as refused rows."""
    first = Window.partitionBy("video_id").orderBy("uri")
    good = probes.where("reason IS NULL").withColumn("rank", F.row_number().over(first)).where("rank = 1").drop("rank")
    # The archive is looked through for what came again, and neither sorted nor moved.
    again = known.join(F.broadcast(good.select("video_id")), "video_id", "left_semi")
    new = good.join(F.broadcast(again), "video_id", "left_anti")
    # What says nothing of the file is no refusal: it is tried again next time.
    refused = probes.where(F.col("reason").isNotNull() & ~F.col("reason").isin(*PASSING))
    return new.unionByName(refused).select(
        *[F.col(column.name) for column in VIDEOS.columns if column.name in probes.columns],
        F.current_timestamp().alias("ingested_at"),
        F.current_date().alias("ingested_on"),
        F.col("uri").alias("refused_key"),
        F.col("reason").alias("refused_reason"),
        F.col("message").alias("refused_message"),
    )


def file_rows(probes: DataFrame) -> DataFrame:
    """Rows for the table files: one for every file read."""
    refused = F.col("reason").isNotNull()
    return probes.where(F.col("reason").isNull() | ~F.col("reason").isin(*PASSING)).select(
        "uri",
        "etag",
        "source",
        "external_id",
        "size",
        "modified_at",
        F.when(refused, "refused").otherwise("ok").alias("status"),
        "reason",
        F.when(~refused, F.col("video_id")).alias("video_id"),
        F.current_timestamp().alias("seen_at"),
    )


def list_files(run: Run, source: str) -> DataFrame:
    """What lies at the source, or what an inventory names: uri, etag, size, modified_at, source, external_id."""
    settings = run.settings.ingest
    if source.lower().endswith((".csv", ".parquet")):
        found = _inventory(run, source)
        kept = found.where(F.lower(F.substring_index("uri", ".", -1)).isin(*settings.extensions))
        run.record.say(f"{source} is taken for an inventory of files")
    else:
        kept = run.lake.spark.read.parquet(_write_listing(run, source))
    return kept.dropDuplicates(["uri", "etag"]).select(
        *LISTED_COLUMNS.names,
        F.lit(settings.source).alias("source"),
        stem(F.col("uri"), settings.extensions).alias("external_id"),
    )


def read_files(run: Run, listing: DataFrame) -> None:
    """Read what is new of a listing, and publish files and videos wave by wave; the sums are checked at the end."""
    run.waves.must_be_open(FILES, VIDEOS)
    listing = listing.persist(StorageLevel.DISK_ONLY)
    bounds = listing.agg(
        F.count("*").alias("files"), F.min("uri").alias("first"), F.max("uri").alias("last")
    ).collect()[0]
    run.record.add({"files_listed": bounds["files"], "videos_new": 0, "duplicates": 0, "quarantined": 0})
    refused_at, files_at = run.lake.version(QUARANTINE), run.lake.version(FILES)
    # The files of one source lie together: of the others the table's statistics spare us even the look.
    near = run.lake.read(FILES).where(F.col("uri").between(bounds["first"] or "", bounds["last"] or ""))
    plan = run.path("plan")
    fresh_files(listing, near).write.mode("overwrite").parquet(plan)
    listing.unpersist()
    todo = run.lake.spark.read.parquet(plan)
    new = todo.count()
    run.record.add({"unchanged": bounds["files"] - new})
    if run.budget.max_videos is not None and run.budget.max_videos < new:
        todo = todo.orderBy("modified_at", "uri").limit(run.budget.max_videos)
    taken = min(new, run.budget.max_videos or new)
    videos_at = run.lake.version(VIDEOS)
    known = run.lake.read(VIDEOS).select("video_id")
    kept = known.persist(StorageLevel.DISK_ONLY) if taken > FILES_PER_WAVE else known
    looked = _Looked(kept, videos_at, files_at, refused_at)
    done = 0
    for files in _waves(run, todo, taken):
        if not run.budget.allows(0):
            break
        done += _make_wave(run, files, looked, done, taken)
    known.unpersist()
    run.record.add({"deferred": new - done})
    run.record.deferred = new > done
    _check_sums(run)


def _inventory(run: Run, source: str) -> DataFrame:
    """The rows of an inventory file; what it does not say of a file, its store is asked."""
    reader = run.lake.spark.read
    uri = storage.absolute(source)
    if not storage.exists(source):
        raise UsageError(f"--source {source}: no such inventory file")
    rows = reader.parquet(uri) if source.lower().endswith(".parquet") else reader.csv(uri, header=True, escape='"')
    if "uri" not in rows.columns:
        raise UsageError(
            f"--source {source}: expected an inventory with a column uri (and etag, size, modified_at where known), found "
            f"{', '.join(rows.columns) or 'no columns'}"
        )
    rows = rows.where("uri IS NOT NULL")
    odd = rows.where("NOT (startswith(uri, '/') OR contains(uri, '://'))").select("uri").head(1)
    if odd:
        raise UsageError(f"--source {source}: expected whole URIs or absolute paths, found {odd[0]['uri']!r}")
    schema = from_arrow_schema(LISTED_COLUMNS)
    lacking = {name: F.lit(None) for name in set(schema.names) - set(rows.columns)}
    rows = rows.withColumns(lacking).select(*[F.col(field.name).cast(field.dataType) for field in schema])
    width = run.lake.spark.sparkContext.defaultParallelism * 4
    untold = rows.where("etag IS NULL").select("uri").repartition(width)
    return rows.where("etag IS NOT NULL").unionByName(untold.mapInArrow(look_up, schema))


def _write_listing(run: Run, source: str) -> str:
    """List the source into Parquet files, a chunk at a time; returns their folder."""
    extensions, folder = run.settings.ingest.extensions, run.path("listing")
    other = part = 0
    entries = _walked(source)
    while (chunk := list(islice(entries, _FILES_PER_CHUNK))) or part == 0:  # an empty source gives an empty listing
        videos = [entry for entry in chunk if entry.uri.rpartition(".")[2].lower() in extensions]
        other, part = other + len(chunk) - len(videos), part + 1
        buffer = io.BytesIO()
        pq.write_table(pa.Table.from_pylist([asdict(entry) for entry in videos], LISTED_COLUMNS), buffer)
        storage.write(storage.join(folder, f"part-{part:05d}.parquet"), buffer.getvalue())
    if other:
        run.record.say(f"{other} files are left out: their extension is not in ingest.extensions")
    return folder


def _walked(source: str) -> Iterator[storage.Entry]:
    """What lies at the source. Raises UsageError where that cannot be listed."""
    try:
        yield from walk(source)
    except FileNotFoundError:
        raise UsageError(f"--source {source}: expected a folder, a glob or a file that exists, found nothing") from None
    except (ValueError, storage.StoreError) as error:  # a scheme that storage does not know; a folder closed to us
        raise UsageError(f"--source {source}: {error}") from None


def _waves(run: Run, todo: DataFrame, taken: int) -> Iterator[DataFrame]:
    """The files to read in portions; each holds neighbours, so that its rows in the table lie together, too."""
    if taken <= FILES_PER_WAVE:
        if taken:
            yield todo
        return
    number, path = -(-taken // FILES_PER_WAVE), run.path("waves")
    ranged = todo.repartitionByRange(number, "uri").withColumn("part", F.spark_partition_id())
    ranged.write.mode("overwrite").partitionBy("part").parquet(path)
    for part in range(number):
        yield run.lake.spark.read.parquet(path).where(F.col("part") == str(part)).drop("part")


@dataclass(frozen=True)
class _Looked:
    """What was there when the run looked: ids of known contents, and the versions of the tables up to which that holds.

    Looked at once a run, not once a wave: what came since is seen at each publication.
    """

    contents: DataFrame
    videos_at: int
    files_at: int
    refused_at: int


def _make_wave(run: Run, files: DataFrame, looked: _Looked, before: int, total: int) -> int:
    """One wave of files; returns how many this wave took care of."""

    def write(wave: Wave) -> Work:
        task = TaskProgress(wave.path("progress"))
        plan = ProbePlan(recipes.limits(run.settings), recipes.decoding(run.settings), task, task.ended)
        parts = files.select("uri", "etag").repartition(run.lake.spark.sparkContext.defaultParallelism)
        with Watch(run.record, task.folder, before, total, "starting decoders"):
            parts.mapInArrow(probe_files(plan), from_arrow_schema(PROBE_COLUMNS)).write.parquet(wave.path("probes"))
        probes = run.lake.spark.read.parquet(wave.path("probes")).join(files, ["uri", "etag"])
        videos = stage(wave, VIDEOS, video_rows(probes, looked.contents), looked.videos_at, looked.refused_at)
        return [videos, stage(wave, FILES, file_rows(probes), looked.files_at)], {}

    settled = run.waves.make(write, run.record.versions)
    landed = _rows_of_wave(run, FILES, settled)
    by_reason = {row["reason"]: row["count"] for row in landed.groupBy("reason").count().collect()}
    fine = by_reason.pop(None, 0)
    # Of a file that another run read at the same time nobody knows who was first: it counts as read before.
    videos = _rows_of_wave(run, VIDEOS, settled)
    new = landed.join(videos.select("uri", "video_id"), ["uri", "video_id"]).count()
    broken = _broken(run, landed, settled)
    found = settled.landed[FILES.name]
    run.record.add(
        {
            "videos_new": new,
            "duplicates": fine - new - broken,
            "unchanged": found.known,
            "quarantined": sum(by_reason.values()) + broken,
            "collisions": sum(entry.collisions for entry in settled.landed.values()),
        }
        | {f"quarantined_{reason}": count for reason, count in by_reason.items()}
    )
    return found.rows + found.known


def _rows_of_wave(run: Run, table: Table, settled: Settled) -> DataFrame:
    """What a wave brought into a table: its own files alone are read, also where `maintain` has replaced them since."""
    return run.lake.read_files(table, settled.landed[table.name].files)


def _broken(run: Run, landed: DataFrame, settled: Settled) -> int:
    """Files that could be read, but whose video breaks the contract."""
    checks = {check.name for check in VIDEOS.contract(run.label_set)}
    if not checks & settled.reasons[VIDEOS.name].keys():
        return 0
    refused = run.lake.read(QUARANTINE).where((F.col("table") == VIDEOS.name) & (F.col("wave_id") == settled.wave_id))
    ids = refused.where(F.col("reason").isin(*checks)).select(
        F.get_json_object("original", "$.video_id").alias("video_id")
    )
    return landed.where("status = 'ok'").join(ids, "video_id", "left_semi").count()


def _check_sums(run: Run) -> None:
    counts = run.record.counts
    parts = [
        (counts.get(name, 0), name) for name in ("unchanged", "duplicates", "videos_new", "quarantined", "deferred")
    ]
    said = " + ".join(f"{count} {name.replace('_', ' ')}" for count, name in parts)
    if sum(count for count, _ in parts) != counts["files_listed"]:
        raise RuntimeError(f"{counts['files_listed']} files listed are not {said}: rows were lost or doubled")
    run.record.say(f"{counts['files_listed']} files listed = {said}")
    if not counts["files_listed"]:
        run.record.warn(f"nothing listed ends in {', '.join(run.settings.ingest.extensions)} (ingest.extensions)")
