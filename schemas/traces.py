"""traces: one rollout a row. A rollout that failed is a row with a status, never a gap."""

from schemas.checks import Contract, between, holds, not_null, one_of, some_of
from schemas.columns import BOOLEAN, DATE, DOUBLE, INT, LONG, STRING, TIMESTAMP, Column, array, mapping
from schemas.label_set import LabelSet
from schemas.rates import Mean, Rate, Rates, Severity, share
from schemas.table import Reference, Table

STATUSES = ("ok", "parse_error", "too_long", "generation_error", "decode_error")
# Failures that another try may mend; the others would only repeat themselves.
TRANSIENT = ("generation_error",)


def contract(labels: LabelSet) -> Contract:
    listed = ", ".join(f"'{label}'" for label in sorted(labels.slugs))
    told: Contract = (
        (
            holds("label_is_left_out", "label IS NULL", "a label beside labels that are independent"),
            holds("ok_has_labels", "status <> 'ok' OR labels IS NOT NULL", "status ok without labels"),
        )
        if labels.independent
        else (
            one_of("label", labels.slugs),
            holds("ok_has_a_label", "status <> 'ok' OR label IS NOT NULL", "status ok without a label"),
            holds("labels_are_the_label", "status <> 'ok' OR labels = array(label)", "labels are not the label alone"),
        )
    )
    return (
        not_null("video_id"),
        not_null("recipe_id"),
        not_null("input_digest"),
        not_null("rollout_index"),
        between("rollout_index", 0, 1_000_000),
        not_null("attempt"),
        not_null("status"),
        one_of("status", STATUSES),
        *told,
        some_of("labels", labels.slugs),
        holds("failed_has_no_labels", "status = 'ok' OR labels IS NULL", "labels of a rollout without an answer"),
        between("logprob_sum", None, 0.0),
        holds(
            "label_logprobs_are_logarithms",
            # 0 at most, but for rounding; NaN, which Spark holds to be above all numbers, is not
            "label_logprobs IS NULL OR forall(map_values(label_logprobs), p -> p < 1e-3)",
            "a label's log-probability is no logarithm of a probability",
        ),
        holds(
            "label_logprobs_cover_the_labels",
            f"label_logprobs IS NULL OR array_sort(map_keys(label_logprobs)) = array({listed})",
            "log-probabilities of other labels than the task's",
        ),
        between("tokens", 0),
        holds(
            "undecoded_has_no_tokens", "status <> 'decode_error' OR coalesce(tokens, 0) = 0", "tokens without a video"
        ),
        not_null("ingested_on"),
    )


# By a model of ours, at its first try: what somebody else wrote is judged by nobody, and what is tried again is not usual.
_DRAWN = "seed IS NOT NULL AND attempt = 0"
_ANSWERED = f"{_DRAWN} AND status = 'ok'"
_ARGUED = f"{_ANSWERED} AND (observation <> '' OR think <> '')"  # one word may well be said twice


def rates(labels: LabelSet) -> Rates:
    def failing(status: str, severity: Severity) -> Rate:
        condition, told = f"status = '{status}'", f"share of rollouts with the status {status}"
        return share(f"few_{status}", condition, told, _DRAWN, most=0.5, rise=0.1, floor=0.05, severity=severity)

    naming = f"{_ANSWERED} AND size(labels) > 0"
    each = ", ".join(f"count_if({_ANSWERED} AND array_contains(labels, '{label}'))" for label in labels.slugs)
    one_label = Rate(
        "labels_differ",
        f"greatest({each}, 0)",
        f"count_if({naming})",
        "share of the most frequent label among answers that name any",
        naming,
        most=1.0 if labels.independent else 0.998,  # one that applies to all is no fault where labels exclude nothing
        rise=0.2,
        floor=0.9,
        of_past="warn",  # one split may be balanced and a night not
        least=10,  # of one answer alone any label is the most frequent one
    )
    any_label = share(
        "labels_are_named",
        "size(labels) > 0",
        "share of answers that name any label",
        _ANSWERED,
        rise=0.5,
        both_ways=True,
        of_past="warn",
    )
    told = f"CASE WHEN {_ARGUED} THEN struct(video_id, input_digest, xxhash64(text)) END"
    return Rates(
        made_by="recipe_id",
        of_rows=(
            failing("parse_error", "stop"),
            failing("too_long", "stop"),
            failing("decode_error", "stop"),
            failing("generation_error", "warn"),  # a store or an engine that was away: they are tried again
            *((one_label,) if len(labels.slugs) > 1 else ()),
            *((any_label,) if labels.independent else ()),
            Rate(
                "siblings_differ",
                f"count_if({_ARGUED}) - count(DISTINCT {told})",
                f"count_if({_ARGUED}) - count(DISTINCT CASE WHEN {_ARGUED} THEN video_id END)",
                "share of answers that say word for word what another one says of the same video",
                _ARGUED,
                most=0.995,
                rise=0.3,
                floor=0.5,
            ),
            Mean(
                "length_is_usual",
                f"sum(CASE WHEN {_ANSWERED} THEN tokens ELSE 0 END)",
                f"count_if({_ANSWERED})",
                "mean tokens of an answer",
                _ANSWERED,
            ),
        ),
    )


TRACES = Table(
    name="traces",
    grain="one rollout",
    columns=(
        Column("video_id", STRING, "the video"),
        Column("task", STRING, "task"),
        Column("recipe_id", STRING, "how it was made"),
        Column("input_digest", STRING, "hash of the text beside the pictures in the prompt; zeros for none"),
        Column("rollout_index", INT, "0 .. K-1"),
        Column("attempt", INT, "0, and one more after each passing failure"),
        Column("status", STRING, " | ".join(STATUSES)),
        Column("label", STRING, "the provisional label; NULL unless status is ok, and in a task of independent labels"),
        Column(
            "labels", array(STRING), "labels that the answer names, in the order of the task; NULL unless status is ok"
        ),
        Column("answer", STRING, "the answer segment as written"),
        Column("observation", STRING, "the observation segment"),
        Column("think", STRING, "the reasoning segment"),
        Column("text", STRING, "the whole completion"),
        Column("well_formed", BOOLEAN, "whether the whole completion matches the recipe's grammar"),
        Column("logprob_sum", DOUBLE, "natural log-probability of the generated tokens"),
        Column(
            "label_logprobs",
            mapping(STRING, DOUBLE),
            "natural log-probability of each label where the answer begins; of independent labels, that it applies",
        ),
        Column("prompt_tokens", INT, "tokens, video included"),
        Column("tokens", INT, "generated tokens"),
        Column("finish_reason", STRING, "stop | length | error"),
        Column("error", STRING, "what went wrong; NULL if nothing did"),
        Column("seed", LONG, "seed of this rollout"),
        Column("engine", STRING, "engine that ran it"),
        Column("engine_version", STRING, "its version"),
        Column("wave_id", STRING, "wave that wrote the row"),
        Column("created_at", TIMESTAMP, "UTC"),
        Column("ingested_on", DATE, "day on which the video was ingested, UTC"),
    ),
    key=("video_id", "recipe_id", "input_digest", "rollout_index", "attempt"),
    contract=contract,
    partition_by=("recipe_id", "ingested_on"),
    rates=rates,
    references=(Reference(("video_id",), ("videos", "imports")), Reference(("recipe_id",), ("recipes",))),
)
