"""trace_quality: how good a trace is in itself, whatever its answer is worth: one row for a trace and who judged it."""

from schemas.checks import Contract, between, holds, not_null, one_of
from schemas.columns import BOOLEAN, DATE, DOUBLE, INT, STRING, TIMESTAMP, Column
from schemas.label_set import LabelSet
from schemas.table import Reference, Table

JUDGES = ("rule", "model", "nobody")


def contract(labels: LabelSet) -> Contract:
    return (
        not_null("video_id"),
        not_null("recipe_id"),
        not_null("input_digest"),
        not_null("rollout_index"),
        not_null("attempt"),
        one_of("observation_label", labels.slugs),
        one_of("think_label", labels.slugs),
        one_of("judged_by", JUDGES),
        not_null("judged_by"),
        not_null("judge_id"),
        holds(
            "think_is_known", "follows_think IS NULL OR think_label IS NOT NULL", "follows a thinking without a label"
        ),
        holds(
            "observation_is_known",
            "follows_observation IS NULL OR observation_label IS NOT NULL",
            "follows an observation without a label",
        ),
        between("repetition", 0, 1),
        between("token_nll", 0),
        between("label_entropy", 0),
        between("sibling_disagreement", 0, 1),
        not_null("ingested_on"),
    )


TRACE_QUALITY = Table(
    name="trace_quality",
    grain="one trace, as judged once",
    columns=(
        Column("video_id", STRING, "the video"),
        Column("task", STRING, "task"),
        Column("recipe_id", STRING, "how the trace was made"),
        Column("input_digest", STRING, "hash of the text beside the pictures in the prompt; zeros for none"),
        Column("rollout_index", INT, "0 .. K-1"),
        Column("attempt", INT, "of the trace"),
        Column("judged_by", STRING, "who says what it argues for: rule (the task's own) | model | nobody"),
        Column(
            "judge_id",
            STRING,
            "judged_by with what it judged by: the rule's code, the facet that says what there is to see",
        ),
        Column("observation_label", STRING, "label that its observation argues for; NULL where nothing is known"),
        Column("think_label", STRING, "label that its thinking argues for; NULL where nothing is known"),
        Column("follows_observation", BOOLEAN, "whether its answer is what its observation argues for"),
        Column("follows_think", BOOLEAN, "whether its answer is what its thinking argues for"),
        Column("observation_right", BOOLEAN, "whether its observation is right; NULL where that is not known"),
        Column("repetition", DOUBLE, "share of its threes of words that came before in it"),
        Column("token_nll", DOUBLE, "nats a token under the model itself; at temperature 1 an estimate of its entropy"),
        Column("label_entropy", DOUBLE, "entropy of the label probabilities where the answer begins, nats"),
        Column("sibling_disagreement", DOUBLE, "share of its siblings with an answer that give another one"),
        Column("wave_id", STRING, "wave that wrote the row"),
        Column("judged_at", TIMESTAMP, "UTC"),
        Column("ingested_on", DATE, "day on which the video was ingested, UTC"),
    ),
    key=("video_id", "recipe_id", "input_digest", "rollout_index", "attempt", "judge_id"),
    contract=contract,
    partition_by=("recipe_id", "ingested_on"),
    references=(Reference(("video_id", "recipe_id", "input_digest", "rollout_index", "attempt"), ("traces",)),),
)
