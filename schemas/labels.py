"""labels: statements about videos, append-only. Corrections are new rows; the view current_labels resolves."""

from schemas.checks import Contract, not_null, one_of
from schemas.columns import STRING, TIMESTAMP, Column
from schemas.table import Table


def contract(labels: tuple[str, ...]) -> Contract:
    return (
        not_null("video_id"),
        not_null("task"),
        not_null("label"),
        one_of("label", labels),
        not_null("source"),
    )


LABELS = Table(
    name="labels",
    grain="one statement about a video",
    columns=(
        Column("video_id", STRING, "the video; 'ext:' + hash(source, external id) until its bytes have arrived"),
        Column("external_id", STRING, "the name under which the statement was made"),
        Column("task", STRING, "task whose label set is meant"),
        Column("label", STRING, "slug of the label"),
        Column("source", STRING, "who says so: name of the labels file"),
        Column("observed_at", TIMESTAMP, "when it was said: modification time of the labels file, UTC"),
        Column("wave_id", STRING, "wave that wrote the row"),
    ),
    key=("video_id", "task", "source", "observed_at"),
    contract=contract,
)
