"""What a wave leaves in the store before it is published.

<lake>/tables/<table>/...               the files themselves, in the tables' own folders; no reader sees them yet
<lake>/staging/<run>/run.json           the run's lease
<lake>/staging/<run>/scratch/...        what the run looked up and keeps to itself; gone when it ends
<lake>/staging/<run>/<wave>/manifest.json   what was staged: written last, it seals the wave
                            audited.json    what of it is kept: the contract is never asked twice
                            held.json       why a gate stopped it
                            progress, ...   the stage's own, of no use once the wave is sealed
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar

from lake import storage
from lake.names import is_wave_name
from lake.parquet import DataFile
from schemas.label_set import LabelSet

T = TypeVar("T")


@dataclass(frozen=True)
class Staged:
    """Rows of one table in files that no reader sees.

    files: rows that are good as far as the stage knows. quarantine: files of the table quarantine with the rows that it
    refused; reasons counts these. missing_at: see `commit.append`. refused_at: a version of the table quarantine at which
    none of these refusals was noted, where another run may note the same ones; None: they are this wave's alone.
    """

    table: str
    files: tuple[DataFile, ...]
    quarantine: tuple[DataFile, ...] = ()
    reasons: dict[str, int] = field(default_factory=dict)
    missing_at: int | None = None
    refused_at: int | None = None

    @property
    def kept(self) -> int:
        return sum(file.rows for file in self.files)

    @property
    def rows(self) -> int:
        return self.kept + sum(self.reasons.values())

    @staticmethod
    def parse(value: dict[str, Any]) -> Staged:
        files, quarantine = (tuple(DataFile(**file) for file in value.pop(name)) for name in ("files", "quarantine"))
        return Staged(files=files, quarantine=quarantine, **value)


@dataclass(frozen=True)
class Manifest:
    """What a sealed wave holds and what settling it needs; nothing else does. max_refused, min_rows: of the settings,
    min_rows None where no rates are asked; seconds: the write step took; expendable: dropped where a gate stops it, as
    nobody waits for it."""

    wave_id: str
    job: str
    task: str
    labels: LabelSet
    max_refused: float
    outputs: tuple[Staged, ...]
    counts: dict[str, int] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    min_rows: int | None = None
    expendable: bool = False

    @staticmethod
    def parse(value: dict[str, Any]) -> Manifest:
        outputs = tuple(Staged.parse(output) for output in value.pop("outputs"))
        labels = value.pop("labels")
        return Manifest(outputs=outputs, labels=LabelSet(tuple(labels["slugs"]), labels["mode"]), **value)


@dataclass(frozen=True)
class Audited:
    """What the contract made of one table's staged rows: those to publish, and its results for the table quality.

    broken: rows that a check of the contract refused, or that came twice, which is what a gate looks at.
    """

    staged: Staged
    broken: int
    results: tuple[dict[str, Any], ...]

    @staticmethod
    def parse(value: dict[str, Any]) -> Audited:
        return Audited(Staged.parse(value["staged"]), value["broken"], tuple(value["results"]))


@dataclass(frozen=True)
class Wave:
    """One wave's place in staging."""

    root: str
    run_id: str
    name: str

    @property
    def id(self) -> str:
        return f"{self.run_id}.{self.name}"

    @property
    def folder(self) -> str:
        return storage.join(run_folder(self.root, self.run_id), self.name)

    def path(self, name: str) -> str:
        return storage.join(self.folder, name)

    def manifest(self) -> Manifest | None:
        """None for a wave that is not sealed, or not there any more. Raises storage.Damaged."""
        return self._parsed("manifest.json", Manifest.parse)

    def seal(self, manifest: Manifest) -> None:
        """From here on the wave will be published and its model never runs again."""
        self._write("manifest.json", asdict(manifest))

    def audited(self) -> dict[str, Audited] | None:
        """By table; None before the audit. Raises storage.Damaged."""
        return self._parsed("audited.json", lambda found: {name: Audited.parse(value) for name, value in found.items()})

    def note_audit(self, audited: dict[str, Audited]) -> None:
        self._write("audited.json", {table: asdict(value) for table, value in audited.items()})

    def faults(self) -> list[str]:
        """Why the wave is held, and what to do; empty if it is not."""
        try:
            return (self._read("held.json") or {"faults": []})["faults"]
        except storage.Damaged as error:
            return [f"{error}: {self.remedy}"]

    def hold(self, faults: list[str]) -> None:
        self._write("held.json", {"faults": faults, "at": datetime.now(UTC).isoformat()})

    @property
    def remedy(self) -> str:
        return (
            f"`deepintuit waves release {self.id}` publishes what is good, "
            f"`deepintuit waves discard {self.id}` drops it and makes its work pending again"
        )

    def remove(self) -> None:
        """The manifest first, so that half a removal reads as a wave that was never sealed."""
        storage.delete(self.path("manifest.json"))
        storage.delete(self.folder)

    def _parsed(self, name: str, parse: Callable[[Any], T]) -> T | None:
        try:
            found = self._read(name)
            return None if found is None else parse(found)
        except storage.Damaged as error:
            raise storage.Damaged(f"{error}: `deepintuit waves discard {self.id}` drops the wave") from None
        except (AttributeError, KeyError, TypeError) as error:
            raise storage.Damaged(
                f"{self.path(name)}: expected what this version of deepintuit writes, found something else ({error}): "
                f"`deepintuit waves discard {self.id}` drops the wave and makes its work pending again"
            ) from None

    def _read(self, name: str) -> Any:
        try:
            return storage.read_json(self.path(name))
        except FileNotFoundError:
            return None

    def _write(self, name: str, value: Any) -> None:
        storage.write(self.path(name), json.dumps(value).encode())


def run_folder(root: str, run_id: str) -> str:
    return storage.join(root, "staging", run_id)


def scratch(root: str, run_id: str, name: str) -> str:
    """A place for what a run keeps to itself."""
    return storage.join(run_folder(root, run_id), "scratch", name)


def staged_waves(root: str, run_id: str) -> list[Wave]:
    """All waves of a run, sealed or not."""
    names = storage.children(run_folder(root, run_id))
    return [Wave(root, run_id, name) for name in names if is_wave_name(name)]


def all_waves(root: str) -> list[Wave]:
    """All waves of all runs."""
    return [wave for run_id in storage.children(storage.join(root, "staging")) for wave in staged_waves(root, run_id)]
