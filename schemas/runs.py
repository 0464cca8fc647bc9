"""runs: what each job run did - a row when it starts, one per committed wave, one when it ends."""

from schemas.checks import Contract, matches, not_null
from schemas.columns import DOUBLE, LONG, STRING, TIMESTAMP, Column, mapping
from schemas.label_set import LabelSet
from schemas.table import Table


def contract(labels: LabelSet) -> Contract:
    return (
        not_null("run_id"),
        not_null("event"),
        matches("event", "^(started|finished|deferred|held|failed|wave .+)$"),
        not_null("job"),
    )


RUNS = Table(
    name="runs",
    grain="one event of one job run",
    columns=(
        Column("run_id", STRING, "job, start time and a random part"),
        Column("event", STRING, "started | wave ID | finished | deferred | held | failed"),
        Column("job", STRING, "name of the job"),
        Column("task", STRING, "task"),
        Column("at", TIMESTAMP, "UTC"),
        Column("seconds", DOUBLE, "since the run (or the wave) began"),
        Column("versions", mapping(STRING, STRING), "recipe, scorer, calibrator, rule, library versions"),
        Column("counts", mapping(STRING, LONG), "rows in and out, tokens, engines constructed, collisions"),
        Column("message", STRING, "one line for people"),
    ),
    key=("run_id", "event"),
    contract=contract,
)
