"""Given models in the registry, on a disk or on S3, when files were cut or a copy died, then doing it again mends them."""

from __future__ import annotations

import os

import pytest

from lake import storage
from lake.models import Models
from models.identity import model_digest

TASK, ID = "animals", "0" * 16
MANIFEST = {"model_id": ID, "created_at": "2026-03-01", "parent": "none"}


@pytest.fixture
def trained(tmp_path):
    """A model as a trainer leaves it."""
    folder = tmp_path / "trained"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(os.urandom(1000))
    (folder / "config.json").write_text("{}")
    return folder


@pytest.fixture
def models(anywhere, trained):
    made = Models(anywhere)
    made.save(TASK, trained, MANIFEST, ["b", "a"], "refined")
    return made


def cut(uri: str) -> None:
    storage.write(uri, storage.read_bytes(uri)[: storage.entry(uri).size // 2])


def test_it_is_found_by_id_and_by_name(models, anywhere):
    folder = models.folder(TASK, ID)
    assert models.find(TASK, "refined") == models.find(TASK, ID) == folder and models.aliases(TASK) == {"refined": ID}
    assert models.trained_on(TASK, ID) == ["b", "a"] and models.find(TASK, "nobody") is None


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "manifest.json"])
def test_doing_it_again_mends_what_was_cut(models, trained, name):
    uri = storage.join(models.folder(TASK, ID), name)
    whole = storage.read_bytes(uri)
    cut(uri)
    models.save(TASK, trained, MANIFEST, ["b", "a"], "refined")
    assert storage.read_bytes(uri) == whole


def test_a_name_that_was_cut_is_told_and_mended(models, trained, anywhere):
    uri = storage.join(anywhere, "registry", TASK, "models", "names", "refined.json")
    cut(uri)
    with pytest.raises(storage.Damaged, match=r"refined.json: expected .* given the same --out, writes it anew"):
        models.find(TASK, "refined")
    models.save(TASK, trained, MANIFEST, ["b", "a"], "refined")
    assert models.aliases(TASK) == {"refined": ID}


def test_what_a_killed_copy_left_is_no_part_of_a_model_and_goes(trained, tmp_path):
    models, named = Models(str(tmp_path / "lake")), model_digest(str(trained))
    models.save(TASK, trained, MANIFEST, [], "refined")
    folder = tmp_path / "lake" / "registry" / TASK / "models" / ID
    old, new = folder / ".0123456789ab.model.safetensors", folder / ".ba9876543210.model.safetensors"
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    assert model_digest(str(folder)) == named
    models.save(TASK, trained, MANIFEST, [], "refined")
    assert not old.exists() and new.exists()  # somebody may be writing the newer one
