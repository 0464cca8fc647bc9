"""inputs: which text beside a video counts under a recipe, noted where it came back to one that was decided before."""

from schemas.checks import Contract, not_null
from schemas.columns import DATE, STRING, TIMESTAMP, Column
from schemas.label_set import LabelSet
from schemas.table import Table


def contract(labels: LabelSet) -> Contract:
    return (
        not_null("video_id"),
        not_null("recipe_id"),
        not_null("input_digest"),
        not_null("noted_at"),
    )


INPUTS = Table(
    name="inputs",
    grain="one return of a video's text to an earlier wording; the latest counts, and a new decision overrules it",
    columns=(
        Column("video_id", STRING, "the video"),
        Column("task", STRING, "task"),
        Column("recipe_id", STRING, "the recipe whose prompts take the text"),
        Column("input_digest", STRING, "hash of the text that counts from now on; zeros for none"),
        Column("noted_at", TIMESTAMP, "UTC"),
        Column("ingested_on", DATE, "the video's day of ingestion"),
        Column("wave_id", STRING, "wave that wrote the row"),
    ),
    key=("video_id", "recipe_id", "input_digest", "noted_at"),
    contract=contract,
)
