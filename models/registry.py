"""Versions of calibrators and which of them is live, as plain files under <lake>/registry/.

<task>/calibrators/<id>/manifest.json, weights.safetensors    written once, manifest last
<task>/promoted/<scorer id>                                   every scorer that ever was live
<task>/live.json                                              what nightly uses; replaced as a whole by promote
"""

from __future__ import annotations

import json
from typing import Any

from models import storage


class RegistryError(LookupError):
    """Something was asked for that is not registered; the message says what is."""


class Registry:
    """The registry of one lake."""

    def __init__(self, root: str):
        self._root = storage.join(root, "registry")

    def folder(self, task: str, calibrator_id: str) -> str:
        return storage.join(self._root, task, "calibrators", calibrator_id)

    def save(self, task: str, manifest: dict[str, Any], weights: bytes) -> None:
        """Register a candidate under manifest["calibrator_id"]; saving the same one again changes nothing."""
        if self._manifest(task, manifest["calibrator_id"]) is not None:
            return
        folder = self.folder(task, manifest["calibrator_id"])
        storage.write(storage.join(folder, "weights.safetensors"), weights)
        storage.write(storage.join(folder, "manifest.json"), json.dumps(manifest, indent=2, sort_keys=True).encode())

    def calibrators(self, task: str) -> list[dict[str, Any]]:
        """Manifests of all candidates, oldest first."""
        names = storage.children(storage.join(self._root, task, "calibrators"))
        found = [self._manifest(task, name) for name in names]
        return sorted((manifest for manifest in found if manifest), key=lambda manifest: manifest["created_at"])

    def calibrator(self, task: str, calibrator_id: str | None = None) -> dict[str, Any]:
        """One candidate's manifest, the newest if no id is given. Raises RegistryError if there is none."""
        if calibrator_id is not None:
            manifest = self._manifest(task, calibrator_id)
            if manifest is None:
                known = ", ".join(entry["calibrator_id"] for entry in self.calibrators(task)) or "none"
                raise RegistryError(f"task {task} has no calibrator {calibrator_id}; registered: {known}")
            return manifest
        candidates = self.calibrators(task)
        if not candidates:
            raise RegistryError(f"task {task} has no calibrator yet; train one with `deepintuit calibrate`")
        return candidates[-1]

    def _manifest(self, task: str, calibrator_id: str) -> dict[str, Any] | None:
        try:
            return json.loads(storage.read_bytes(storage.join(self.folder(task, calibrator_id), "manifest.json")))
        except FileNotFoundError:
            return None

    def promote(self, task: str, live: dict[str, Any]) -> None:
        """Make these versions the live ones, all at once."""
        # Noted first: a scorer that is live is always among those that ever were.
        storage.write(storage.join(self._root, task, "promoted", live["scorer_id"]), live["promoted_at"].encode())
        storage.write(storage.join(self._root, task, "live.json"), json.dumps(live, indent=2, sort_keys=True).encode())

    def promoted(self, task: str) -> list[str]:
        """Ids of all scorers that are or were live; a candidate's scores are not among theirs."""
        return storage.children(storage.join(self._root, task, "promoted"))

    def live(self, task: str) -> dict[str, Any]:
        """The live versions. Raises RegistryError before the first promote."""
        try:
            return json.loads(storage.read_bytes(storage.join(self._root, task, "live.json")))
        except FileNotFoundError:
            raise RegistryError(
                f"task {task} has no live versions: run `deepintuit rollout`, `calibrate` and `promote` first"
            ) from None

    def live_rows(self) -> list[dict[str, str]]:
        """The live ids of every task that has any."""
        tasks = storage.children(self._root)
        found = [self.live(task) for task in tasks if storage.exists(storage.join(self._root, task, "live.json"))]
        return [{name: str(entry[name]) for name in ("task", "recipe_id", "scorer_id", "rule_id")} for entry in found]
