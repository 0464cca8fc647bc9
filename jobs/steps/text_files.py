"""A CSV or TSV with text beside videos -> rows for the table texts, each tied to a video or to its name."""

from __future__ import annotations

import re
from pathlib import Path

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from conf.settings import Ingest
from jobs.runtime.errors import UsageError
from jobs.runtime.run import Run
from jobs.steps.label_files import check_columns, external_id, find, match, read_table
from lake.staging import Wave
from lake.waves import Work
from lake.write import stage
from schemas.files import FILES
from schemas.texts import TEXTS

_FIELD = re.compile(r"[a-z0-9][a-z0-9_-]*")


def read_statements(spark: SparkSession, path: str, ingest: Ingest) -> DataFrame:
    """Columns row, external_id, field, text, source, observed_at; one row for every cell that is there.

    Raises UsageError for a missing file or column, and for a column whose name is no field and that is not mapped.
    """
    entry = find("--texts", path)
    table = read_table(spark, path)
    mapped = ingest.texts
    check_columns(path, table.columns, [mapped.id, *mapped.fields], "ingest.texts.id and ingest.texts.fields")
    fields = mapped.fields or {name: name for name in table.columns if name != mapped.id}
    odd = [name for name in fields.values() if not _FIELD.fullmatch(name)]
    if odd or not fields:
        found = f"{', '.join(map(repr, odd))}: map it under ingest.texts.fields" if odd else f"only '{mapped.id}'"
        raise UsageError(f"{path}: expected columns named like title or on_screen beside '{mapped.id}', found {found}")
    cells = F.explode(
        F.array(
            *[F.struct(F.lit(field).alias("field"), F.col(f"`{name}`").alias("text")) for name, field in fields.items()]
        )
    )
    return (
        table.select(
            F.monotonically_increasing_id().alias("row"),
            external_id(F.col(f"`{mapped.id}`"), ingest.extensions).alias("external_id"),
            cells.alias("cell"),
        )
        .select("row", "external_id", "cell.*")
        .where("text IS NOT NULL")
        .withColumns({"source": F.lit(Path(path).name), "observed_at": F.lit(entry.modified_at)})
    )


def take_in(run: Run, path: str) -> None:
    """Publish the texts of a file; those of a name that several videos share are quarantined."""
    run.waves.must_be_open(TEXTS)
    statements = read_statements(run.lake.spark, path, run.settings.ingest)

    def write(wave: Wave) -> Work:
        matched = match(statements, run.lake.read(FILES), run.settings.ingest.source)
        return [stage(wave, TEXTS, matched.drop("row"))], {}

    settled = run.waves.make(write, run.record.versions)
    landed, refused = settled.landed[TEXTS.name], settled.refused(TEXTS)
    run.record.add({"texts": landed.rows, "texts_refused": refused})
    run.record.say(
        f"{Path(path).name}: {landed.rows:,} texts taken in, {refused:,} refused, {landed.known:,} known already"
    )
