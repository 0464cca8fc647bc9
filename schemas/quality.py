"""quality: what each check of a contract found on each wave."""

from schemas.checks import Contract, between, not_null
from schemas.columns import BOOLEAN, LONG, STRING, TIMESTAMP, Column
from schemas.label_set import LabelSet
from schemas.table import Table


def contract(labels: LabelSet) -> Contract:
    return (
        not_null("wave_id"),
        not_null("table"),
        not_null("check"),
        not_null("success"),
        between("unexpected", 0),
    )


QUALITY = Table(
    name="quality",
    grain="one check of one contract on one wave",
    columns=(
        Column("wave_id", STRING, "wave"),
        Column("table", STRING, "table whose contract it is"),
        Column("check", STRING, "what good rows satisfy"),
        Column("success", BOOLEAN, "whether every row did"),
        Column("unexpected", LONG, "rows that did not"),
        Column("rows", LONG, "rows looked at"),
        Column("expected", STRING, "what every row has to satisfy"),
        Column("checked_at", TIMESTAMP, "UTC"),
    ),
    key=("wave_id", "table", "check"),
    contract=contract,
)
