"""What a night has to look at: videos without a decision, and those whose text is another one than was decided on."""

from __future__ import annotations

from dataclasses import dataclass

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.runtime.run import Run
from jobs.steps import scope, scorers
from jobs.steps.inputs import with_inputs
from jobs.steps.recipes import Recipe
from jobs.steps.scorers import Scorer
from jobs.steps.serving import refused_videos
from lake.catalog import Added
from lake.staging import Wave
from lake.waves import Work
from lake.write import stage
from schemas.inputs import INPUTS
from schemas.quarantine import QUARANTINE
from schemas.texts import TEXTS
from schemas.videos import VIDEOS


@dataclass(frozen=True)
class News:
    """What a night has to look at, None if that is nothing, and the versions of the lake up to which it then has.

    returned: video_id, input_digest, ingested_on of videos whose text is again one that was decided on, None for none.
    """

    scope: scope.Scope | None
    videos_version: int
    texts_version: int
    returned: DataFrame | None = None


def news(run: Run, scorer: Scorer | None) -> News:
    """Videos without a decision of any versions that are or were live; what a candidate tried does not count. And videos
    that the live scorer has decided with another text beside them than they have now. Writes nothing.

    Looks only at what came after the versions of `videos` and `texts` up to which an earlier night has decided everything,
    and at the days of what it left; if that is nothing, no other table is read. Where texts came, at all texts.
    """
    before = run.lake.registry.scored_up_to(run.task, scorer.id if scorer else None)
    texts = _texts_since(run, scorer, before.texts_version)
    added = run.lake.added_since(VIDEOS, before.version, before.open_days)
    if added.files == () and texts.files == ():
        return News(None, added.version, texts.version)
    fields = scorer.recipe.texts if scorer else []
    came = scope.fix(run, "came", with_inputs(run, fields, run.lake.read_added(VIDEOS, added)))
    new = came.videos.join(came.within(scorers.decided_by_promoted(run)).select("video_id"), "video_id", "left_anti")
    back = None
    if scorer and fields:
        told = run.lake.read_added(TEXTS, texts).select("video_id").unionByName(came.videos.select("video_id"))
        about = run.lake.read(VIDEOS).join(told.distinct(), "video_id", "left_semi")
        asked = scope.fix(run, "told", with_inputs(run, fields, about))
        decided = asked.within(scorers.decided_by(run, scorer))
        refused = refused_videos(asked.since(run.lake.read(QUARANTINE), "refused_at"), scorer)
        answered = decided.select(*scope.KEY).unionByName(refused)
        otherwise = asked.videos.join(answered.select("video_id").distinct(), "video_id", "left_semi")
        changed = otherwise.join(answered, list(scope.KEY), "left_anti")
        new = new.unionByName(changed).dropDuplicates(["video_id"])
        noted = run.lake.read(INPUTS).where(F.col("recipe_id") == scorer.recipe.id)
        back = returned(asked.videos, decided, noted)
    return News(scope.fix(run, "new", new), added.version, texts.version, back)


def _texts_since(run: Run, scorer: Scorer | None, version: int | None) -> Added:
    """What came into the table texts, which concerns those scorers alone whose prompts take any."""
    if scorer and scorer.recipe.texts:
        return run.lake.added_since(TEXTS, version)
    return Added(run.lake.version(TEXTS), ())


def returned(asked: DataFrame, decided: DataFrame, noted: DataFrame) -> DataFrame:
    """video_id, input_digest, ingested_on of those asked whose text was decided on before, and then another one.

    asked: with input_digest as it is now; decided: decisions of one scorer; noted: rows of the table inputs of its recipe.
    """
    last_said = decided.select("video_id", "input_digest", F.col("decided_at").alias("at"))
    last_said = last_said.unionByName(noted.select("video_id", "input_digest", F.col("noted_at").alias("at")))
    last = last_said.groupBy("video_id").agg(F.max_by("input_digest", "at").alias("last"))
    known = asked.join(decided.select("video_id", "input_digest").distinct(), ["video_id", "input_digest"], "left_semi")
    changed = known.join(last, "video_id").where(F.col("last") != F.col("input_digest"))
    return changed.select("video_id", "input_digest", "ingested_on")


def note_returned(run: Run, recipe: Recipe, rows: DataFrame) -> None:
    """Make what was decided on an earlier text current again, where a video's text has changed back to it."""
    kept = rows.localCheckpoint()
    if kept.isEmpty():
        return
    known = {"task": F.lit(run.task), "recipe_id": F.lit(recipe.id), "noted_at": F.current_timestamp()}

    def write(wave: Wave) -> Work:
        return [stage(wave, INPUTS, kept.withColumns(known))], {}

    landed = run.waves.make(write, run.record.versions).landed[INPUTS.name]
    run.record.add({"inputs_returned": landed.rows})
    run.record.say(
        f"{landed.rows:,} videos have again the text that they had before: what was decided then counts again"
    )
