"""Facets: facts about videos by which figures are told apart, as the settings name them."""

from __future__ import annotations

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.runtime.run import Run


def values(run: Run, name: str) -> DataFrame:
    """video_id, value: of one facet; a video may have several."""
    facets = run.lake.view("current_facets").where((F.col("task") == run.task) & (F.col("name") == name))
    return facets.select("video_id", "value")


def slices(run: Run) -> DataFrame:
    """video_id, slices: array of (name, value) of the facets in evaluate.slices."""
    facets = run.lake.view("current_facets").where(F.col("task") == run.task)
    wanted = facets.where(F.col("name").isin(*run.settings.evaluate.slices))
    return wanted.groupBy("video_id").agg(F.collect_set(F.struct("name", "value")).alias("slices"))


def clusters(run: Run) -> DataFrame:
    """video_id, cluster: what videos share that are no independent evidence (evaluate.cluster); of others no row. Of a video
    with several values, the first one."""
    name = run.settings.evaluate.cluster
    if name is None:
        return run.lake.spark.createDataFrame([], "video_id string, cluster string")
    return values(run, name).groupBy("video_id").agg(F.min("value").alias("cluster"))
