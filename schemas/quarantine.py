"""quarantine: rows that a contract refused, with why and with all their values."""

from schemas.checks import Contract, not_null
from schemas.columns import STRING, TIMESTAMP, Column
from schemas.label_set import LabelSet
from schemas.table import Table


def contract(labels: LabelSet) -> Contract:
    return (not_null("row_key"), not_null("wave_id"), not_null("table"), not_null("reason"))


QUARANTINE = Table(
    name="quarantine",
    grain="one refused row",
    columns=(
        Column("row_key", STRING, "the key of the refused row, its parts joined by '/'; of a file its uri"),
        Column("wave_id", STRING, "wave that refused it"),
        Column("table", STRING, "table it was meant for"),
        Column("reason", STRING, "short code: the failed check, or why a file could not be read"),
        Column("message", STRING, "what was expected and what was found"),
        Column("original", STRING, "the row's values, JSON"),
        Column("refused_at", TIMESTAMP, "UTC"),
    ),
    key=("row_key", "wave_id", "table"),
    contract=contract,
    partition_by=("table",),
)
