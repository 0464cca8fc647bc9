"""petastorm 0.13.1 under the pyarrow and numpy of this project; imported only where `training.reader` is petastorm.

Why this is here: petastorm leans on parts of pyarrow that went with pyarrow 15 (pyarrow.filesystem, pyarrow.hdfs, datasets
made of pieces) and on names of numpy 1. And it does two things that rows do not survive:

- Its pool of threads asks whether all work that was handed out is done, and only then whether all was handed out: what is
  handed out in between is lost, and the epoch ends early without a word (12 to 19 of 100 epochs of 40 row groups here).
- It makes numpy arrays of columns: of a NULL it makes the word "None", a text loses NULs at its end, and lists of different
  lengths are refused.

Its own modules are given what they lack; pyarrow and numpy stay as they are.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

_THREADS = 2  # more are no faster, for one consumer sorts out what they read, and hold more
_GONE = {"pyarrow.filesystem": "LocalFileSystem", "pyarrow.hdfs": "HadoopFileSystem"}


@contextmanager
def _stand_ins() -> Iterator[None]:
    """Modules that petastorm imports and does not use for local files."""
    for name, member in _GONE.items():
        sys.modules[name] = ModuleType(name)
        setattr(sys.modules[name], member, type(member, (), {}))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # distutils
            yield
    finally:
        for name in _GONE:
            del sys.modules[name]


with _stand_ins():
    from petastorm import arrow_reader_worker, reader, unischema
    from petastorm.etl import dataset_metadata
    from petastorm.workers_pool.thread_pool import ThreadPool


class _Folder:
    """Its file system: the names of files in one folder, so that no path has to be spelled as a URL."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def open(self, path: str) -> pa.NativeFile:
        return pa.OSFile(str(self._folder / path.lstrip("/")))


class _Piece:
    """pyarrow.parquet.ParquetDatasetPiece as it was: a row group, or a file."""

    partition_keys = ()

    def __init__(self, path: str, open_file_func: Any, row_group: int | None = None, partition_keys: Any = ()) -> None:
        self.path, self._open, self._row_group = path, open_file_func, row_group

    def get_metadata(self) -> pq.FileMetaData:
        return pq.read_metadata(self._open(self.path))

    def read(self, columns: set[str], partitions: None) -> pa.Table:
        return pq.ParquetFile(self._open(self.path)).read_row_group(self._row_group, sorted(columns))


class _Dataset:
    """pyarrow.parquet.ParquetDataset as it was, of files without partitions and summaries."""

    partitions = metadata = common_metadata = None

    def __init__(self, paths: Sequence[str], filesystem: _Folder, **_: Any) -> None:
        self.paths, self.fs = paths, filesystem
        self.pieces = [_Piece(path, filesystem.open) for path in paths]


class WholePool(ThreadPool):
    """Its pool of threads with the two questions in the order that loses nothing."""

    def all_workers_done(self) -> bool:
        return self._ventilator.completed() and super().all_workers_done()


_LEGACY = SimpleNamespace(ParquetDataset=_Dataset, ParquetDatasetPiece=_Piece)
reader.pq = arrow_reader_worker.pq = dataset_metadata.pq = _LEGACY
reader.ThreadPool = WholePool
unischema._numpy_and_codec_from_arrow_type = lambda kind: kind.to_pandas_dtype()
arrow_reader_worker.convert_arrow_table_to_numpy_dict = lambda rows, schema: dict(
    zip(rows.column_names, rows.columns, strict=True)
)


def batches(files: Sequence[Path]) -> Iterator[pa.Table]:
    """The row groups of Parquet files of one folder, each once, as make_batch_reader gives them.

    Raises what reading them raises. Up to four row groups are held for each thread.
    """
    opened = reader.make_batch_reader(
        [f"file:///{file.name}" for file in files],
        filesystem=_Folder(files[0].parent),
        workers_count=_THREADS,
        shuffle_row_groups=False,  # Epochs shuffles
    )
    try:
        for batch in opened:
            yield pa.table(batch._asdict())
    finally:  # not by `with`: that prints a line on standard output
        opened.stop()
        opened.join()
