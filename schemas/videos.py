"""videos: one distinct content. The same bytes under two names are one video."""

from schemas.checks import Contract, between, matches, not_null
from schemas.columns import BOOLEAN, DATE, DOUBLE, INT, LONG, STRING, TIMESTAMP, Column
from schemas.label_set import LabelSet
from schemas.table import Table


def contract(labels: LabelSet) -> Contract:
    return (
        not_null("video_id"),
        matches("video_id", "^[0-9a-f]{64}$"),
        not_null("uri"),
        not_null("width"),
        between("width", 1, 32768),
        not_null("height"),
        between("height", 1, 32768),
        not_null("duration_s"),
        between("duration_s", 0, 86400),
        between("fps", 0, 1000),
        between("rotation", -359, 359),
        not_null("damage"),
        between("damage", 0, 1),
        not_null("ingested_on"),
    )


VIDEOS = Table(
    name="videos",
    grain="one distinct content with its probe",
    columns=(
        Column("video_id", STRING, "SHA-256 of the bytes, hex"),
        Column("uri", STRING, "where the content was first seen"),
        Column("size", LONG, "bytes"),
        Column("codec", STRING, "name of the video codec"),
        Column("width", INT, "pixels, before rotation"),
        Column("height", INT, "pixels, before rotation"),
        Column("fps", DOUBLE, "average frames per second; NULL if unknown"),
        Column("duration_s", DOUBLE, "seconds"),
        Column("frames", LONG, "frames whose packets are there"),
        Column("frames_promised", LONG, "frames that it should have: those, or what its header tells if that is more"),
        Column(
            "frames_tried",
            INT,
            "frames that were decoded when it came, to see whether they can be: decode.probe_frames",
        ),
        Column("frames_decoded", INT, "of these, frames that could be, unbroken"),
        Column("damage", DOUBLE, "share of its frames that is missing or, by those tried, broken; 0 of a sound file"),
        Column("rotation", INT, "degrees, from the display matrix"),
        Column("has_audio", BOOLEAN, "whether there is an audio stream"),
        Column("wave_id", STRING, "wave that wrote the row"),
        Column("ingested_at", TIMESTAMP, "when the content was first read, UTC"),
        Column("ingested_on", DATE, "the day of it: nights read the days that they need"),
    ),
    key=("video_id",),
    contract=contract,
    partition_by=("ingested_on",),
    key_is_local=False,  # the same content may come again on another day
)
