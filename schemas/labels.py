"""labels: statements about videos, append-only. Corrections are new rows; the view current_labels resolves."""

from schemas.checks import Contract, holds, not_null, one_of, some_of
from schemas.columns import STRING, TIMESTAMP, Column, array
from schemas.label_set import LabelSet
from schemas.table import Table


def contract(labels: LabelSet) -> Contract:
    told: Contract = (
        (
            not_null("labels"),
            holds("label_is_left_out", "label IS NULL", "a label beside labels that are independent"),
        )
        if labels.independent
        else (
            not_null("label"),
            one_of("label", labels.slugs),
            holds("labels_are_the_label", "labels = array(label)", "labels are not the label alone"),
        )
    )
    return (not_null("video_id"), not_null("task"), *told, some_of("labels", labels.slugs), not_null("source"))


LABELS = Table(
    name="labels",
    grain="one statement about a video",
    columns=(
        Column("video_id", STRING, "the video; 'ext:' + hash(source, external id) until its bytes have arrived"),
        Column(
            "external_id",
            STRING,
            "the name under which it was said: a file's, with some of its folders or none",
        ),
        Column("task", STRING, "task whose label set is meant"),
        Column("label", STRING, "slug of the label; NULL in a task of independent labels"),
        Column("labels", array(STRING), "slugs of all labels that apply, in the order of the task"),
        Column("source", STRING, "who says so: name of the labels file"),
        Column("observed_at", TIMESTAMP, "when it was said: modification time of the labels file, UTC"),
        Column("wave_id", STRING, "wave that wrote the row"),
    ),
    key=("video_id", "task", "source", "observed_at"),
    contract=contract,
)
