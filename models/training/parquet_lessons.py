"""Lessons as a Parquet dataset, which is what petastorm reads: all rows of the file with their numbers.

petastorm has a converter that makes such a dataset of a DataFrame, make_spark_converter. What is taken over of it, and what
is not:

    row groups of bounded size    yes, an eighth of its 32 MiB: a reader may hold four for each of its threads
    no compression                yes: they are read once an epoch, from a local disk
    files as Spark wrote them     no, one for each row group: petastorm opens the file of each anew, and reads its whole
                                  footer. Shards do not depend on files, for they go by row number
    waits until files are seen    no: who writes here starts those who read, and renames the folder when it is whole
    counts rows for len() alone   no: footers before the first epoch, then every epoch, see petastorm_reader.py
    one dataset per query plan,   no: the name has the digest of what is in it. It stays for the run that goes on, until the
    deleted when Python ends      training has other lessons
    doubles become floats         no: nothing changes on the way
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from models.training.lessons import table_of

NUMBER = "number"  # of a row: its place in the order of lessons
_ROW_GROUP_BYTES = 4 << 20
_AT_ONCE = 64  # rows, by which a row group may exceed that


def dataset_of(lessons: Path) -> Path:
    """The folder of the dataset that belongs to a file of lessons."""
    return lessons.with_suffix(".parquet")


def materialise(lessons: Path, row_group_bytes: int = _ROW_GROUP_BYTES) -> Path:
    """Write the dataset of a file of lessons in place of any in the same folder, and return its folder."""
    made = dataset_of(lessons)
    for former in lessons.parent.glob("lessons-*.parquet*"):
        shutil.rmtree(former)
    aside = made.with_name(f"{made.name}.part")
    aside.mkdir()
    rows = table_of(lessons)
    rows = rows.add_column(0, NUMBER, pa.array(np.arange(rows.num_rows)))
    for number, group in enumerate(_groups(rows, row_group_bytes)):
        path = aside / f"{number:06}.parquet"
        pq.write_table(group, path, row_group_size=group.num_rows, compression="none")
    return aside.rename(made)


def _groups(rows: pa.Table, most: int) -> Iterator[pa.Table]:
    """The rows in pieces of that many bytes, and _AT_ONCE rows at most beyond."""
    held, size = list[pa.RecordBatch](), 0
    for batch in rows.to_batches(_AT_ONCE):
        held.append(batch)
        size += batch.nbytes
        if size >= most:
            yield pa.Table.from_batches(held)
            held, size = [], 0
    if held:
        yield pa.Table.from_batches(held)
