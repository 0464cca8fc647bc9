"""CSV and TSV files that people give with a flag: labels, texts, a teacher's traces."""

from __future__ import annotations

import re
from itertools import islice

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from jobs.runtime.errors import UsageError
from lake import storage
from lake.listing import walk

_HEADER = 1 << 16  # bytes, of which the first line is looked at


def read_table(spark: SparkSession, path: str) -> DataFrame:
    """A CSV, or a TSV by its name, with a line of column names; cells may hold line breaks between quotes.

    Columns may be separated by semicolons or tabs instead, as spreadsheets do where the comma is in numbers. Rows without
    anything in them, as spreadsheets leave them at the end, are left out.
    """
    separator = "\t" if path.lower().endswith(".tsv") else _separator(storage.read_start(path, _HEADER))
    _check_quotes(path, storage.read_bytes(path), separator)
    table = spark.read.csv(storage.absolute(path), header=True, sep=separator, multiLine=True, escape='"')
    return table.where(F.coalesce(*map(cell, table.columns)).isNotNull()) if table.columns else table


def cell(name: str) -> Column:
    """A column of such a table, whatever marks are in its name."""
    return F.col("`" + name.replace("`", "``") + "`")


def _check_quotes(path: str, data: bytes, separator: str) -> None:
    """Raises UsageError for a quote that opens a cell and is never closed: Spark would take all that follows into it."""
    opened = rb"(?:\A|[\r\n]|" + re.escape(separator.encode()) + rb')(")(?:[^"]+|"")*+("?)'
    for found in re.finditer(opened, data):
        if not found[2]:
            line = data.count(b"\n", 0, found.start(1)) + 1
            raise UsageError(
                f"{path}: expected that each quote that opens a cell is closed, found one in line {line} that is not: close "
                "it, or double it and put the cell between quotes where it is a sign of the text"
            )


def _separator(start: bytes) -> str:
    """By the line of column names: a comma wherever there is one, so that lists in cells below mean nothing."""
    header = start.split(b"\n")[0].decode(errors="replace")
    return next((mark for mark in ",;\t" if mark in header), ",")


def find(flag: str, path: str) -> storage.Entry:
    """The file given with a flag as its store lists it. Raises UsageError if there is none, or if it is no text."""
    listed = list(islice(walk(path), 2)) if storage.exists(path) else []
    if not listed:
        raise UsageError(f"{flag} {path}: no such file")
    if len(listed) > 1 or listed[0].uri.rpartition("/")[2] != path.rstrip("/").rpartition("/")[2]:
        raise UsageError(f"{flag} {path}: expected one CSV or TSV file, found a folder")
    start = storage.read_start(path, 4096)
    if b"\0" in start:
        kind = "UTF-16" if start[:2] in (b"\xff\xfe", b"\xfe\xff") else "binary data or another encoding"
        raise UsageError(f"{flag} {path}: expected CSV or TSV as UTF-8 text, found {kind}: save it as CSV UTF-8")
    return listed[0]


def check_columns(path: str, found: list[str], wanted: list[str], settings: str = "") -> None:
    """Raises UsageError for a column that is missing; settings: those that name the columns to use, "" for none."""
    missing = [name for name in wanted if name not in found]
    for name in missing:  # Spark numbers columns of one name
        if sum(bool(re.fullmatch(re.escape(name) + r"\d+", each)) for each in found) > 1:
            raise UsageError(f"{path}: expected the column {name!r} once, found it several times: leave one of them")
    if not found:
        raise UsageError(f"{path}: expected a line with the names of the columns, found an empty file")
    if len(found) == 1 and (other := next((mark for mark in ",;|" if mark in found[0]), None)):
        raise UsageError(
            f"{path}: expected columns separated by {'tabs' if path.lower().endswith('.tsv') else 'commas'}, found "
            f"{other!r}: save it as CSV with commas, or as .tsv with tabs"
        )
    if missing:
        alike = {name.strip().casefold(): name for name in found}
        meant = [repr(alike[name.strip().casefold()]) for name in missing if name.strip().casefold() in alike]
        raise UsageError(
            f"{path}: expected a column {' and '.join(repr(name) for name in missing)}, found "
            f"{', '.join(repr(name) for name in found)}; "
            + (
                f"set {settings} to the columns to use, letter for letter"
                if settings
                else "name them so in its first line"
            )
            + (f" (perhaps {', '.join(meant)})" if meant else "")
        )
