"""ingest: files at a source -> files, videos; a labels file -> labels, splits.

deepintuit ingest --source DIR_OR_GLOB_OR_URI [--labels FILE.csv] [--split test] --conf conf/local.yaml
"""

from __future__ import annotations

import argparse
import io
import json
import sys
from dataclasses import asdict
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema

from jobs import cli, labelfile, recipe, staging
from jobs.progress import Watch
from jobs.run import Run, UsageError
from models import storage
from models.frames import PASSING
from schemas.files import FILES
from schemas.labels import LABELS
from schemas.quarantine import QUARANTINE
from schemas.splits import SPLITS, STAGES
from schemas.videos import VIDEOS
from udfs.probe import PROBE_COLUMNS, ProbePlan, probe_files
from udfs.progress import TaskProgress

_FILES_PER_WAVE = 20_000
_NAMES = 5  # examples in a message
_LISTING = pa.schema(
    [("uri", pa.string()), ("etag", pa.string()), ("size", pa.int64()), ("modified_at", pa.timestamp("us", "UTC"))]
)


def fresh_files(listing: DataFrame, files: DataFrame) -> DataFrame:
    """Listed files that were never read in this state."""
    return listing.join(files.select("uri", "etag"), ["uri", "etag"], "left_anti")


def video_rows(probes: DataFrame) -> DataFrame:
    """Rows for the table videos: each content once, under its first uri; refused files as refused rows."""
    first = Window.partitionBy("video_id").orderBy("uri")
    good = probes.where("reason IS NULL").withColumn("rank", F.row_number().over(first)).where("rank = 1").drop("rank")
    return good.unionByName(probes.where("reason IS NOT NULL")).select(
        *[F.col(column.name) for column in VIDEOS.columns if column.name in probes.columns],
        F.current_timestamp().alias("ingested_at"),
        F.col("uri").alias("refused_key"),
        F.col("reason").alias("refused_reason"),
        F.col("message").alias("refused_message"),
    )


def file_rows(probes: DataFrame) -> DataFrame:
    """Rows for the table files: one for every file read."""
    refused = F.col("reason").isNotNull()
    # What says nothing of the file leaves no row: it is tried again next time.
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


def write_listing(source: str, extensions: tuple[str, ...], folder: str) -> int:
    """List the source into Parquet files, a chunk at a time. Returns how many files of another kind there were."""
    try:
        storage.local_path(source)
    except ValueError as error:  # a scheme that storage does not know
        raise UsageError(f"--source {error}") from None
    entries = storage.walk(source)
    other = part = 0
    try:
        while (chunk := list(islice(entries, 50_000))) or part == 0:  # an empty source gives an empty listing
            videos = [entry for entry in chunk if entry.uri.rpartition(".")[2].lower() in extensions]
            other, part = other + len(chunk) - len(videos), part + 1
            buffer = io.BytesIO()
            pq.write_table(pa.Table.from_pylist([asdict(entry) for entry in videos], _LISTING), buffer)
            storage.write(storage.join(folder, f"part-{part:05d}.parquet"), buffer.getvalue())
    except FileNotFoundError:
        raise UsageError(f"--source {source}: expected a folder, a glob or a file that exists, found nothing") from None
    except PermissionError as error:
        raise UsageError(f"--source {source}: expected folders that can be read: {error}") from None
    return other


