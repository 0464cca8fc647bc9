"""Versions of calibrators and which of them is live, as plain files under <lake>/registry/.

<task>/calibrators/<id>/manifest.json, weights.safetensors   written once, manifest last
<task>/calibrators/<id>/held_out-<digest>.safetensors        what it said of videos that it had not seen; by the manifest
<task>/candidate.json                                        the best of them, as far as the last calibrate knows
<task>/promoted/<scorer id>.<rule id>.json                   every pair of versions that is or was live
<task>/live.json                                             what nightly uses; replaced as a whole by promote
<task>/shadow.json                                           what nightly runs beside it, for `compare`
<task>/scored/<scorer id>.json                               how far nightly has come, and what it left open
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from lake import storage

_OF_PROMOTED = (
    "`deepintuit promote --calibrator ID`, of the calibrator and with the decide settings that it is about, writes it anew; "
    "or delete it, and what was decided by them is no longer among what ever was live"
)
_OF_LIVE = {"scorer_id", "rule_id"}  # what any reader of it needs


class RegistryError(LookupError):
    """Something was asked for that is not registered; the message says what is."""


@dataclass(frozen=True)
class Scored:
    """Up to these versions of the tables videos and texts every video has its decision, or was refused one for good.

    None before the first night. open_days: but for some of those that were ingested on these days.
    """

    version: int | None = None
    texts_version: int | None = None
    open_days: tuple[str, ...] = ()


class Registry:
    """The registry of one lake. Its methods raise storage.Damaged for a file that was cut short."""

    def __init__(self, root: str):
        self._root = storage.join(root, "registry")

    def folder(self, task: str, calibrator_id: str) -> str:
        return storage.join(self._root, task, "calibrators", calibrator_id)

    def save(self, task: str, manifest: dict[str, Any], weights: bytes, held_out: bytes | None = None) -> None:
        """Register a candidate under manifest["calibrator_id"]. Of one that is known what it is stays the same, by its id;
        what is told of it (how good it is, on which videos, what it said of them) is the newest."""
        folder = self.folder(task, manifest["calibrator_id"])
        storage.write(storage.join(folder, "weights.safetensors"), weights)
        digest = held_out and hashlib.sha256(held_out).hexdigest()
        if held_out is not None:  # beside what an earlier manifest names, until this one stands
            storage.write(self._held_out(folder, str(digest)), held_out)
        self._write(storage.join(folder, "manifest.json"), manifest | {"held_out": digest})

    def held_out(self, task: str, manifest: dict[str, Any]) -> bytes | None:
        """What a candidate said of videos that it had not seen; None where nothing is known."""
        digest = manifest.get("held_out")
        if digest is None:
            return None
        uri = self._held_out(self.folder(task, manifest["calibrator_id"]), digest)
        remedy = "`deepintuit calibrate` with the settings of that time writes it anew"
        try:
            data = storage.read_bytes(uri)
        except FileNotFoundError:
            raise storage.Damaged(f"{uri}: expected what the manifest names, found nothing: {remedy}") from None
        if (found := hashlib.sha256(data).hexdigest()) != digest:
            raise storage.Damaged(f"{uri}: expected what its name says, found other bytes ({found}): {remedy}")
        return data

    @staticmethod
    def _held_out(folder: str, digest: str) -> str:
        return storage.join(folder, f"held_out-{digest[:16]}.safetensors")

    def nominate(self, task: str, calibrator_id: str) -> None:
        """Make a registered calibrator the one that `calibrator` gives where none is named."""
        self._write(storage.join(self._root, task, "candidate.json"), {"calibrator_id": calibrator_id})

    def calibrators(self, task: str) -> list[dict[str, Any]]:
        """Manifests of all candidates, oldest first."""
        names = storage.children(storage.join(self._root, task, "calibrators"))
        found = [self._manifest(task, name) for name in names]
        return sorted((manifest for manifest in found if manifest), key=lambda manifest: manifest["created_at"])

    def calibrator(self, task: str, calibrator_id: str | None = None) -> dict[str, Any]:
        """One candidate's manifest, the nominated one's if no id is given. Raises RegistryError if there is none."""
        if calibrator_id is None:
            nominated = self._read(
                storage.join(self._root, task, "candidate.json"), "`deepintuit calibrate` writes it anew"
            )
            if nominated is None:
                raise RegistryError(f"task {task} has no calibrator yet; train one with `deepintuit calibrate`")
            calibrator_id = nominated["calibrator_id"]
        manifest = self._manifest(task, calibrator_id)
        if manifest is None:
            known = ", ".join(entry["calibrator_id"] for entry in self.calibrators(task)) or "none"
            raise RegistryError(f"task {task} has no calibrator {calibrator_id}; registered: {known}")
        return manifest

    def promote(self, task: str, live: dict[str, Any]) -> None:
        """Make these versions the live ones, all at once; `before` among them tells which were until now."""
        with suppress(storage.Damaged):  # a cut file is what this mends
            former = self._live(task) or {}
            if ids := {name: former[name] for name in sorted(_OF_LIVE & former.keys())}:
                live = live | {"before": ids}
            if former:
                self._note_promoted(task, former)  # perhaps it was cut
        # Noted first: what is live is always among what ever was.
        self._note_promoted(task, live)
        self._write(storage.join(self._root, task, "live.json"), live)

    def _note_promoted(self, task: str, versions: dict[str, Any]) -> None:
        name = f"{versions['scorer_id']}.{versions['rule_id']}.json"
        self._write(storage.join(self._root, task, "promoted", name), versions)

    def live(self, task: str) -> dict[str, Any]:
        """The live versions. Raises RegistryError before the first promote."""
        found = self._live(task)
        if found is None:
            raise RegistryError(
                f"task {task} has no live versions: run `deepintuit rollout`, `calibrate` and `promote` first"
            )
        return found

    def before(self, task: str) -> dict[str, Any] | None:
        """The versions that were live before those that are, as they were promoted; None where there were none. Where nobody
        can tell any more, those that were promoted last."""
        ever = self.promotions(task, whole=False)
        earlier = {(pair["scorer_id"], pair["rule_id"]): pair for pair in ever if not pair["is_live"]}
        with suppress(storage.Damaged):
            ids = (self._live(task) or {}).get("before")
            return earlier.get((ids["scorer_id"], ids["rule_id"])) if ids else None
        return max(earlier.values(), key=lambda pair: pair["promoted_at"], default=None)

    def shadow(self, task: str) -> dict[str, Any] | None:
        """The versions that score beside the live ones; None where none do."""
        return self._versions(task, "shadow.json", "`deepintuit shadow` writes it anew")

    def cast_shadow(self, task: str, versions: dict[str, Any] | None) -> None:
        """Have these versions score beside the live ones from now on; None: none."""
        uri = storage.join(self._root, task, "shadow.json")
        if versions is None:
            storage.delete(uri)
        else:
            self._write(uri, versions)

    def promotions(self, task: str | None = None, whole: bool = True) -> list[dict[str, Any]]:
        """Every pair of versions that is or was live, of one task or of all, with `is_live`.

        Raises storage.Damaged for one that was cut short; where the list need not be whole, those are left out.
        """
        found = []
        for name in storage.children(self._root) if task is None else [task]:
            live = None
            with suppress(storage.Damaged):  # told where it is asked for; what ever was live is known all the same
                live = self._live(name)
            for file in storage.children(storage.join(self._root, name, "promoted")):
                ids = ("scorer_id", "rule_id")
                uri = storage.join(self._root, name, "promoted", file)
                try:
                    pair = self._read(uri, _OF_PROMOTED)
                except storage.Damaged:
                    if live is not None and file == f"{live['scorer_id']}.{live['rule_id']}.json":
                        pair = live  # says the same
                    elif whole:
                        raise
                    else:
                        continue
                same = live is not None and pair is not None and all(pair[key] == live[key] for key in ids)
                found += [pair | {"is_live": same}] if pair else []
        return found

    def shadow_owes(self, task: str) -> list[str]:
        """Days of videos that the shadow may not have scored, as a night died over it."""
        with suppress(storage.Damaged):  # a note lost costs those scores
            return (self._read(storage.join(self._root, task, "shadow_owes.json")) or {"days": []})["days"]
        return []

    def note_shadow_owes(self, task: str, days: Iterable[str]) -> None:
        uri, days = storage.join(self._root, task, "shadow_owes.json"), sorted(days)
        if days:
            self._write(uri, {"days": days})
        else:
            storage.delete(uri)

    def scored_up_to(self, task: str, scorer_id: str | None = None) -> Scored:
        """What the night noted that came furthest, whichever scorer was live; of texts what was noted under this one.

        A scorer whose prompts take no texts has not looked at those that came in its time.
        """
        folder = storage.join(self._root, task, "scored")
        notes = {}
        for name in storage.children(folder):
            with suppress(storage.Damaged):  # a note lost costs a longer look
                if note := self._read(storage.join(folder, name)):
                    notes[name] = note
        if not notes:
            return Scored()
        furthest = max(notes.values(), key=lambda note: note["videos_version"])
        own = notes.get(f"{scorer_id}.json", {})
        return Scored(furthest["videos_version"], own.get("texts_version"), tuple(furthest["open_days"]))

    def note_scored(
        self, task: str, scorer_id: str, videos_version: int, texts_version: int, open_days: Iterable[str] = ()
    ) -> None:
        """Note how far a night came; see Scored."""
        note = {
            "videos_version": videos_version,
            "texts_version": texts_version,
            "open_days": sorted(open_days),
            "at": datetime.now(UTC).isoformat(),
        }
        self._write(storage.join(self._root, task, "scored", f"{scorer_id}.json"), note)

    def _live(self, task: str) -> dict[str, Any] | None:
        return self._versions(task, "live.json", "`deepintuit promote` writes it anew")

    def _versions(self, task: str, name: str, remedy: str) -> dict[str, Any] | None:
        uri = storage.join(self._root, task, name)
        found = self._read(uri, remedy)
        if found is not None and not (isinstance(found, dict) and found.keys() >= _OF_LIVE):
            raise storage.Damaged(f"{uri}: expected {', '.join(sorted(_OF_LIVE))}, found something else: {remedy}")
        return found

    def _manifest(self, task: str, calibrator_id: str) -> dict[str, Any] | None:
        remedy = "`deepintuit calibrate` with the settings of that time writes it anew"
        return self._read(storage.join(self.folder(task, calibrator_id), "manifest.json"), remedy)

    @staticmethod
    def _read(uri: str, remedy: str = "") -> dict[str, Any] | None:
        try:
            return storage.read_json(uri)
        except FileNotFoundError:
            return None
        except storage.Damaged as error:
            raise storage.Damaged(f"{error}: {remedy}") from None

    @staticmethod
    def _write(uri: str, value: dict[str, Any]) -> None:
        storage.write(uri, json.dumps(value, indent=2, sort_keys=True).encode())
