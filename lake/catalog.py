"""A lake by name: its tables, the views that analysts start from, and the registry beside them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from functools import cached_property

import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame, SparkSession

from lake import log, storage, table
from lake.models import Models
from lake.names import run_of, wave_of
from lake.registry import Registry
from schemas.table import Table
from schemas.tables import TABLES
from schemas.views import VIEWS

_PROMOTIONS = {"task": "string", "recipe_id": "string", "scorer_id": "string", "rule_id": "string"} | {
    "promoted_at": "timestamp",
    "is_live": "boolean",
}
_MADE = "lake.json"  # written once all tables of a new lake are there
# What `register_views` gives a name.
NAMES = sorted([*(wanted.name for wanted in TABLES), "promotions", *VIEWS])


@dataclass(frozen=True)
class Added:
    """files: their names; None where every file has to be looked at. version: the table's own."""

    version: int
    files: tuple[str, ...] | None


class Lake:
    """One lake as a job has it at hand. session: called for Spark when something is first read by it."""

    def __init__(self, root: str, session: Callable[[], SparkSession]) -> None:
        self.root, self._session = root, session
        self.registry, self.models = Registry(root), Models(root)

    @cached_property
    def spark(self) -> SparkSession:
        return self._session()

    def read(self, wanted: Table) -> DataFrame:
        """All rows as of now."""
        return table.read(self.spark, wanted, self.root)

    def read_files(self, wanted: Table, names: Iterable[str]) -> DataFrame:
        """The rows of some files in the table's folder, published or not."""
        return table.read_files(self.spark, wanted, self.root, names)

    def version(self, wanted: Table) -> int:
        """The table's version as of now: what is read after this has all of it, and perhaps more."""
        return table.open_table(wanted, self.root).version()

    def added_since(self, wanted: Table, version: int | None, days: Collection[str] = ()) -> Added:
        """What was added to a table after a version, with all that was ever added on some days of ingestion.

        Everything where no version is given or the log no longer tells.
        """
        snapshot = table.open_table(wanted, self.root)
        came = log.added_since(wanted, self.root, snapshot, version)
        if came is None:
            return Added(snapshot.version(), None)
        names = {name for name, _ in came}
        if days:
            names |= {name for name, values in log.all_files(snapshot) if values["ingested_on"] in days}
        return Added(snapshot.version(), tuple(sorted(names)))

    def read_added(self, wanted: Table, added: Added) -> DataFrame:
        """The rows of it, and perhaps some that were there before."""
        return self.read(wanted) if added.files is None else self.read_files(wanted, added.files)

    def rows_by_day(self, wanted: Table, **partition: str) -> dict[date, int]:
        """Rows of a part of a table by `ingested_on`, from the log alone: no file is read."""
        files = pa.table(table.open_table(wanted, self.root).get_add_actions(flatten=True))
        for name, value in partition.items():
            files = files.filter(pc.equal(files[f"partition.{name}"], value))
        by_day = files.group_by("partition.ingested_on").aggregate([("num_records", "sum")])
        return dict(zip(*(column.to_pylist() for column in by_day.columns), strict=True))

    def quiet_since(self, wanted: Table, version: int, run_id: str, **partition: str) -> int | None:
        """Up to which version nobody but this run has added rows to a part of a table; None if somebody has since."""
        snapshot = table.open_table(wanted, self.root)
        came = [] if snapshot.version() == version else log.added_since(wanted, self.root, snapshot, version)
        if came is None or any(
            run_of(wave_of(name) or "") != run_id and partition.items() <= values.items() for name, values in came
        ):
            return None
        return snapshot.version()

    def view(self, name: str) -> DataFrame:
        """A view as of now; registers only what its query names."""
        query = VIEWS[name]
        words = set(re.findall(r"\w+", query))
        for wanted in TABLES:
            if wanted.name in words:
                self.read(wanted).createOrReplaceTempView(wanted.name)
        for other in words & VIEWS.keys() - {name}:  # a view may build on another
            self.view(other).createOrReplaceTempView(other)
        if "promotions" in words:
            self._register_promotions()
        return self.spark.sql(query)

    def register_views(self) -> None:
        """Give every table and view its name in this session."""
        for wanted in TABLES:
            self.read(wanted).createOrReplaceTempView(wanted.name)
        self._register_promotions()
        for name, query in VIEWS.items():
            self.spark.sql(query).createOrReplaceTempView(name)

    def _register_promotions(self) -> None:
        rows = [tuple(pair[name] for name in _PROMOTIONS) for pair in self.registry.promotions()]
        plain = ", ".join(f"{name} {kind.replace('timestamp', 'string')}" for name, kind in _PROMOTIONS.items())
        frame = self.spark.createDataFrame(rows, plain)
        frame.withColumn("promoted_at", frame["promoted_at"].cast("timestamp")).createOrReplaceTempView("promotions")


def create_all(root: str) -> None:
    """Make the tables of a new lake; one that was made has to have them all still.

    Raises LakeError where it lacks one, or is of another schema version.
    """
    if made_by := _made_by(root):
        _check(root, made_by)
        return
    with ThreadPoolExecutor(max_workers=4) as pool:
        list(pool.map(lambda wanted: table.create(wanted, root), TABLES))
    storage.write(storage.join(root, _MADE), json.dumps({"schema_version": table.SCHEMA_VERSION}).encode())


def require(root: str) -> None:
    """For jobs that do not make a lake. Raises LakeError where there is none, as well."""
    if made_by := _made_by(root):
        _check(root, made_by)
        return
    if table.exists(TABLES[0], root):
        table.check_version(TABLES[0], root)
        raise table.LakeError(
            f"{root}: expected {_MADE} beside the tables, found none: `deepintuit ingest` writes it, and keeps what is there"
        )
    raise table.LakeError(
        f"{root}: expected a lake, found no {_MADE}; is lake.root right? `deepintuit ingest` makes one"
    )


def _made_by(root: str) -> str | None:
    """The schema version of a lake that was made to its end; None where there is none."""
    uri = storage.join(root, _MADE)
    try:
        return str(storage.read_json(uri)["schema_version"])
    except FileNotFoundError:
        return None
    except (storage.Damaged, KeyError, TypeError):
        raise storage.Damaged(
            f"{uri}: expected the lake's schema version as JSON, found something else: delete it, and `deepintuit ingest` "
            "writes it anew"
        ) from None


def is_away(root: str) -> bool:
    """Whether there is no lake where there was one: its disk was unmounted, its store does not answer."""
    try:
        return not storage.exists(storage.join(root, _MADE))
    except (storage.StoreError, OSError):
        return True


def _check(root: str, made_by: str) -> None:
    """A table that went away must not come back empty in silence: all that it held would be done again, or be forgotten."""
    if made_by != table.SCHEMA_VERSION:
        raise table.other_version(root, made_by)
    with ThreadPoolExecutor(max_workers=4) as pool:
        there = list(pool.map(lambda wanted: table.exists(wanted, root), TABLES))
    if lost := [table.path(wanted, root) for wanted, is_there in zip(TABLES, there, strict=True) if not is_there]:
        raise table.LakeError(
            f"{root}: this lake has lost tables: put back {', '.join(lost)} from a copy. Only to begin them anew, empty, "
            f"delete {storage.join(root, _MADE)} and run `deepintuit ingest`"
        )