def read_files(run: Run, source: str) -> None:
    """List, read what is new, and publish files and videos wave by wave; the sums are checked at the end."""
    settings = run.settings.ingest
    folder = storage.join(staging.run_folder(run.root, run.run_id), "listing")
    other = write_listing(source, settings.extensions, folder)
    if other:
        run.say(f"{other} files are left out: their extension is not in ingest.extensions")
    files = run.spark.read.parquet(folder).dropDuplicates(["uri", "etag"])
    listed = files.count()
    run.add({"files_listed": listed, "videos_new": 0, "duplicates": 0, "quarantined": 0})
    listing = files.select(
        "*",
        F.lit(settings.source).alias("source"),
        labelfile.external_id(F.col("uri"), settings.extensions).alias("external_id"),
    )
    fresh = fresh_files(listing, run.read(FILES))
    plan = storage.join(staging.run_folder(run.root, run.run_id), "plan")
    fresh.write.mode("overwrite").parquet(plan)
    todo = run.spark.read.parquet(plan)
    new = todo.count()
    run.add({"unchanged": listed - new})
    if run.budget.max_videos is not None:
        todo = todo.orderBy("modified_at", "uri").limit(run.budget.max_videos)
    taken = min(new, run.budget.max_videos or new)
    number = -(-taken // _FILES_PER_WAVE)
    done = 0
    for index in range(number):
        if not run.budget.allows(0):
            break
        done += _commit_files(run, todo.where(F.pmod(F.xxhash64("uri"), F.lit(number)) == index), done, taken)
    run.add({"deferred": new - done})
    run.deferred = new > done
    _check_sums(run)


def _check_sums(run: Run) -> None:
    parts = [
        (run.counts.get(name, 0), name) for name in ("unchanged", "duplicates", "videos_new", "quarantined", "deferred")
    ]
    said = " + ".join(f"{count} {name.replace('_', ' ')}" for count, name in parts)
    if sum(count for count, _ in parts) != run.counts["files_listed"]:
        raise RuntimeError(f"{run.counts['files_listed']} files listed are not {said}: rows were lost or doubled")
    run.say(f"{run.counts['files_listed']} files listed = {said}")


def _commit_files(run: Run, files: DataFrame, before: int, total: int) -> int:
    """One wave of files; returns how many this wave took care of."""

    def write(wave: staging.Wave) -> staging.Manifest:
        progress = storage.join(wave.folder, "progress")
        plan = ProbePlan(recipe.limits(run.settings), recipe.decoding(run.settings), TaskProgress(progress))
        parts = files.select("uri", "etag").repartition(run.spark.sparkContext.defaultParallelism)
        with Watch(run.job, progress, before, total, run.quiet):
            parts.mapInArrow(probe_files(plan), from_arrow_schema(PROBE_COLUMNS)).write.parquet(wave.data("probes"))
        probes = run.spark.read.parquet(wave.data("probes")).join(files, ["uri", "etag"])
        outputs = [
            staging.stage(run.spark, wave, VIDEOS, video_rows(probes), "videos"),
            staging.stage(run.spark, wave, FILES, file_rows(probes), "files"),
        ]
        return run.manifest(wave, outputs, {"files": outputs[1].rows})

    wave = run.next_wave()
    settled = staging.commit(run.spark, wave, write)
    landed = run.read(FILES).where(F.col("wave_id") == wave.id)
    by_reason = {row["reason"]: row["count"] for row in landed.groupBy("reason").count().collect()}
    fine = by_reason.pop(None, 0)
    # Of a file that another run read at the same time nobody knows who was first: it counts as read before.
    videos = run.read(VIDEOS).select("uri", "video_id", "wave_id")
    new = landed.join(videos.where(F.col("wave_id") == wave.id), ["uri", "video_id"]).count()
    # Could be read, but its video breaks the contract.
    broken = landed.where("status = 'ok'").join(videos, "video_id", "left_anti").count()
    files_landed = settled.landed["files"]
    run.add(
        {
            "videos_new": new,
            "duplicates": fine - new - broken,
            "unchanged": files_landed.known,
            "quarantined": sum(by_reason.values()) + broken,
            "collisions": sum(entry.collisions for entry in settled.landed.values()),
        }
        | {f"quarantined_{reason}": count for reason, count in by_reason.items()}
    )
    return files_landed.rows + files_landed.known


def read_labels(run: Run, path: str, split: str | None) -> None:
    """Publish the statements of a labels file; leaks and contradictions are quarantined and said aloud."""
    settings = run.settings.ingest
    statements = labelfile.read_statements(run.spark, path, settings, run.labels, split)

    def write(wave: staging.Wave) -> staging.Manifest:
        matched = labelfile.match(statements, run.read(FILES), settings.source)
        outputs = [
            staging.stage(run.spark, wave, LABELS, labelfile.label_rows(matched, run.task), f"labels/{run.task}"),
            staging.stage(
                run.spark,
                wave,
                SPLITS,
                labelfile.split_rows(matched, run.view("current_splits"), run.task),
                f"splits/{run.task}",
            ),
        ]
        return run.manifest(wave, outputs, {"label_rows": outputs[0].rows})

    wave = run.next_wave()
    settled = staging.commit(run.spark, wave, write)
    refused = run.read(QUARANTINE).where(F.col("wave_id") == wave.id)
    reasons = {row["reason"]: row["count"] for row in refused.groupBy("reason").count().collect()}
    waiting = run.read(LABELS).where((F.col("wave_id") == wave.id) & F.col("video_id").startswith("ext:"))
    counts = {
        "label_rows": settled.counts["label_rows"],
        "labels_new": settled.landed["labels"].rows,
        "labels_without_video": waiting.count(),
        "splits_new": settled.landed["splits"].rows,
        "split_leakage": reasons.get("split_leakage", 0),
    }
    run.add(counts | {f"refused_{reason}": count for reason, count in reasons.items()})
    run.say(
        f"{Path(path).name}: {counts['label_rows']} rows, {counts['labels_new']} labels and {counts['splits_new']} splits "
        f"new, {sum(reasons.values())} rows refused"
    )
    if counts["labels_without_video"]:
        names = [row["external_id"] for row in waiting.select("external_id").limit(_NAMES).collect()]
        run.say(f"{counts['labels_without_video']} labels wait for a video of their name: {', '.join(names)} ...")
    for reason, count in sorted(reasons.items()):
        rows = refused.where(F.col("reason") == reason).select("original", "message").limit(_NAMES).collect()
        names = ", ".join(str(json.loads(row["original"]).get("external_id")) for row in rows)
        run.say(f"refused as {reason}: {count}, for example {names}: {rows[0]['message']}; see the table quarantine")


def run(run: Run, arguments: argparse.Namespace) -> None:
    """Files first, so that the labels find them."""
    if arguments.source is None and arguments.labels is None:
        raise UsageError("ingest: give --source, --labels or both")
    if arguments.labels is not None:
        labelfile.find("--labels", arguments.labels)  # before hours of reading videos
    if arguments.source is not None:
        read_files(run, arguments.source)
    if arguments.labels is not None:
        read_labels(run, arguments.labels, arguments.split)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--source", help="folder, glob, file or s3:// URI with videos")
    parser.add_argument("--labels", help="CSV or TSV with one label a row; columns as in ingest.labels")
    parser.add_argument("--split", choices=STAGES, help="stage of every row, where the file does not say")


def main() -> int:
    return cli.main(["ingest", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
