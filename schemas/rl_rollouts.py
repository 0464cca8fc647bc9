"""rl_rollouts: what reinforcement learning drew, and what it made of it. No recipe's: the policy changes at every step."""

from schemas.checks import Contract, between, holds, not_null, some_of
from schemas.columns import BOOLEAN, DOUBLE, INT, LONG, STRING, TIMESTAMP, Column, array, mapping
from schemas.label_set import LabelSet
from schemas.table import Table


def contract(labels: LabelSet) -> Contract:
    return (
        not_null("training_id"),
        not_null("step"),
        between("step", 0),
        not_null("video_id"),
        not_null("rollout_index"),
        some_of("labels", labels.slugs),
        holds(
            "logprobs_are_of_the_tokens",
            "size(token_ids) = size(token_logprobs)",
            "not as many log-probabilities as tokens",
        ),
        between("reward"),
        between("group_success", 0.0, 1.0),
    )


RL_ROLLOUTS = Table(
    name="rl_rollouts",
    grain="one rollout of one round of reinforcement learning",
    columns=(
        Column("training_id", STRING, "the training, whatever number of runs it took: run_id of the first of them"),
        Column(
            "step", LONG, "optimisation step at which its round was drawn; its policy has learned from those before it"
        ),
        Column("video_id", STRING, "the video"),
        Column("rollout_index", INT, "0 .. K-1"),
        Column("place", INT, "of this row in its round"),
        Column("text", STRING, "the whole completion"),
        Column("labels", array(STRING), "labels that the answer names; NULL where it has no usable answer"),
        Column("consistent", BOOLEAN, "whether the reasoning argues for the answer, and the observation for no other"),
        Column("finish_reason", STRING, "stop | length"),
        Column("token_ids", array(INT), "generated tokens"),
        Column("token_logprobs", array(DOUBLE), "natural log-probability of each under the policy that drew it"),
        Column("old_logprobs", array(DOUBLE), "the same as the trainer computes it; NULL with one update a round"),
        Column("rewards", mapping(STRING, DOUBLE), "reward components by name"),
        Column("reward", DOUBLE, "their weighted sum"),
        Column("group_success", DOUBLE, "share of the video's rollouts of this round that answer right"),
        Column("run_id", STRING, "run that drew it"),
        Column("created_at", TIMESTAMP, "UTC"),
    ),
    key=("training_id", "step", "video_id", "rollout_index"),
    contract=contract,
    partition_by=("training_id",),
)
