"""splits: which stage may use a video. Frozen once given: a later claim for another stage is leakage and refused."""

from schemas.checks import Contract, not_null, one_of
from schemas.columns import STRING, TIMESTAMP, Column
from schemas.label_set import LabelSet
from schemas.table import Table

STAGES = ("align", "refine", "calibrate", "dev", "test")


def contract(labels: LabelSet) -> Contract:
    return (
        not_null("video_id"),
        not_null("task"),
        not_null("split"),
        one_of("split", STAGES),
    )


SPLITS = Table(
    name="splits",
    grain="one video of one task, given to one stage",
    columns=(
        Column("video_id", STRING, "the video; 'ext:' + hash(source, external id) until its bytes have arrived"),
        Column("external_id", STRING, "the name under which it was given"),
        Column("task", STRING, "task"),
        Column("split", STRING, " | ".join(STAGES)),
        Column("wave_id", STRING, "wave that wrote the row"),
        Column("assigned_at", TIMESTAMP, "UTC"),
    ),
    key=("video_id", "task"),
    contract=contract,
)
