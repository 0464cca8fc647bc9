"""metrics: every figure of an evaluation or a training."""

from schemas.checks import Contract, not_null
from schemas.columns import DOUBLE, LONG, STRING, TIMESTAMP, Column
from schemas.label_set import LabelSet
from schemas.table import Table


def contract(labels: LabelSet) -> Contract:
    return (
        not_null("run_id"),
        not_null("name"),
        not_null("method"),
        not_null("minus"),
        not_null("step"),
        not_null("slice"),
        not_null("value"),
    )


METRICS = Table(
    name="metrics",
    grain="one figure of one evaluation or training step",
    columns=(
        Column("run_id", STRING, "run that measured it"),
        Column("name", STRING, "what was measured: accuracy, macro_f1, ece, nll, loss ..."),
        Column("method", STRING, "whose figure: greedy, single, a calibrator's kind ..., or a phase of training"),
        Column("minus", STRING, "method whose figure was taken from it, on the same videos; empty for none"),
        Column("version", STRING, "recipe, calibrator or scorer that the figure is of; NULL for a training"),
        Column("split", STRING, "stage whose videos it is of; NULL for a training"),
        Column("step", LONG, "optimisation step; 0 for an evaluation"),
        Column("slice", STRING, "which videos: all, or fact=value"),
        Column("value", DOUBLE, "the figure"),
        Column("low", DOUBLE, "lower end of its 95 % interval; NULL where there is none, as of calibration errors"),
        Column("high", DOUBLE, "upper end of it"),
        Column("videos", LONG, "how many videos it is of; NULL for a training"),
        Column("at", TIMESTAMP, "UTC"),
    ),
    key=("run_id", "name", "method", "minus", "step", "slice"),
    contract=contract,
)
