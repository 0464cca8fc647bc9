"""A CSV or TSV of labels, or folders named by label -> statements: rows for the tables labels, splits and facets."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import partial, reduce
from operator import or_
from pathlib import Path

from pyspark.sql import Column, DataFrame, SparkSession, Window
from pyspark.sql import functions as F

from conf.sections import NONE, Ingest, LabelFile
from jobs.runtime.errors import UsageError
from jobs.steps.naming import name_of
from jobs.steps.table_files import cell, check_columns, find, read_table
from schemas.label_set import LabelSet
from schemas.splits import STAGES

_BETWEEN = "[,;|]"  # what separates labels in one cell


def read_statements(
    spark: SparkSession,
    path: str,
    ingest: Ingest,
    labels: LabelSet,
    split: str | None,
    whole: Collection[str | None] = (),
) -> DataFrame:
    """What a file says: one row for every row of it, with the columns of `statements`.

    split: the stage of every row where the file has no such column; whole: facets of which a cell holds one alone, whatever
    marks are in it. Raises UsageError for a missing file or column, a
    label outside the task's set, an unknown stage.
    """
    entry = find("--labels", path)
    mapped = ingest.labels
    table = read_table(spark, path)
    split_column = mapped.split if mapped.split in table.columns else None
    wanted = {mapped.id: "id", mapped.label: "label"} | {name: f"facets.{name}" for name in mapped.facets}
    settings = " and ".join(f"ingest.labels.{key}" for name, key in wanted.items() if name not in table.columns)
    check_columns(path, table.columns, list(wanted), settings)
    _check_text(path, table, [mapped.id, mapped.label])
    if split is not None and split_column is not None:
        raise UsageError(
            f"--split {split}: {path} names each row's split itself, in column '{split_column}'; leave one out"
        )
    read = table.select(
        F.monotonically_increasing_id().alias("row"),
        name_of(cell(mapped.id)).alias("external_id"),
        cell(mapped.label).alias("label"),
        (cell(split_column) if split_column else F.lit(split).cast("string")).alias("split"),
        F.lit(Path(path).name).alias("source"),
        F.lit(entry.modified_at).alias("observed_at"),
        _facets(mapped.facets, whole).alias("facets"),
    )
    return statements(
        read, ingest.labels, labels, (f"{path}, column '{mapped.label}'", f"{path}, column '{split_column}'")
    )


def of_folders(listing: DataFrame, source: str, ingest: Ingest, labels: LabelSet) -> DataFrame:
    """What the folders of a source say of the files in them, by ingest.labels.folders; columns as in `statements`.

    Raises UsageError for a folder that is no label of the set, or no stage.
    """
    told = ingest.labels.folders
    above = F.slice(F.reverse(F.split("uri", "/")), 2, len(told))

    def named(what: str) -> Column:
        return above[told[::-1].index(what)] if what in told else F.lit(None).cast("string")

    read = listing.select(
        F.monotonically_increasing_id().alias("row"),
        F.col("uri").alias("external_id"),
        named("label").alias("label"),
        named("split").alias("split"),
        F.lit("folders").alias("source"),
        F.col("modified_at").alias("observed_at"),
        _facets({}).alias("facets"),
    )
    return statements(read, ingest.labels, labels, (f"{source}, folders of labels", f"{source}, folders of splits"))


def statements(read: DataFrame, mapped: LabelFile, labels: LabelSet, where: tuple[str, str]) -> DataFrame:
    """Columns row, external_id, label, labels, split, source, observed_at, facets, in this project's words.

    labels: what the row names, [label]; of independent labels what its cell lists, NONE among it, and no label; NULL where
    the cell is empty, which says nothing.
    facets: array of (name, value). where: its labels and its splits are, for messages.
    """
    where_labels, where_splits = where
    known = (*labels.slugs, NONE) if labels.independent else labels.slugs
    words = _Words(where_labels, mapped.values, known, "label", "ingest.labels.values")
    said = words.mapped(read, "label", several=labels.independent)
    if labels.independent:
        label, named = F.lit(None).cast("string"), F.when(F.size(said) > 0, said)
    else:
        label, named = said, F.when(said.isNotNull(), F.array(said))
    stages = _Words(where_splits, mapped.splits, STAGES, "split", "ingest.labels.splits")
    return read.withColumns({"label": label, "labels": named, "split": stages.mapped(read, "split")})


def _facets(columns: Mapping[str, str], whole: Collection[str | None] = ()) -> Column:
    """What some columns say of a row as an array of facts: (name, value)."""
    facts = F.array().cast("array<struct<name:string,value:string>>")
    for column, name in columns.items():
        values = F.array_compact(F.array(_given(cell(column)))) if name in whole else _parts(cell(column))
        values = F.coalesce(values, F.array().cast("array<string>"))
        facts = F.concat(facts, F.transform(values, partial(_fact, name)))
    return facts


def _fact(name: str, value: Column) -> Column:
    return F.struct(F.lit(name).alias("name"), value.alias("value"))


def _given(value: Column) -> Column:
    """What is in a cell, NULL if that is blank."""
    return F.nullif(F.trim(value), F.lit(""))


def _parts(value: Column) -> Column:
    """What a cell lists between commas, semicolons or bars."""
    trimmed = F.transform(F.split(F.trim(value), _BETWEEN), lambda part: F.trim(part))
    return F.filter(trimmed, lambda part: part != "")


def _check_text(path: str, table: DataFrame, columns: list[str]) -> None:
    odd = reduce(or_, [F.contains(cell(name), F.lit("\ufffd")) for name in columns])
    if row := table.where(odd).first():
        raise UsageError(f"--labels {path}: expected UTF-8 text, found a row that is not: {row[columns[0]]!r}")


@dataclass(frozen=True)
class _Words:
    """How a column of a file calls what is called otherwise here.

    where: they are found, for messages; words: of the file -> ours; known: ours; kind: what they name; setting: of `words`.
    """

    where: str
    words: Mapping[str, str]
    known: tuple[str, ...]
    kind: str
    setting: str

    def mapped(self, table: DataFrame, column: str, several: bool = False) -> Column:
        """The column in our words; of several in a cell, an array. Raises UsageError for a value that is strange."""
        # Accents may be written in two signs, as macOS does in names.
        words = {unicodedata.normalize("NFD", word): word for word in self.known} | dict(self.words)
        given = _given(F.col(column))
        parts = _parts(given) if several else F.array(given)
        values = table.select(F.explode(parts).alias("value")).where(F.col("value").isNotNull())
        counts = values.where(~F.col("value").isin(*words, *self.known)).groupBy("value").count()
        strange = counts.orderBy(F.desc("count")).limit(5).collect()
        if strange:
            listed = ", ".join(f"{row['value']!r} ({row['count']} rows)" for row in strange)
            raise UsageError(
                f"{self.where}: expected a {self.kind} out of {', '.join(self.known)}, found {listed}; map it under "
                f"{self.setting} or correct it there"
            )

        def own(value: Column) -> Column:
            pairs = [F.lit(word) for pair in words.items() for word in pair]
            return F.coalesce(F.create_map(*pairs)[value], value)

        return F.transform(parts, own) if several else own(given)


def united(matched: DataFrame, slugs: tuple[str, ...]) -> DataFrame:
    """Of independent labels what all rows of a video name, once for each stage that they claim for it.

    labels: in the order of the task, NONE at their end. Rows that are refused stay, and those that contradict each other.
    """
    fine = F.col("refused_reason").isNull() & F.col("video_id").isNotNull() & F.col("labels").isNotNull()
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
    empty = F.col("labels").isNull() if labels.independent else F.col("label").isNull()
    rows = _refuse(rows, empty, "label_missing", F.lit("its cell is empty, which says nothing"))
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


def facet_rows(matched: DataFrame, task: str) -> DataFrame:
    """Rows for the table facets: each fact once, of videos whose name is no riddle."""
    facts = matched.where("refused_reason IS NULL").withColumn("fact", F.explode("facets"))
    return facts.select(
        "video_id", "external_id", F.lit(task).alias("task"), "fact.*", "source", "observed_at"
    ).dropDuplicates(["video_id", "name", "value"])


def _refuse(rows: DataFrame, when: Column, reason: str, message: Column) -> DataFrame:
    """Mark rows as refused that are not refused already. The world's faults are no reason to hold the rest back."""
    fresh = F.col("refused_reason").isNull() & F.coalesce(when, F.lit(False))
    return rows.withColumn("refused_message", F.when(fresh, message).otherwise(F.col("refused_message"))).withColumn(
        "refused_reason", F.when(fresh, F.lit(reason)).otherwise(F.col("refused_reason"))
    )
