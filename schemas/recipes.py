"""recipes: the canonical JSON behind a recipe id, the identity of everything that decides what a rollout says."""

from schemas.checks import Contract, matches, not_null
from schemas.columns import STRING, TIMESTAMP, Column
from schemas.label_set import LabelSet
from schemas.table import Table


def contract(labels: LabelSet) -> Contract:
    return (not_null("recipe_id"), matches("recipe_id", "^[0-9a-f]{16}$"), not_null("json"))


RECIPES = Table(
    name="recipes",
    grain="one recipe",
    columns=(
        Column("recipe_id", STRING, "hash of the canonical JSON"),
        Column("task", STRING, "task"),
        Column("json", STRING, "canonical JSON"),
        Column("created_at", TIMESTAMP, "when first used, UTC"),
    ),
    key=("recipe_id",),
    contract=contract,
)
