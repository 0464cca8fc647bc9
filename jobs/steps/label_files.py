"""A CSV or TSV of labels -> statements: rows for the tables labels and splits, each tied to a video or to its name."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from itertools import islice
from pathlib import Path

from pyspark.sql import Column, DataFrame, SparkSession, Window
from pyspark.sql import functions as F

from conf.settings import NONE, Ingest
from jobs.runtime.errors import UsageError
from lake import storage
from lake.listing import walk
from schemas.label_set import LabelSet
from schemas.splits import STAGES

_BETWEEN = "[,;|]"  # what separates labels in one cell


def external_id(name: Column, extensions: tuple[str, ...]) -> Column:
    """A file's name without folder and without a known video extension: what files and labels are matched by."""
    base = F.regexp_extract(name, r"([^/\\]*)$", 1)
    return F.regexp_replace(base, rf"(?i)\.({'|'.join(extensions)})$", "")


def read_statements(spark: SparkSession, path: str, ingest: Ingest, labels: LabelSet, split: str | None) -> DataFrame:
    """Columns row, external_id, label, labels, split, source, observed_at; one row for every row of the file.

    labels: what the row names, [label] or NULL; of independent labels what its cell lists, NONE among it, and no label.

    split: the stage of every row where the file has no such column. Raises UsageError for a missing file or column, a
    label outside the task's set, an unknown stage.
    """
    entry = find("--labels", path)
    mapped = ingest.labels
    table = read_table(spark, path)
    split_column = mapped.split if mapped.split in table.columns else None
    check_columns(path, table.columns, [mapped.id, mapped.label], "ingest.labels.id and ingest.labels.label")
    _check_text(path, table, [mapped.id, mapped.label])
    if split is not None and split_column is not None:
        raise UsageError(
            f"--split {split}: {path} names each row's split itself, in column '{split_column}'; leave one out"
        )
    known = (*labels.slugs, NONE) if labels.independent else labels.slugs
    said = _mapped(
        path, table, mapped.label, mapped.values, known, "label", "ingest.labels.values", several=labels.independent
    )
    if labels.independent:
        label, named = F.lit(None).cast("string"), F.when(F.size(said) > 0, said).otherwise(F.array(F.lit(NONE)))
    else:
        label, named = said, F.when(said.isNotNull(), F.array(said))
    return table.select(
        F.monotonically_increasing_id().alias("row"),
        external_id(F.col(f"`{mapped.id}`"), ingest.extensions).alias("external_id"),
        label.alias("label"),
        named.alias("labels"),
        (
            _mapped(path, table, split_column, mapped.splits, STAGES, "split", "ingest.labels.splits")
            if split_column
            else F.lit(split).cast("string")
        ).alias("split"),
        F.lit(Path(path).name).alias("source"),
        F.lit(entry.modified_at).alias("observed_at"),
    )


def read_table(spark: SparkSession, path: str) -> DataFrame:
    """A CSV, or a TSV by its name, with a line of column names; cells may hold line breaks between quotes."""
    separator = "\t" if path.lower().endswith(".tsv") else ","
    return spark.read.csv(storage.absolute(path), header=True, sep=separator, multiLine=True, escape='"')


def find(flag: str, path: str) -> storage.Entry:
    """The file given with a flag as its store lists it. Raises UsageError if there is none, or if it is no text."""
    listed = list(islice(walk(path), 2)) if storage.exists(path) else []
    if not listed:
        raise UsageError(f"{flag} {path}: no such file")
    if len(listed) > 1 or listed[0].uri.rpartition("/")[2] != path.rstrip("/").rpartition("/")[2]:
        raise UsageError(f"{flag} {path}: expected one CSV or TSV file, found a folder")
    if b"\0" in storage.read_start(path, 4096):
        raise UsageError(f"{flag} {path}: expected CSV or TSV as UTF-8 text, found binary data or another encoding")
    return listed[0]


