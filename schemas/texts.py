"""texts: what came with a video in words (title, transcript, on-screen text), append-only; the latest statement counts."""

from schemas.checks import Contract, holds, matches, not_null
from schemas.columns import STRING, TIMESTAMP, Column
from schemas.label_set import LabelSet
from schemas.table import Table

_LONGEST = 1_000_000  # characters


def contract(labels: LabelSet) -> Contract:
    return (
        not_null("video_id"),
        not_null("field"),
        matches("field", "^[a-z0-9][a-z0-9_-]*$"),
        not_null("text"),
        holds("text_is_bounded", f"length(text) <= {_LONGEST}", f"a text of more than {_LONGEST} characters"),
        not_null("source"),
    )


TEXTS = Table(
    name="texts",
    grain="one field of text that came with a video",
    columns=(
        Column("video_id", STRING, "the video; 'ext:' + hash(source, external id) until its bytes have arrived"),
        Column("external_id", STRING, "the name under which the text was given"),
        Column("field", STRING, "title, transcript, ...: the column of the file"),
        Column("text", STRING, "as it was given; empty takes back what was said before"),
        Column("source", STRING, "where it is from: name of the file"),
        Column("observed_at", TIMESTAMP, "modification time of the file, UTC"),
        Column("wave_id", STRING, "wave that wrote the row"),
    ),
    key=("video_id", "field", "source", "observed_at"),
    contract=contract,
)
