"""scores: probabilities of one video, with the text beside it, under one scorer."""

from schemas.checks import Contract, between, holds, not_null
from schemas.columns import DATE, DOUBLE, INT, STRING, TIMESTAMP, Column, mapping
from schemas.label_set import LabelSet
from schemas.table import Reference, Table


def contract(labels: LabelSet) -> Contract:
    listed = ", ".join(f"'{label}'" for label in sorted(labels.slugs))
    each = "forall(map_values(probs), p -> p >= 0 AND p <= 1)"
    total = "abs(aggregate(map_values(probs), 0D, (a, p) -> a + p) - 1) < 1e-6"
    return (
        not_null("video_id"),
        not_null("scorer_id"),
        not_null("input_digest"),
        not_null("probs"),
        holds("probs_cover_the_labels", f"array_sort(map_keys(probs)) = array({listed})", "probs miss a label"),
        holds("probs_are_probabilities", each, "a probability is outside [0, 1]")
        if labels.independent
        else holds("probs_sum_to_one", f"{total} AND {each}", "probs are not probabilities that sum to 1"),
        between("rollouts", 1),
        not_null("ingested_on"),
    )


SCORES = Table(
    name="scores",
    grain="one video, with the text beside it, under one scorer",
    columns=(
        Column("video_id", STRING, "the video"),
        Column("task", STRING, "task"),
        Column("scorer_id", STRING, "which traces, calibrator and calibration"),
        Column(
            "input_digest", STRING, "hash of the text beside the pictures in the prompt of its traces; zeros for none"
        ),
        Column(
            "probs",
            mapping(STRING, DOUBLE),
            "probability by label slug; exclusive ones sum to 1",
        ),
        Column("rollouts", INT, "traces looked at"),
        Column("rollouts_ok", INT, "traces with status ok"),
        Column("agreement", DOUBLE, "share of the traces that gave the most frequent answer"),
        Column("wave_id", STRING, "wave that wrote the row"),
        Column("scored_at", TIMESTAMP, "UTC"),
        Column("ingested_on", DATE, "day on which the video was ingested, UTC"),
    ),
    key=("video_id", "scorer_id", "input_digest"),
    contract=contract,
    partition_by=("scorer_id", "ingested_on"),
    references=(Reference(("video_id", "input_digest"), ("traces",)), Reference(("scorer_id",), ("scorers",))),
)