def _check_text(path: str, table: DataFrame, columns: list[str]) -> None:
    odd = table.where(" OR ".join(f"contains(`{name}`, '\ufffd')" for name in columns))
    if row := odd.first():
        raise UsageError(f"--labels {path}: expected UTF-8 text, found a row that is not: {row[columns[0]]}")


def check_columns(path: str, found: list[str], wanted: list[str], settings: str) -> None:
    """Raises UsageError for a column that is missing; settings: those that name the columns to use."""
    missing = [name for name in wanted if name not in found]
    if not found:
        raise UsageError(f"{path}: expected a line with the names of the columns, found an empty file")
    if len(found) == 1 and (other := next((mark for mark in ";|\t" if mark in found[0]), None)):
        raise UsageError(
            f"{path}: expected columns separated by {'tabs' if path.lower().endswith('.tsv') else 'commas'}, found "
            f"{other!r}: save it as CSV with commas, or as .tsv with tabs"
        )
    if missing:
        raise UsageError(
            f"{path}: expected a column {' and '.join(repr(name) for name in missing)}, found {', '.join(found)}; "
            f"set {settings} to the columns to use"
        )


def _mapped(
    path: str,
    table: DataFrame,
    column: str,
    words: Mapping[str, str],
    known: tuple[str, ...],
    kind: str,
    setting: str,
    several: bool = False,
) -> Column:
    """The column in this project's words; of several in a cell, an array. Raises UsageError for a value that is strange."""
    # Accents may be written in two signs, as macOS does in names.
    words = {unicodedata.normalize("NFD", word): word for word in known} | dict(words)
    cell = F.trim(F.col(f"`{column}`"))
    parts = F.array(cell)
    if several:
        trimmed = F.transform(F.split(cell, _BETWEEN), lambda part: F.trim(part))
        parts = F.filter(trimmed, lambda part: part != "")
    values = table.select(F.explode(parts).alias("value")).where(F.col("value").isNotNull())
    counts = values.where(~F.col("value").isin(*words, *known)).groupBy("value").count()
    strange = counts.orderBy(F.desc("count")).limit(5).collect()
    if strange:
        listed = ", ".join(f"'{row['value']}' ({row['count']} rows)" for row in strange)
        raise UsageError(
            f"{path}, column '{column}': expected a {kind} out of {', '.join(known)}, found {listed}; "
            f"map it under {setting} or correct the file"
        )

    def own(value: Column) -> Column:
        pairs = [F.lit(word) for pair in words.items() for word in pair]
        return F.coalesce(F.create_map(*pairs)[value], value)

    return F.transform(parts, own) if several else own(cell)


def named_videos(files: DataFrame, source: str, names: DataFrame) -> DataFrame:
    """Columns external_id, known_id, videos: how many different videos of a source have each name, and one of them.

    names: external_id, those that are asked for.
    """
    present = (  # a replaced file is one file: what it holds now
        files.where((F.col("status") == "ok") & (F.col("source") == source))
        .join(names.select("external_id").distinct(), "external_id", "left_semi")
        .groupBy("uri", "external_id")
        .agg(F.max_by("video_id", "seen_at").alias("video_id"))
    )
    return present.groupBy("external_id").agg(
        F.min("video_id").alias("known_id"), F.count_distinct("video_id").alias("videos")
    )


def match(statements: DataFrame, files: DataFrame, source: str) -> DataFrame:
    """Adds video_id: the video whose file has that name, or an 'ext:' id until it arrives.

    Adds refused_key, refused_reason, refused_message: a name that several different videos share is refused.
    """
    ext = F.concat(F.lit("ext:"), F.sha2(F.concat(F.lit(source + "\n"), F.col("external_id")), 256))
    ambiguous = F.coalesce(F.col("videos"), F.lit(0)) > 1
    return (
        statements.join(named_videos(files, source, statements), "external_id", "left")
        .withColumn("video_id", F.coalesce("known_id", ext))
        .withColumn("refused_key", F.concat_ws("/", F.col("source"), F.col("external_id"), F.col("row")))
        .withColumn("refused_reason", F.when(ambiguous, F.lit("ambiguous_name")))
        .withColumn(
            "refused_message",
            F.when(ambiguous, F.format_string("%d different videos are called '%s'", "videos", "external_id")),
        )
        .drop("known_id", "videos")
    )


