"""facets: facts about videos by which figures are told apart, append-only; the latest statement on one counts."""

from schemas.checks import Contract, holds, matches, not_null
from schemas.columns import STRING, TIMESTAMP, Column
from schemas.label_set import LabelSet
from schemas.table import Table

_LONGEST = 1_000  # characters


def contract(labels: LabelSet) -> Contract:
    return (
        not_null("video_id"),
        not_null("task"),
        not_null("name"),
        matches("name", "^[a-z0-9][a-z0-9_-]*$"),
        not_null("value"),
        holds("value_is_bounded", f"length(value) <= {_LONGEST}", f"a value of more than {_LONGEST} characters"),
        not_null("source"),
    )


FACETS = Table(
    name="facets",
    grain="one value of one fact about a video",
    columns=(
        Column("video_id", STRING, "the video; 'ext:' + hash(source, external id) until its bytes have arrived"),
        Column("external_id", STRING, "the name under which it was said"),
        Column("task", STRING, "task"),
        Column("name", STRING, "which fact: kind, camera, writer ..."),
        Column("value", STRING, "one of its values; a video may have several"),
        Column("source", STRING, "who says so: name of the labels file"),
        Column("observed_at", TIMESTAMP, "modification time of the labels file, UTC"),
        Column("wave_id", STRING, "wave that wrote the row"),
    ),
    key=("video_id", "task", "name", "value", "source", "observed_at"),
    contract=contract,
)
