"""Storage: the same promises on a disk and on a real S3 server process."""

from __future__ import annotations

import errno
import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from lake import storage
from lake.listing import walk

NAMES = ("_a.mp4", "-b.mp4", "with space.mp4", "50%25 off#1.mp4", "überall.mp4", "[1] x?.mp4", ".hidden.mp4")


@pytest.fixture(params=["plain", "file", "s3", "s3a"])
def root(request, tmp_path):
    """A fresh folder on each kind of store, as a URI."""
    if request.param in ("s3", "s3a"):
        bucket = request.getfixturevalue("s3_root").replace("s3://", f"{request.param}://")
        return storage.join(bucket, tmp_path.name)
    return f"{'file:' if request.param == 'file' else ''}{tmp_path / 'root'}"


def below(root: str, entry: storage.Entry) -> str:
    """The part of an entry's URI below the root, whatever its scheme."""
    return entry.uri.partition(root.partition(":")[2].strip("/") if ":" in root else root)[2].lstrip("/")


def test_what_was_written_is_read_and_replaced_as_a_whole(root):
    uri = storage.join(root, "a", "b.bin")
    storage.write(uri, b"one")
    assert storage.read_bytes(uri) == b"one" and storage.exists(uri)
    storage.write(uri, b"second")
    assert storage.read_bytes(uri) == b"second"
    assert [entry.size for entry in walk(root)] == [6]


def test_a_limit_refuses_larger_objects_and_takes_equal_ones(root):
    uri = storage.join(root, "x")
    storage.write(uri, b"12345")
    assert storage.read_bytes(uri, limit=5) == b"12345"
    with pytest.raises(storage.TooLarge, match="5 bytes, allowed are 4"):
        storage.read_bytes(uri, limit=4)


def test_what_is_absent_is_said_to_be_absent(root):
    uri = storage.join(root, "nothing", "here")
    with pytest.raises(FileNotFoundError):
        storage.read_bytes(uri)
    with pytest.raises(FileNotFoundError):
        list(walk(uri))
    assert not storage.exists(uri) and storage.children(uri) == []
    storage.delete(uri)


def test_children_are_names_one_level_down(root):
    for name in ("b/deep/er", "b/x", "a", "-c", "_d/y", "bb", ".hidden"):
        storage.write(storage.join(root, name), b"")
    assert storage.children(root) == sorted(["-c", "_d", "a", "b", "bb"])
    assert storage.children(storage.join(root, "b")) == ["deep", "x"]


def test_a_folder_exists_however_many_neighbours_begin_with_its_name(root):
    for number in range(25):
        storage.write(storage.join(root, f"run-{number}"), b"")
    assert not storage.exists(storage.join(root, "run"))
    storage.write(storage.join(root, "run/x"), b"")
    assert storage.exists(storage.join(root, "run")) and storage.exists(storage.join(root, "run/"))


def test_delete_takes_a_folder_with_all_below_and_nothing_beside_it(root):
    for name in ("run/a", "run/b/c", "run-2/a", "runs"):
        storage.write(storage.join(root, name), b"")
    storage.delete(storage.join(root, "run"))
    assert storage.children(root) == ["run-2", "runs"]
    storage.delete(storage.join(root, "runs"))
    assert storage.children(root) == ["run-2"]


@pytest.mark.parametrize("name", NAMES)
def test_names_are_taken_as_they_are(root, name):
    uri = storage.join(root, "in here", name)
    storage.write(uri, name.encode())
    (entry,) = walk(uri)
    assert below(root, entry) == f"in here/{name}"
    assert storage.read_bytes(entry.uri) == name.encode()
    storage.delete(uri)
    assert not storage.exists(uri)


def test_a_folder_is_walked_to_its_depths_and_not_beyond(root):
    wanted = sorted(["clips/" + name for name in NAMES] + ["clips/deep/er/z.mp4"])
    for name in [*wanted, "clips-2/other.mp4"]:
        storage.write(storage.join(root, name), name.encode())
    found = list(walk(storage.join(root, "clips")))
    assert sorted(below(root, entry) for entry in found) == wanted
    assert [storage.read_bytes(entry.uri).decode() for entry in found] == [below(root, entry) for entry in found]
    assert all(entry.modified_at.tzinfo is not None and entry.size > 0 for entry in found)


