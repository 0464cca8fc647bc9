"""What goes into a video's prompt beside its pictures under a recipe, and the hash that is part of a trace's key."""

from __future__ import annotations

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from jobs.runtime.run import Run
from jobs.steps.recipes import Recipe

NO_INPUT = "0" * 16  # the digest of a video with nothing beside its pictures


def takes_texts(recipe: Recipe) -> bool:
    """Whether anything but pictures enters its prompts."""
    return bool(recipe.json.get("texts"))


def with_inputs(run: Run, recipe: Recipe | None, videos: DataFrame) -> DataFrame:
    """Adds input_text, NULL for none, and input_digest, as of the texts in the lake now.

    recipe: says which fields enter, in which order, and of how many characters each; None, and one without texts: none.
    """
    fields = recipe.json.get("texts") if recipe else None
    if not fields:
        return videos.withColumns(dict(zip(_COLUMNS, (F.lit(None).cast("string"), F.lit(NO_INPUT)), strict=True)))
    texts = run.lake.view("current_texts").where(F.col("field").isin(*fields))
    return attach(videos, texts, fields)


def attach(videos: DataFrame, texts: DataFrame, fields: dict[str, int]) -> DataFrame:
    """The same from texts: video_id, field, text; fields: name -> most characters."""
    by_field = F.map_from_entries(F.collect_list(F.struct("field", "text"))).alias("said")
    mine = texts.join(videos.select("video_id"), "video_id", "left_semi").groupBy("video_id").agg(by_field)
    lines = [_line(field, most) for field, most in fields.items()]
    text = F.nullif(F.concat_ws("\n", *lines), F.lit(""))
    digest = F.coalesce(F.substring(F.sha2(text, 256), 1, 16), F.lit(NO_INPUT))
    return videos.join(mine, "video_id", "left").withColumns({"input_text": text, "input_digest": digest}).drop("said")


def _line(field: str, most: int) -> Column:
    """`field: text` on one line; NULL where there is no text, which concat_ws leaves out."""
    text = F.substring(F.trim(F.regexp_replace(F.col("said")[field], r"\s+", " ")), 1, most)
    return F.when(text != "", F.concat(F.lit(f"{field}: "), text))


_COLUMNS = ("input_text", "input_digest")
