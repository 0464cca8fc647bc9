"""What goes into a video's prompt beside its pictures under a recipe, and the hash that is part of a trace's key."""

from __future__ import annotations

from collections.abc import Sequence

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from jobs.runtime.run import Run

NO_INPUT = "0" * 16  # the digest of a video with nothing beside its pictures
_COLUMNS = ("input_text", "input_digest")
_BLANK = r"(?U)[\s\p{Cc}]+"  # of any script; a line break would forge a field
_DIRECTION = r"[\u200e\u200f\u202a-\u202e\u2066-\u2069]"  # marks that only change in which order text is shown


def with_inputs(run: Run, fields: Sequence[tuple[str, int]], videos: DataFrame) -> DataFrame:
    """Adds input_text, NULL for none, and input_digest, as of the texts in the lake now; fields: see `Recipe.texts`."""
    if not fields:
        return videos.withColumns(dict(zip(_COLUMNS, (F.lit(None).cast("string"), F.lit(NO_INPUT)), strict=True)))
    texts = run.lake.view("current_texts").where(F.col("field").isin(*[field for field, _ in fields]))
    return attach(videos, texts, fields)


def attach(videos: DataFrame, texts: DataFrame, fields: Sequence[tuple[str, int]]) -> DataFrame:
    """The same from texts: video_id, field, text; fields as there."""
    by_field = F.map_from_entries(F.collect_list(F.struct("field", "text"))).alias("said")
    mine = texts.join(videos.select("video_id"), "video_id", "left_semi").groupBy("video_id").agg(by_field)
    lines = [_line(field, most) for field, most in fields]
    text = F.nullif(F.concat_ws("\n", *lines), F.lit(""))
    digest = F.coalesce(F.substring(F.sha2(text, 256), 1, 16), F.lit(NO_INPUT))
    return videos.join(mine, "video_id", "left").withColumns({"input_text": text, "input_digest": digest}).drop("said")


def _line(field: str, most: int) -> Column:
    """`field: text` on one line; NULL where there is no text, which concat_ws leaves out."""
    shown = F.regexp_replace(F.col("said")[field], _DIRECTION, "")
    text = F.trim(F.substring(F.trim(F.regexp_replace(shown, _BLANK, " ")), 1, most))
    return F.when(text != "", F.concat(F.lit(f"{field}: "), text))