@pytest.mark.parametrize(
    ("pattern", "wanted"),
    [
        ("*.mp4", ["_a.mp4", "b.mp4"]),
        ("?.mp4", ["b.mp4"]),
        ("[b-c].*", ["b.mp4", "c.mov"]),
        ("d*/*.mp4", ["d/e.mp4"]),
        ("**/*.mp4", ["_a.mp4", "b.mp4", "d/e.mp4", "d/f/g.mp4"]),
        ("d/**", ["d/e.mp4", "d/f/g.mp4"]),
        ("d*", ["d/e.mp4", "d/f/g.mp4"]),
    ],
)
def test_globs_list_each_match_once(root, pattern, wanted):
    for name in ("_a.mp4", "b.mp4", "c.mov", "d/e.mp4", "d/f/g.mp4"):
        storage.write(storage.join(root, name), b"x")
    assert sorted(below(root, entry) for entry in walk(storage.join(root, pattern))) == wanted
    with pytest.raises(FileNotFoundError):
        list(walk(storage.join(root, "*.avi")))


def test_a_changed_file_has_another_etag_and_an_unchanged_one_the_same(root):
    uri = storage.join(root, "x.mp4")
    storage.write(uri, b"one")
    first, again = next(walk(uri)), next(walk(uri))
    storage.write(uri, b"two")
    assert first.etag == again.etag != next(walk(uri)).etag


def test_a_whole_bucket_can_be_the_root(s3_root):
    storage.write(f"{s3_root}/at-the-top", b"x")
    assert "at-the-top" in storage.children(s3_root) and "at-the-top" in storage.children(s3_root + "/")
    assert f"{s3_root}/at-the-top" in [entry.uri for entry in walk(s3_root)]


def test_more_objects_than_one_page_are_all_seen_and_deleted(s3_root):
    folder = f"{s3_root}/many"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: storage.write(f"{folder}/{number:04}", b""), range(1005)))
    assert len(storage.children(folder)) == 1005 == sum(1 for _ in walk(folder))
    storage.delete(folder)
    assert not storage.exists(folder)


def test_an_interrupted_write_leaves_the_old_bytes_and_no_rest(tmp_path, monkeypatch):
    path = tmp_path / "x"
    storage.write(str(path), b"old")

    def broken(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(storage.os, "fsync", broken)
    with pytest.raises(storage.StoreError, match=f"{path}: cannot be written: the disk is full"):
        storage.write(str(path), b"new")
    assert path.read_bytes() == b"old" and [entry.name for entry in tmp_path.iterdir()] == ["x"]


def test_a_link_is_a_file_of_its_own(tmp_path):
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "a.mp4").write_bytes(b"x")
    (tmp_path / "clips" / "b.mp4").symlink_to(tmp_path / "clips" / "a.mp4")
    (tmp_path / "clips" / "nowhere.mp4").symlink_to(tmp_path / "gone.mp4")
    (tmp_path / "link").symlink_to(tmp_path / "clips")
    wanted = [str(tmp_path / "clips" / name) for name in ("a.mp4", "b.mp4")]
    for source in ("clips", "link", "*", "link/*.mp4"):  # one file has one URI, whichever way one comes
        assert sorted(entry.uri for entry in walk(str(tmp_path / source))) == wanted, source


def test_a_name_that_is_not_utf8_is_listed_and_not_found(tmp_path):
    (tmp_path / os.fsdecode(b"caf\xe9.mp4")).write_bytes(b"x")
    (entry,) = walk(str(tmp_path))
    assert entry.uri == f"{tmp_path}/caf\\xe9.mp4"
    with pytest.raises(FileNotFoundError):
        storage.read_bytes(entry.uri)


def test_other_schemes_are_refused_by_name():
    for uri in ("gs://bucket/x", "http://host/x"):
        with pytest.raises(ValueError, match="is not one of file, s3, s3a"):
            storage.read_bytes(uri)


def test_relative_paths_become_absolute_and_uris_stay(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert storage.absolute("lake") == str(tmp_path / "lake")
    assert [storage.absolute(uri) for uri in ("s3://b/x", "file:/x")] == ["s3://b/x", "file:/x"]
