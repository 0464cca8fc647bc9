"""quality: what each check of a contract, and each rate of a wave as a whole, found on each wave."""

from schemas.checks import Contract, between, not_null, one_of
from schemas.columns import BOOLEAN, LONG, STRING, TIMESTAMP, Column
from schemas.label_set import LabelSet
from schemas.table import Table

SEVERITIES = ("refuse", "stop", "warn")


def contract(labels: LabelSet) -> Contract:
    return (
        not_null("wave_id"),
        not_null("table"),
        not_null("check"),
        not_null("success"),
        between("unexpected", 0),
        not_null("severity"),
        one_of("severity", SEVERITIES),
    )


QUALITY = Table(
    name="quality",
    grain="one check, or one rate of one maker, on one wave",
    columns=(
        Column("wave_id", STRING, "wave"),
        Column("table", STRING, "table whose contract it is"),
        Column("check", STRING, "what good rows satisfy"),
        Column("about", STRING, "whose rows a rate is of: a recipe, a scorer; empty where it is of all"),
        Column("severity", STRING, "what a failure does: refuse (the rows) | stop (the wave) | warn"),
        Column("success", BOOLEAN, "whether every row did; of a rate, whether it is within its limits"),
        Column("unexpected", LONG, "rows that did not; of a rate what it counts: rows, or the total of a mean"),
        Column("rows", LONG, "rows looked at"),
        Column("units", LONG, "of a rate: what is independent among these rows, videos as a rule"),
        Column("expected", STRING, "what every row has to satisfy; of a rate its limits, and what was found"),
        Column("checked_at", TIMESTAMP, "UTC"),
    ),
    key=("wave_id", "table", "check", "about"),
    contract=contract,
)
