"""How a training reads its lessons: a reader brings an epoch's rows, `Epochs` deals them out to steps and processes.

Which lessons a step takes follows from their number, a seed, the step and the shard, never from the reader: a training may
go on with another one. There are two (`training.reader`):

    arrow       maps the file that lessons.py wrote, of which every epoch has all rows; the default
    petastorm   streams a Parquet dataset of the same rows anew for every epoch, by its make_batch_reader, and counts them

The file itself was held against the rows that Spark wrote (jobs/steps/training.py), the dataset is held against the file, an
epoch against the dataset: to lose a row anywhere is an error.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Protocol

import numpy as np

from models.training.lessons import Lesson, Lessons, Rows

PETASTORM = "0.13.1"  # whose inner workings petastorm_compat.py knows; its last release


class LostRows(RuntimeError):
    """What was read is not every lesson once; the message says what was expected, what was found and what to do."""


class Reader(Protocol):
    def __len__(self) -> int:
        """Lessons of an epoch, those of all shards together."""
        ...

    def read(self, wanted: np.ndarray) -> Rows:
        """One epoch's reading: the lessons with these numbers. Raises LostRows."""
        ...


class ArrowReader:
    """Every epoch is the same mapped file, whose end says how many rows are in it."""

    def __init__(self, path: Path) -> None:
        self._lessons = Lessons(path)

    def __len__(self) -> int:
        return len(self._lessons)

    def read(self, wanted: np.ndarray) -> Rows:
        return self._lessons


def open_reader(kind: str, lessons: Path) -> Reader:
    """kind: arrow or petastorm; lessons: the file, which has its dataset beside it where petastorm is to read that.

    Raises LostRows where the dataset is not what the file is.
    """
    if kind == "arrow":
        return ArrowReader(lessons)
    from models.training.parquet_lessons import dataset_of
    from models.training.petastorm_reader import PetastormReader

    return PetastormReader(dataset_of(lessons), len(Lessons(lessons)))


def everything(reader: Reader) -> Rows:
    """All lessons, from one reading: for a stage that draws by what it has learned, and knows no epochs."""
    return reader.read(np.arange(len(reader)))


def missing(kind: str) -> str:
    """What a reader lacks on this machine, in words; nothing where it can be had."""
    if kind != "petastorm":
        return ""
    try:
        found = version("petastorm")
    except PackageNotFoundError:
        found = "none"
    if found == PETASTORM:
        return ""
    return (
        f"expected petastorm {PETASTORM}, found {found}: `uv pip install --overrides requirements/overrides.txt -r "
        "requirements/petastorm.in` installs it (the extra `petastorm`); `arrow` reads the same rows without it"
    )


class Epochs:
    """The lessons of each step for one of several processes, `shards` in number.

    Every epoch shuffles all lessons anew and deals them out in turn: each to one shard, and to no shard more than one more
    than to another. Steps are of all shards together, so that each has as many: of an epoch's last step, which is shorter
    where `batch` does not divide their number, a shard may have none. Raises ValueError where there is no lesson.
    """

    def __init__(self, reader: Reader, batch: int, seed: int, shard: int = 0, shards: int = 1) -> None:
        if not len(reader):
            raise ValueError("no examples to train on")
        self._reader, self._batch, self._seed, self._shard, self._shards = reader, batch, seed, shard, shards
        self._epoch, self._order = -1, np.empty(0, np.int64)
        self._rows: Rows | None = None

    def __len__(self) -> int:
        """Steps of an epoch."""
        return -(-len(self._reader) // self._batch)

    def due(self, step: int) -> list[Lesson]:
        """What this shard takes of a step, which may be any one. Raises LostRows."""
        epoch, place = divmod(step, len(self))
        if self._rows is None or epoch != self._epoch:
            self._rows = None  # first: two epochs need not be held at once
            self._order = np.random.default_rng((self._seed, epoch)).permutation(len(self._reader))
            self._rows, self._epoch = self._reader.read(self._order[self._shard :: self._shards]), epoch
        begin, end = place * self._batch, (place + 1) * self._batch
        mine = self._order[begin + (self._shard - begin) % self._shards : end : self._shards]
        return [self._rows[int(number)] for number in mine]
