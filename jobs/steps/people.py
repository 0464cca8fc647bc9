"""What people made of the videos that were left to them: labels that came after a decision had abstained."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from pyspark.sql import functions as F

from jobs.runtime.run import Run


@dataclass(frozen=True)
class Looks:
    """decided: videos that have a decision; left_to_people: those of which it abstained; reviewed: those of these that have
    a label since; disagreed: those of these where it is another than the likeliest one."""

    decided: int
    left_to_people: int
    reviewed: int
    disagreed: int

    def json(self) -> dict[str, int]:
        return asdict(self)

    def __str__(self) -> str:
        share = f" ({self.disagreed / self.reviewed:.0%})" if self.reviewed else ""
        return (
            f"{self.left_to_people:,} of {self.decided:,} decided videos were left to people, who labelled "
            f"{self.reviewed:,} of them since, {self.disagreed:,}{share} otherwise than was likeliest"
        )


def looks(run: Run) -> Looks:
    """As the lake is now, over all videos of the task."""
    likeliest = "prediction_set[0] = said[0]"
    if run.label_set.independent:
        likeliest = "array_sort(map_keys(map_filter(probs, (label, p) -> p >= 0.5))) = array_sort(said)"
    mine = F.col("task") == run.task
    all_decided = run.lake.view("current_scores").where(mine)
    counts = all_decided.agg(F.count("*").alias("decided"), F.count_if("abstain").alias("left_to_people")).collect()
    said = run.lake.view("reviewed").where(mine)
    of_said = said.agg(F.count("*").alias("reviewed"), F.count_if(~F.expr(likeliest)).alias("disagreed")).collect()
    return Looks(**counts[0].asDict(), **of_said[0].asDict())