def united(matched: DataFrame, slugs: tuple[str, ...]) -> DataFrame:
    """Of independent labels what all rows of a video name, once for each stage that they claim for it.

    labels: in the order of the task, NONE at their end. Rows that are refused stay, and those that contradict each other.
    """
    fine = F.col("refused_reason").isNull() & F.col("video_id").isNotNull()
    of_video = F.flatten(F.collect_list(F.when(fine, F.col("labels"))).over(Window.partitionBy("video_id")))
    in_order = F.filter(F.array(*[F.lit(slug) for slug in (*slugs, NONE)]), lambda slug: F.array_contains("said", slug))
    place = F.row_number().over(Window.partitionBy("video_id", "split", fine).orderBy("row"))
    return (
        matched.withColumn("said", of_video)
        .withColumn("labels", F.when(fine, in_order).otherwise(F.col("labels")))
        .withColumn("place", place)
        .where((F.col("place") == 1) | ~fine | _contradicts_itself())
        .drop("said", "place")
    )


def _contradicts_itself() -> Column:
    return F.array_contains("labels", NONE) & (F.size("labels") > 1)


def label_rows(matched: DataFrame, task: str, labels: LabelSet) -> DataFrame:
    """Rows for the table labels. A file that contradicts itself about a video is believed in nothing of it.

    That is several labels, or, where they are independent (matched: as `united` gives it), NONE beside a label.
    """
    if labels.independent:
        rows, contradicted, told = matched, _contradicts_itself(), F.array_remove("labels", NONE)
        said = F.col("labels")
    else:
        fine = F.when(F.col("refused_reason").isNull(), F.col("label"))
        rows = matched.withColumn("said", F.array_sort(F.collect_set(fine).over(Window.partitionBy("video_id"))))
        said, told = F.col("said"), F.col("labels")
        contradicted = (F.size("said") > 1) & F.col("label").isNotNull()
    message = F.format_string("the file says of this video: %s", F.concat_ws(", ", said))
    return _refuse(rows, contradicted, "label_contradicted", message).select(
        "video_id",
        "external_id",
        F.lit(task).alias("task"),
        "label",
        told.alias("labels"),
        "source",
        "observed_at",
        "refused_key",
        "refused_reason",
        "refused_message",
    )


def split_rows(matched: DataFrame, held: DataFrame, task: str) -> DataFrame:
    """Rows for the table splits. A video stays in the stage that had it first, before this file or further up in it."""
    mine = held.where(F.col("task") == task).join(matched.select("video_id").distinct(), "video_id", "left_semi")
    frozen = mine.select("video_id", F.col("split").alias("frozen"))
    further_up = F.first("split").over(Window.partitionBy("video_id").orderBy("row"))
    claims = matched.where("split IS NOT NULL AND refused_reason IS NULL").join(frozen, "video_id", "left")
    return _refuse(
        claims.withColumn("held", F.coalesce("frozen", further_up)),
        F.col("held") != F.col("split"),
        "split_leakage",
        F.format_string("the video is in the split '%s' and stays there, it cannot be in '%s' too", "held", "split"),
    ).select(
        "video_id",
        "external_id",
        F.lit(task).alias("task"),
        "split",
        F.current_timestamp().alias("assigned_at"),
        "refused_key",
        "refused_reason",
        "refused_message",
    )


def _refuse(rows: DataFrame, when: Column, reason: str, message: Column) -> DataFrame:
    """Mark rows as refused that are not refused already. The world's faults are no reason to hold the rest back."""
    fresh = F.col("refused_reason").isNull() & F.coalesce(when, F.lit(False))
    return rows.withColumn("refused_message", F.when(fresh, message).otherwise(F.col("refused_message"))).withColumn(
        "refused_reason", F.when(fresh, F.lit(reason)).otherwise(F.col("refused_reason"))
    )
