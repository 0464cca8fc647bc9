"""Which traces of a teacher are kept: one transform for every source. What is refused has a typed reason.

A teacher that errs is the world's fault and no broken contract: its refusals carry reasons of the stage's own, as those of
label files do, so the gate over a wave (waves.max_refused, which counts failed checks of the table's contract) does not see
them, and a wave in which most traces are wrong is published like any other.
"""

from __future__ import annotations

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from conf.sections import NONE
from schemas.traces import TRACES
from udfs.argued import ARGUED_COLUMNS

SPLIT = "align"

# Words of somebody who was told the label. The teacher traces of the public implementation hold them, for its prompts held
# the people's annotation: who learns from such a trace learns to cite what no rollout is shown. "The correct answer is B" is
# none of them: honest reasoning ends so.
LEAKS = {
    "ground truth": r"\bground[\s_-]*truth\b",
    "a label that is given": r"\b(?:correct|true|given|provided|gold|reference)[\s_-]+labels?\b",
    "by the annotation": r"\b(?:as|per|by|given|according to|based on)\s+(?:(?:the|its|human)\s+)*annotat(?:ion|or)s?\b",
    "the annotation says": r"\bannotat(?:ion|or)s?\s+(?:say|state|indicate|show|note|describe|confirm|mention)s?\b",
}
_FAILED = ("generation_error", "decode_error")
_SHOWN = 80  # characters of a trace in a message
_WIDEST = 16  # characters of a token, more than any tokenizer's average: what is longer no rollout could ever say


def judged(rows: DataFrame, truth: DataFrame, labels: tuple[str, ...], grammar: str, max_tokens: int) -> DataFrame:
    """Adds refused_key, refused_reason and refused_message, which are NULL where a trace is kept.

    rows: one a trace, with the columns of TRACES, `split`, the video's, and what the trace argues for (udfs/argued.py); what
    one source says of a video is all here.
    A NULL video_id is of a trace that names no single video: it is neither kept nor refused. truth: video_id and labels, as
    people said. labels: of the task; grammar: that the traces are read by; max_tokens: that a rollout may have.
    """
    told = truth.where("labels IS NOT NULL").select("video_id", F.col("labels").alias("truth"))
    siblings = Window.partitionBy("video_id")
    answer = F.when(F.col("status") == "ok", _named("labels"))
    said = {"_count": F.count("*"), "_usable": F.count(answer), "_answers": F.collect_set(answer)}
    rows = rows.join(told, "video_id", "left").withColumns({name: of.over(siblings) for name, of in said.items()})
    refusal = F.when(F.col("video_id").isNotNull(), F.coalesce(*_refusals(labels, grammar, _WIDEST * max_tokens)))
    return rows.withColumn("_refusal", refusal).select(
        *[name for name in rows.columns if name not in (*said, *ARGUED_COLUMNS, "truth")],
        F.concat_ws("/", *TRACES.key).alias("refused_key"),
        F.col("_refusal.reason").alias("refused_reason"),
        F.col("_refusal.message").alias("refused_message"),
    )


def _refusals(labels: tuple[str, ...], grammar: str, most: int) -> list[Column]:
    """What may be held against a trace, the first of it first; each a struct (reason, message), NULL if it does not hold."""
    leak = _found("text", "(?i)" + "|".join(LEAKS.values()))
    # As a word of its own; letters, digits, - and _ around it make it another word.
    judgement = _found(
        "observation", r"(?iuU)(?<![\w-])(?:" + "|".join(rf"\Q{name}\E" for name in labels) + r")(?![\w-])"
    )
    usable = (F.col("status") == "ok") & F.coalesce("well_formed", F.lit(False))
    agreed = (F.col("_count") > 1) & (F.col("_usable") == F.col("_count")) & (F.size("_answers") == 1)
    return [
        _refused(
            "teacher_split",
            F.coalesce("split", F.lit("")) != SPLIT,
            F.lit(f"expected a video of the split {SPLIT}, found one of "),
            F.coalesce("split", F.lit("no split")),
        ),
        _refused(
            "teacher_failed",
            F.col("status").isin(*_FAILED),
            F.lit("expected a trace, found "),
            F.coalesce("error", "status"),
        ),
        _refused(
            "teacher_too_long",
            F.length("text") > most,
            F.lit(f"expected at most {most} characters, as rollout.max_tokens allows, found "),
            F.length("text").cast("string"),
        ),
        _refused(
            "teacher_format",
            ~usable,
            F.lit(f"expected a whole {grammar} trace that answers {' or '.join(labels)}, found "),
            F.when(F.col("status") == "ok", F.lit("a broken one: ")).otherwise(F.concat("status", F.lit(": "))),
            F.substring(F.coalesce("text", F.lit("nothing")), 1, _SHOWN),
        ),
        _refused(
            "teacher_leak",
            leak.isNotNull(),
            F.lit("expected reasoning from what is seen, found words of somebody who knows the label: "),
            leak,
        ),
        _refused(
            "teacher_judges_early",
            judgement.isNotNull(),
            F.lit("expected an observation that names no label, found "),
            judgement,
        ),
        _refused(
            "teacher_unlabelled",
            F.col("truth").isNull() & ~agreed,
            F.lit("expected two or more traces of a video without a label, all of one answer; found "),
            F.col("_count").cast("string"),
            F.lit(" with "),
            F.concat_ws(" and ", F.array_sort("_answers")),
        ),
        _refused(
            "teacher_wrong_label",
            F.col("labels") != F.col("truth"),
            F.lit("expected the video's own label "),
            _named("truth"),
            F.lit(", found "),
            _named("labels"),
        ),
        *(
            _refused(
                "teacher_contradicts",
                (F.size("labels") == 1) & (F.col(name) != F.element_at("labels", 1)),
                F.lit(f"expected the {segment} to argue for the answer "),
                _named("labels"),
                F.lit(", found it to argue for "),
                F.col(name),
            )
            for name, segment in ARGUED_COLUMNS.items()
        ),
    ]


def _refused(reason: str, when: Column, *message: Column) -> Column:
    return F.when(when, F.struct(F.lit(reason).alias("reason"), F.concat(*message).alias("message")))


def _named(labels: str) -> Column:
    """An array of labels in words."""
    return F.when(F.size(labels) == 0, F.lit(NONE)).otherwise(F.concat_ws(", ", labels))


def _found(column: str, pattern: str) -> Column:
    """The first piece of a text that matches; NULL for none."""
    return F.nullif(F.regexp_extract(column, pattern, 0), F.lit(""))


def marked(rows: DataFrame, traces: DataFrame, quarantine: DataFrame) -> DataFrame:
    """Adds is_new to judged rows: whether the lake lacks the trace, or the refusal, as of these tables.

    What was refused and is kept now, as its video's label was corrected, is new; so is what is refused for another reason.
    """
    there = traces.select(*TRACES.key, F.lit(True).alias("_there"))
    noted = quarantine.where(F.col("table") == TRACES.name).select(
        F.col("row_key").alias("refused_key"), F.col("reason").alias("refused_reason"), F.lit(True).alias("_noted")
    )
    found = F.when(F.col("refused_reason").isNull(), F.col("_there")).otherwise(F.col("_noted"))
    return (
        rows.join(there, list(TRACES.key), "left")
        .join(noted.distinct(), ["refused_key", "refused_reason"], "left")
        .withColumn("is_new", F.col("video_id").isNotNull() & found.isNull())
        .drop("_there", "_noted")
    )
