"""What a training of the reasoning model learns from: one lesson a row. No table: a file of the run's own, whose digest the
model's manifest names."""

from schemas.checks import Contract, holds, not_null, one_of, some_of
from schemas.label_set import LabelSet


def contract(stage: str, labels: LabelSet, written: bool) -> Contract:
    """stage: whose split the videos are of. written: whether lessons are texts to learn, else videos with labels."""
    one_label = (holds("has_one_label", "size(labels) = 1", "expected exactly one label of the task"),)
    return (
        not_null("video_id"),
        not_null("uri"),
        not_null("split"),
        one_of("split", (stage,)),
        *((holds("text_is_given", "text <> ''", "nothing to learn"),) if written else (not_null("labels"),)),
        *(one_label if not (written or labels.independent) else ()),
        some_of("labels", labels.slugs),
    )


def key(written: bool) -> tuple[str, ...]:
    """A teacher may well say the same twice of one video; a video that is to be talked about is there once."""
    return () if written else ("video_id",)
