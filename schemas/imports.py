"""imports: which names other systems' traces are about, each with the id under which its traces are kept."""

from schemas.checks import Contract, not_null
from schemas.columns import DATE, STRING, TIMESTAMP, Column
from schemas.label_set import LabelSet
from schemas.table import Table


def contract(labels: LabelSet) -> Contract:
    return (not_null("video_id"), not_null("external_id"), not_null("recipe_id"), not_null("ingested_on"))


IMPORTS = Table(
    name="imports",
    grain="one video in one import",
    columns=(
        Column("video_id", STRING, "the video; 'ext:' + hash(source, external id) where its bytes had not arrived"),
        Column("external_id", STRING, "the name in the file: a video's, with some of its folders or none"),
        Column("recipe_id", STRING, "whose traces, and how they were read"),
        Column("task", STRING, "task whose labels the traces name"),
        Column("wave_id", STRING, "wave that wrote the row"),
        Column("imported_at", TIMESTAMP, "UTC"),
        Column("ingested_on", DATE, "day on which the video was ingested, or first imported, UTC"),
    ),
    key=("video_id", "recipe_id"),
    contract=contract,
)
