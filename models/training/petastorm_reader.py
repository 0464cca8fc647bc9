"""Lessons by petastorm: its make_batch_reader streams the dataset of parquet_lessons.py once for every epoch.

petastorm deals out row groups, which makes shards uneven and ties them to files; here every process reads all row groups
and keeps the rows that its shard wants, by their numbers. They go to a file without a name that is mapped into memory, so
that one holds no more than some row groups, however many lessons there are.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from models.training.lessons import COLUMNS, Rows, table_of
from models.training.parquet_lessons import NUMBER
from models.training.petastorm_compat import batches
from models.training.reading import LostRows

_KEPT = pa.schema([pa.field(NUMBER, pa.int64()), *COLUMNS])
_NAMED = 5  # numbers in a message
_ADVICE = (
    "the same command writes the dataset anew and goes on from the last checkpoint; where this comes again, "
    "`training.reader: arrow` reads the same rows"
)


class PetastormReader:
    """Raises LostRows where the footers of the dataset do not add up to `count`, the lessons that it was made of."""

    def __init__(self, folder: Path, count: int) -> None:
        self._folder, self._count = folder, count
        self._files = sorted(folder.glob("*.parquet"))
        with _reading(folder):
            found = sum(pq.read_metadata(file).num_rows for file in self._files)
        if found != count:
            raise LostRows(f"{folder}: expected {count} rows by the footers of its files, found {found}: {_ADVICE}")

    def __len__(self) -> int:
        return self._count

    def read(self, wanted: np.ndarray) -> Rows:
        mine, times = np.zeros(self._count, bool), np.zeros(self._count, np.int64)
        mine[wanted] = True
        with NamedTemporaryFile(dir=self._folder, suffix=".epoch") as file:
            with (
                pa.OSFile(file.name, "wb") as sink,
                pa.ipc.new_file(sink, _KEPT) as kept,
                closing(self._stream()) as parts,
            ):
                for rows in parts:
                    numbers = rows[NUMBER].to_numpy()
                    np.add.at(times, numbers, 1)
                    kept.write_table(rows.filter(pa.array(mine[numbers])))
            self._check(times)
            return _Kept(table_of(Path(file.name)), self._count)

    def _stream(self) -> Generator[pa.Table, None, None]:
        """Every row group, with the columns of _KEPT."""
        with _reading(self._folder):
            for rows in batches(self._files):
                yield rows.select(_KEPT.names).cast(_KEPT)

    def _check(self, times: np.ndarray) -> None:
        """Raises LostRows where a row did not come once. times: how often each came, by its number."""
        wrong = {"missing": np.flatnonzero(times == 0), "there more than once": np.flatnonzero(times > 1)}
        if told := [f"{len(rows)} {what} ({_some(rows)})" for what, rows in wrong.items() if len(rows)]:
            raise LostRows(
                f"{self._folder}: expected {self._count} rows in an epoch, found {times.sum()}, "
                f"{' and '.join(told)}: {_ADVICE}"
            )


class _Kept(Rows):
    """Some of `count` lessons, as they came; each with its number."""

    def __init__(self, table: pa.Table, count: int) -> None:
        super().__init__(table.drop_columns([NUMBER]))
        self._places = np.full(count, -1)
        self._places[table[NUMBER].to_numpy()] = np.arange(len(table))

    def _place(self, number: int) -> int:
        place = int(self._places[number])
        if place < 0:
            raise IndexError(number)
        return place

    def ids(self) -> Iterator[str]:
        for chunk in self._table["video_id"].take(self._places[self._places >= 0]).chunks:
            yield from chunk.to_pylist()


@contextmanager
def _reading(folder: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, KeyError, TypeError, pa.ArrowException) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise LostRows(
            f"{folder}: expected the dataset that was written there, found that {first}: {_ADVICE}"
        ) from error


def _some(numbers: np.ndarray) -> str:
    return ", ".join(map(str, numbers[:_NAMED])) + (" ..." if len(numbers) > _NAMED else "")
