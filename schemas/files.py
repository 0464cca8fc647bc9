"""files: what was seen where. An unchanged file (same uri, same etag) is not read again."""

from schemas.checks import Contract, holds, not_null, one_of
from schemas.columns import LONG, STRING, TIMESTAMP, Column
from schemas.label_set import LabelSet
from schemas.rates import Rates, share
from schemas.table import Table


def contract(labels: LabelSet) -> Contract:
    return (
        not_null("uri"),
        not_null("etag"),
        not_null("status"),
        one_of("status", ("ok", "refused")),
        holds(
            "content_or_reason_is_given",
            "(status = 'ok' AND video_id IS NOT NULL) OR (status = 'refused' AND reason IS NOT NULL)",
            "an accepted file must name its video, a refused one its reason",
        ),
    )


_REFUSED = share(
    "few_are_refused",
    "status = 'refused'",
    "share of files read that cannot be taken for a video",
    most=0.5,
    rise=0.3,
    floor=0.2,
)

FILES = Table(
    name="files",
    grain="one uri seen at a source in one state",
    columns=(
        Column("uri", STRING, "where the file lies"),
        Column("etag", STRING, "changes when the file changes: size and modification time, or the store's own"),
        Column("source", STRING, "name of the source, part of external ids"),
        Column("external_id", STRING, "the file's name without folder and extension"),
        Column("size", LONG, "bytes"),
        Column("modified_at", TIMESTAMP, "the store's modification time, UTC"),
        Column("status", STRING, "ok | refused"),
        Column("reason", STRING, "why it was refused; NULL if it was not"),
        Column("video_id", STRING, "the content it held; NULL if that could not be read"),
        Column("wave_id", STRING, "wave that wrote the row"),
        Column("seen_at", TIMESTAMP, "when it was read, UTC"),
    ),
    key=("uri", "etag"),
    contract=contract,
    rates=lambda labels: Rates(made_by="source", of_rows=(_REFUSED,), unit="uri"),
)
