"""scorers: the canonical JSON behind a scorer id - which recipes, how many rollouts, which calibrator."""

from schemas.checks import Contract, matches, not_null
from schemas.columns import STRING, TIMESTAMP, Column
from schemas.label_set import LabelSet
from schemas.table import Table


def contract(labels: LabelSet) -> Contract:
    return (not_null("scorer_id"), matches("scorer_id", "^[0-9a-f]{16}$"), not_null("json"))


SCORERS = Table(
    name="scorers",
    grain="one scorer",
    columns=(
        Column("scorer_id", STRING, "hash of the canonical JSON"),
        Column("task", STRING, "task"),
        Column("json", STRING, "canonical JSON"),
        Column("created_at", TIMESTAMP, "when first used, UTC"),
    ),
    key=("scorer_id",),
    contract=contract,
)
