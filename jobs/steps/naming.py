"""How statements about videos find them: by a file's name, with as many of the folders above it as it takes.

`0001`, `0001.mp4`, `b/0001` and `b/0001.mp4` are all names of /data/b/0001.mp4; a name without extension stands for any. The
views of schemas/views.py follow the same rule for what was named before its file came.
"""

from __future__ import annotations

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from schemas.views import base_of, is_called


def stem(uri: Column, extensions: tuple[str, ...]) -> Column:
    """A file's name without folder and without a known video extension: the column external_id of the table files."""
    base = F.regexp_extract(uri, r"([^/\\]*)$", 1)
    return F.regexp_replace(base, rf"(?i)\.({'|'.join(extensions)})$", "")


def name_of(cell: Column) -> Column:
    """A name as statements are kept under: folders between slashes, none before the first."""
    return F.regexp_replace(F.regexp_replace(F.trim(cell), r"\\", "/"), r"^(\./)?/*", "")


def named_videos(files: DataFrame, source: str, names: DataFrame) -> DataFrame:
    """Columns external_id, known_id, videos: how many different videos of a source have each name, and one of them.

    names: external_id, those that are asked for.
    """
    asked = names.select("external_id").distinct().withColumn("base", F.expr(base_of("external_id")))
    files = files.where((F.col("status") == "ok") & (F.col("source") == source))
    bases = F.array_distinct(F.array(F.col("external_id"), F.expr(base_of("uri"))))
    called = (
        files.select("uri", F.col("external_id").alias("stem"), "video_id", "seen_at", F.explode(bases).alias("base"))
        .join(asked, "base")
        .where(is_called("uri", "stem", "external_id"))
    )
    # A replaced file is one file: what it holds now.
    present = called.groupBy("uri", "external_id").agg(F.max_by("video_id", "seen_at").alias("video_id"))
    return present.groupBy("external_id").agg(
        F.min("video_id").alias("known_id"), F.count_distinct("video_id").alias("videos"), F.min("uri").alias("uri")
    )


def match(statements: DataFrame, files: DataFrame, source: str) -> DataFrame:
    """Adds video_id: the video whose file has that name, or an 'ext:' id until it arrives.

    Adds refused_key, refused_reason, refused_message: a row without a name is refused, and a name that several different
    videos share.
    """
    ext = F.concat(F.lit("ext:"), F.sha2(F.concat(F.lit(source + "\n"), F.col("external_id")), 256))
    ambiguous = F.coalesce(F.col("videos"), F.lit(0)) > 1
    nameless = F.coalesce(F.col("external_id"), F.lit("")) == ""
    return (
        statements.join(named_videos(files, source, statements), "external_id", "left")
        .withColumn("video_id", F.coalesce("known_id", ext))
        .withColumn("refused_key", F.concat_ws("/", F.col("source"), F.col("external_id"), F.col("row")))
        .withColumn(
            "refused_reason",
            F.when(nameless, F.lit("name_missing")).when(ambiguous, F.lit("ambiguous_name")),
        )
        .withColumn(
            "refused_message",
            F.when(
                nameless, F.format_string("row %d of %s names no video: its cell is empty", F.col("row") + 1, "source")
            ).when(
                ambiguous,
                F.format_string(
                    "%d different videos are called '%s', for example %s: name the folder, too, or the extension",
                    "videos",
                    "external_id",
                    "uri",
                ),
            ),
        )
        .drop("known_id", "videos", "uri")
    )
