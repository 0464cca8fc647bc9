"""What a stage learns from, as one local file that is mapped into memory: any row at once, however many there are.

Rows are in the order of their video ids, so that the order in which they are drawn depends on a seed and on ids alone. A
row's place in that order is its number; reading.py says who reads which.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

COLUMNS = pa.schema(
    [
        ("video_id", pa.string()),
        ("uri", pa.string()),
        ("said", pa.string()),  # what came with the video in words; NULL for nothing
        ("text", pa.string()),  # the completion to learn; NULL where the stage writes its own
        ("labels", pa.list_(pa.string())),  # the video's own labels, in the task's order
    ]
)


@dataclass(frozen=True)
class Lesson:
    """One row, see COLUMNS."""

    video_id: str
    uri: str
    said: str
    text: str
    labels: tuple[str, ...]


def write(folder: Path, batches: Iterable[pa.RecordBatch]) -> Path:
    """Write lessons, sorted by video id and text, to a file that is named by a digest of them; one batch is in memory at a
    time. Returns the file.

    Where a video lies is no part of what the digest names. Raises ValueError where the rows are not in order.
    """
    folder.mkdir(parents=True, exist_ok=True)
    aside, digest, last = folder / "lessons.part", hashlib.sha256(), ("", "")
    with pa.OSFile(str(aside), "wb") as sink, pa.ipc.new_file(sink, COLUMNS) as file:
        for batch in batches:
            batch = batch.select(COLUMNS.names).cast(COLUMNS)
            for row in batch.drop_columns(["uri"]).to_pylist():
                place = (row["video_id"], row["text"] or "")
                if place < last:
                    raise ValueError(f"lessons: expected rows in the order of their ids, found {place} after {last}")
                last = place
                digest.update(json.dumps(row, sort_keys=True).encode() + b"\n")
            file.write_batch(batch)
    return aside.replace(file_of(folder, digest.hexdigest()[:16]))


def file_of(folder: Path, digest: str) -> Path:
    return folder / f"lessons-{digest}.arrow"


class Rows:
    """Lessons by their numbers: all of a table, the first one is 0."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table

    def __len__(self) -> int:
        return self._table.num_rows

    def __getitem__(self, number: int) -> Lesson:
        """Raises IndexError for a number that is not among them."""
        (row,) = self._table.slice(self._place(number), 1).to_pylist()
        return Lesson(row["video_id"], row["uri"], row["said"] or "", row["text"] or "", tuple(row["labels"] or ()))

    def _place(self, number: int) -> int:
        if not 0 <= number < len(self):
            raise IndexError(number)
        return number

    def ids(self) -> Iterator[str]:
        """Video ids, in the order of the numbers."""
        for chunk in self._table["video_id"].chunks:
            yield from chunk.to_pylist()

    def by_label(self) -> dict[str, int]:
        """How many have each label; those of videos that nobody has labelled have none."""
        counts = pc.value_counts(self._table["labels"].combine_chunks().flatten())
        return {row["values"]: row["counts"] for row in counts.to_pylist()}


class Lessons(Rows):
    """The rows of a file that `write` wrote. digest: names its content."""

    def __init__(self, path: Path) -> None:
        self.path, self.digest = path, path.stem.rpartition("-")[2]
        super().__init__(table_of(path))


def table_of(path: Path) -> pa.Table:
    """A file in Arrow's format, mapped into memory."""
    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()
