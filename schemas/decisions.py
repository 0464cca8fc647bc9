"""decisions: what a rule made of a score. Another threshold is another rule, and costs no model pass."""

from schemas.checks import Contract, between, holds, not_null, one_of, some_of
from schemas.columns import BOOLEAN, DATE, DOUBLE, STRING, TIMESTAMP, Column, array
from schemas.label_set import LabelSet
from schemas.rates import Rates, share
from schemas.table import Reference, Table

REASONS = ("clear", "below_threshold", "review_is_cheaper", "no_usable_trace")


def contract(labels: LabelSet) -> Contract:
    told: Contract = (
        (
            holds("label_is_left_out", "label IS NULL", "a label beside labels that are independent"),
            holds("abstains_or_labels", "abstain = (labels IS NULL)", "a decision either gives labels or abstains"),
        )
        if labels.independent
        else (
            one_of("label", labels.slugs),
            holds("abstains_or_labels", "abstain = (label IS NULL)", "a decision either names a label or abstains"),
            holds(
                "labels_are_the_label",
                "labels = IF(label IS NULL, array(), array(label))",
                "labels are not the label alone",
            ),
            holds("prediction_set_is_not_empty", "size(prediction_set) > 0", "the prediction set is empty"),
        )
    )
    return (
        not_null("video_id"),
        not_null("scorer_id"),
        not_null("input_digest"),
        not_null("rule_id"),
        *told,
        some_of("labels", labels.slugs),
        one_of("reason", REASONS),
        between("top_prob", 0, 1),
        not_null("prediction_set"),
        not_null("ingested_on"),
    )


def rates(labels: LabelSet) -> Rates:
    """Another mix than before may be the world's, or the model's: a person looks, nothing waits."""
    shares = {"abstains_as_before": ("abstain", "share of decisions that abstain")}
    for label in labels.slugs:
        given = f"array_contains(labels, '{label}')"
        shares[f"{label}_as_often_as_before"] = (given, f"share of decisions with the label {label}")
    return Rates(
        made_by="concat_ws('/', scorer_id, rule_id)",
        of_rows=tuple(
            share(name, what, told, rise=0.2, both_ways=True, severity="warn") for name, (what, told) in shares.items()
        ),
    )


DECISIONS = Table(
    name="decisions",
    grain="one score under one rule",
    columns=(
        Column("video_id", STRING, "the video"),
        Column("task", STRING, "task"),
        Column("scorer_id", STRING, "the score it rests on"),
        Column(
            "input_digest", STRING, "hash of the text beside the pictures in the prompt of its traces; zeros for none"
        ),
        Column("rule_id", STRING, "hash of the rule"),
        Column("label", STRING, "the final label; NULL if the rule abstains, and in a task of independent labels"),
        Column(
            "labels",
            array(STRING),
            "the labels given, in the order of the task: [label], [] if the rule abstains; of independent labels those that "
            "apply, [] if none does, NULL if the rule abstains",
        ),
        Column(
            "top_prob",
            DOUBLE,
            "probability of the most probable label; of independent labels that of the likelier side, applies or not, of "
            "the least certain one",
        ),
        Column("expected_cost", DOUBLE, "of the label that costs least, under a rule of costs; NULL under others"),
        Column(
            "prediction_set",
            array(STRING),
            "most probable labels that together reach the coverage, or a conformal set; of independent labels those that "
            "are not ruled out",
        ),
        Column("abstain", BOOLEAN, "whether a person should look"),
        Column("reason", STRING, " | ".join(REASONS)),
        Column("wave_id", STRING, "wave that wrote the row"),
        Column("decided_at", TIMESTAMP, "UTC"),
        Column("ingested_on", DATE, "day on which the video was ingested, UTC"),
    ),
    key=("video_id", "scorer_id", "input_digest", "rule_id"),
    contract=contract,
    partition_by=("scorer_id", "rule_id", "ingested_on"),
    rates=rates,
    references=(Reference(("video_id", "scorer_id", "input_digest"), ("scores",)),),
)
