"""What goes into a video's prompt beside its pictures under a recipe, and the hash that is part of a trace's key."""

from __future__ import annotations

from collections.abc import Sequence

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from jobs.runtime.run import Run
from jobs.steps.recipes import Recipe
from lake.staging import Wave
from lake.waves import Work
from lake.write import stage
from schemas.inputs import INPUTS

NO_INPUT = "0" * 16  # the digest of a video with nothing beside its pictures
_COLUMNS = ("input_text", "input_digest")
_BLANK = r"(?U)[\s\p{Cc}]+"  # of any script; a line break would forge a field
_DIRECTION = r"[\u200e\u200f\u202a-\u202e\u2066-\u2069]"  # marks that only change in which order text is shown


def fields_of(recipe: Recipe | None) -> list[tuple[str, int]]:
    """Which fields of text enter the prompts of a recipe, in order, and of how many characters at most."""
    return [(field, most) for field, most in recipe.json["texts"]["fields"]] if recipe and takes_texts(recipe) else []


def takes_texts(recipe: Recipe) -> bool:
    """Whether anything but pictures enters its prompts."""
    return "texts" in recipe.json


def with_inputs(run: Run, fields: Sequence[tuple[str, int]], videos: DataFrame) -> DataFrame:
    """Adds input_text, NULL for none, and input_digest, as of the texts in the lake now; fields: see `fields_of`."""
    if not fields:
        return videos.withColumns(dict(zip(_COLUMNS, (F.lit(None).cast("string"), F.lit(NO_INPUT)), strict=True)))
    texts = run.lake.view("current_texts").where(F.col("field").isin(*[field for field, _ in fields]))
    return attach(videos, texts, fields)


def attach(videos: DataFrame, texts: DataFrame, fields: Sequence[tuple[str, int]]) -> DataFrame:
    """The same from texts: video_id, field, text; fields as `fields_of` gives them."""
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


def returned(asked: DataFrame, decided: DataFrame, noted: DataFrame) -> DataFrame:
    """video_id, input_digest, ingested_on of those asked whose text was decided before, and then another one.

    asked: with input_digest as it is now; decided: decisions of one scorer; noted: rows of the table inputs of its recipe.
    """
    said = decided.select("video_id", "input_digest", F.col("decided_at").alias("at"))
    said = said.unionByName(noted.select("video_id", "input_digest", F.col("noted_at").alias("at")))
    last = said.groupBy("video_id").agg(F.max_by("input_digest", "at").alias("last"))
    known = asked.join(decided.select("video_id", "input_digest"), ["video_id", "input_digest"], "left_semi")
    changed = known.join(last, "video_id").where(F.col("last") != F.col("input_digest"))
    return changed.select("video_id", "input_digest", "ingested_on")


def note_returned(run: Run, recipe: Recipe, asked: DataFrame, decided: DataFrame) -> None:
    """Make the decisions on an earlier text current again where a video's text has changed back to it."""
    noted = run.lake.read(INPUTS).where(F.col("recipe_id") == recipe.id)
    rows = returned(asked, decided, noted).localCheckpoint()
    if rows.isEmpty():
        return
    known = {"task": F.lit(run.task), "recipe_id": F.lit(recipe.id), "noted_at": F.current_timestamp()}

    def write(wave: Wave) -> Work:
        return [stage(wave, INPUTS, rows.withColumns(known))], {}

    landed = run.waves.make(write, run.record.versions).landed[INPUTS.name]
    run.record.add({"inputs_returned": landed.rows})
    run.record.say(
        f"{landed.rows:,} videos have again the text that they had before: what was decided then counts again"
    )
