"""Versions of the reasoning model, as plain folders in Hugging Face layout under <lake>/registry/.

<task>/models/<id>/config.json, *.safetensors, ...   written once, as the trainer left them
<task>/models/<id>/trained_on.txt                    ids of the videos that it learned from, sorted, one a line
<task>/models/<id>/manifest.json                     what it is; written last: without it nothing is registered
<task>/models/names/<name>.json                      which id a name stands for: aligned, refined, ...
"""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from lake import storage

_LONG_AGO_S, _LEFT_OVER = 3600.0, re.compile(r"\.[0-9a-f]{12}\.")  # see storage.scratch
_MANIFEST, _NAMES, _TRAINED_ON = "manifest.json", "names", "trained_on.txt"


class Models:
    """The models of one lake. Its methods raise storage.Damaged for a file that was cut short."""

    def __init__(self, root: str) -> None:
        self._root = storage.join(root, "registry")

    def folder(self, task: str, model_id: str) -> str:
        return storage.join(self._root, task, "models", model_id)

    def save(self, task: str, local: Path, manifest: dict[str, Any], trained_on: Iterable[str], alias: str) -> None:
        """Register the model in a local folder under manifest["model_id"], and give it a name that an older one may have.

        One that is known already stays as it is, and so does a name that a newer one has: doing it again changes nothing,
        and mends what was cut short since. Raises StoreError, and nothing is registered then.
        """
        model_id = manifest["model_id"]
        folder = self.folder(task, model_id)
        for path in sorted(path for path in local.rglob("*") if path.is_file()):
            uri = storage.join(folder, *path.relative_to(local).parts)
            if _size(uri) != path.stat().st_size:
                self._copy(path, uri)
        if self.known(task, model_id) is None:
            storage.write(storage.join(folder, _TRAINED_ON), "".join(f"{id}\n" for id in trained_on).encode())
            storage.write(storage.join(folder, _MANIFEST), _json(manifest))
        _sweep(folder)
        holder = None
        with suppress(storage.Damaged):  # a name that was cut short is what this mends
            holder = self.known(task, self._named(task, alias) or model_id)
        if holder is None or holder["created_at"] <= manifest["created_at"]:
            storage.write(self._name(task, alias), _json({"model_id": model_id}))

    def aliases(self, task: str) -> dict[str, str]:
        """Name -> id of the models that have a name."""
        files = storage.children(storage.join(self._root, task, "models", _NAMES))
        names = [file.removesuffix(".json") for file in files]
        return {name: found for name in names if (found := self._named(task, name))}

    def find(self, task: str, name: str) -> str | None:
        """The folder of a model by its name or id; None where there is none."""
        if "/" in name:
            return None
        model_id = self._named(task, name) or name
        return self.folder(task, model_id) if self.manifest(task, model_id) else None

    def known(self, task: str, model_id: str) -> dict[str, Any] | None:
        """The same as `manifest`, for who is about to register it: None also where what is there was cut short."""
        with suppress(storage.Damaged):
            return self.manifest(task, model_id)
        return None

    def manifest(self, task: str, model_id: str) -> dict[str, Any] | None:
        """What is known of a model; None where none of that id is registered."""
        return _read(storage.join(self.folder(task, model_id), _MANIFEST))

    def ancestry(self, task: str, model_id: str) -> list[dict[str, Any]]:
        """Manifests of a model and of what it was made from, as far as they are registered; newest first."""
        found: list[dict[str, Any]] = []
        while (manifest := self.manifest(task, model_id)) and manifest not in found:
            found.append(manifest)
            model_id = manifest["parent"]
        return found

    def trained_on(self, task: str, model_id: str) -> list[str]:
        """Ids of the videos that one stage learned from, sorted."""
        return storage.read_bytes(storage.join(self.folder(task, model_id), _TRAINED_ON)).decode().split()

    def _named(self, task: str, name: str) -> str | None:
        found = _read(self._name(task, name))
        return found and found["model_id"]

    def _name(self, task: str, name: str) -> str:
        return storage.join(self._root, task, "models", _NAMES, f"{name}.json")

    @staticmethod
    def _copy(path: Path, uri: str) -> None:
        local = storage.scratch(uri)
        try:
            with storage.doing("written", uri):
                shutil.copyfile(path, local)
            storage.put(local, uri)
        finally:
            local.unlink(missing_ok=True)  # what is left of a copy that failed would be one more file of the model


def _read(uri: str) -> Any:
    try:
        return storage.read_json(uri)
    except FileNotFoundError:
        return None
    except storage.Damaged as error:
        raise storage.Damaged(f"{error}: the command that trained it, given the same --out, writes it anew") from None


def _size(uri: str) -> int | None:
    try:
        return storage.entry(uri).size
    except FileNotFoundError:
        return None


def _sweep(folder: str) -> None:
    """Drop what copies that were killed have left; one that is still at work has written lately."""
    local = storage.local_path(folder)
    for path in local.rglob(".*") if local else ():
        with suppress(FileNotFoundError):
            if _LEFT_OVER.match(path.name) and time.time() - path.stat().st_mtime > _LONG_AGO_S:
                path.unlink()


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=2, sort_keys=True).encode()
