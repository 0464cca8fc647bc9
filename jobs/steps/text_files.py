"""A CSV or TSV with text beside videos -> rows for the table texts, each tied to a video or to its name."""

from __future__ import annotations

import re
from pathlib import Path

from pyspark.sql import DataFrame, SparkSession, Window
from pyspark.sql import functions as F

from conf.sections import Ingest
from jobs.runtime.errors import UsageError
from jobs.runtime.run import Run
from jobs.steps.naming import match, name_of
from jobs.steps.table_files import cell, check_columns, find, read_table
from lake.staging import Wave
from lake.waves import Work
from lake.write import stage
from schemas.files import FILES
from schemas.texts import TEXTS

_FIELD = re.compile(r"[a-z0-9][a-z0-9_-]*")


def read_statements(spark: SparkSession, path: str, ingest: Ingest) -> DataFrame:
    """Columns row, external_id, field, text, source, observed_at; one row for every cell. An empty one says that there is
    no such text (any more).

    Raises UsageError for a missing file or column, and for a column whose name is no field and that is not mapped.
    """
    entry = find("--texts", path)
    table = read_table(spark, path)
    mapped = ingest.texts
    check_columns(path, table.columns, [mapped.id, *mapped.fields], "ingest.texts.id and ingest.texts.fields")
    fields = mapped.fields or {name: name for name in table.columns if name != mapped.id}
    odd = [name for name in fields.values() if not _FIELD.fullmatch(name)]
    if odd or not fields:
        found = f"{', '.join(map(repr, odd))}: map it under ingest.texts.fields" if odd else f"only '{mapped.id}'"
        raise UsageError(f"{path}: expected columns named like title or on_screen beside '{mapped.id}', found {found}")
    cells = F.explode(
        F.array(
            *[
                F.struct(F.lit(field).alias("field"), F.coalesce(cell(name), F.lit("")).alias("text"))
                for name, field in fields.items()
            ]
        )
    )
    return (
        table.select(
            F.monotonically_increasing_id().alias("row"),
            name_of(cell(mapped.id)).alias("external_id"),
            cells.alias("cell"),
        )
        .select("row", "external_id", "cell.*")
        .withColumns({"source": F.lit(Path(path).name), "observed_at": F.lit(entry.modified_at)})
    )


def given(run: Run, path: str | None) -> DataFrame | None:
    """What a file states, None without one. Raises Held where its texts could not be published, UsageError as above."""
    if path is None:
        return None
    run.waves.must_be_open(TEXTS)
    return read_statements(run.lake.spark, path, run.settings.ingest)


def changes(matched: DataFrame, current: DataFrame) -> DataFrame:
    """Of statements that found their video those that say something new; refused_*: what cannot be taken.

    matched: as `match` gives them; current: the view current_texts. Of rows about one video and field the first that says
    something counts.
    """
    now = current.select("video_id", "field", F.col("text").alias("now"))
    fine = F.col("refused_reason").isNull()
    blank = F.col("text") == ""
    place = F.row_number().over(Window.partitionBy("video_id", "field", fine).orderBy(blank, "external_id", "row"))
    news = (
        matched.withColumn("place", place)
        .join(now, ["video_id", "field"], "left")
        .where(~fine | ((F.coalesce("now", F.lit("")) != F.col("text")) & ((F.col("place") == 1) | ~blank)))
        .drop("now")
    )
    odd = F.col("text").contains("\ufffd")
    again = fine & (F.col("place") > 1)
    reason = F.when(again, F.lit("said_twice")).when(odd, F.lit("not_utf8"))
    message = F.when(again, F.lit("an earlier row of the file speaks of this field of the video already"))
    message = message.when(
        odd, F.lit("expected UTF-8 text, found a character that stands for one that could not be read")
    )
    return news.withColumns(
        {
            "refused_reason": F.coalesce("refused_reason", reason),
            "refused_message": F.coalesce("refused_message", message),
        }
    ).drop("place")


def take_in(run: Run, path: str, statements: DataFrame) -> None:
    """Publish what a file says anew; what cannot be taken is quarantined and said aloud."""

    def write(wave: Wave) -> Work:
        matched = match(statements, run.lake.read(FILES), run.settings.ingest.source)
        return [stage(wave, TEXTS, changes(matched, run.lake.view("current_texts")).drop("row"))], {}

    settled = run.waves.make(write, run.record.versions)
    landed, refused = settled.landed[TEXTS.name], settled.refused(TEXTS)
    waiting = run.lake.read_files(TEXTS, landed.files).where(F.col("video_id").startswith("ext:"))
    counts = {"texts": landed.rows, "texts_refused": refused, "texts_without_video": waiting.count()}
    run.record.add(counts)
    reasons = "".join(f", {count:,} as {reason}" for reason, count in sorted(settled.reasons[TEXTS.name].items()))
    run.record.say(
        f"{Path(path).name}: {landed.rows:,} texts are new or changed, of which {counts['texts_without_video']:,} wait for "
        f"a video of their name; {refused:,} refused{reasons}; the rest is as before"
    )
