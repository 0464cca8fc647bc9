"""Ingest: every listed file is new, a duplicate, quarantined, unchanged or deferred - and none of it twice."""

from __future__ import annotations

import csv
import hashlib
import os
import shutil
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support import Lake

from jobs.runtime.errors import UsageError
from jobs.steps import files
from lake import waves
from lake.listing import walk
from lake.maintenance import upkeep
from lake.names import wave_id, wave_of
from schemas.files import FILES
from udfs.inventory import LISTED_COLUMNS


@pytest.fixture
def uploads(clip_factory, tmp_path):
    """Three videos under names that real sources use, one of them twice, and four files that are none."""
    folder = tmp_path / "up loads"
    (folder / "deep").mkdir(parents=True)
    clips = sorted(clip_factory("test", 12).glob("*.mp4"))[:3]
    for clip, name in zip(clips, ("-a b.mp4", "_c%20#1.MP4", "deep/d.mp4"), strict=True):
        shutil.copyfile(clip, folder / name)
    shutil.copyfile(clips[0], folder / "deep" / "again.mp4")
    (folder / "broken.mp4").write_bytes(clips[0].read_bytes()[1000:])
    (folder / "text.mp4").write_text("not a video" * 100)
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "labels.csv").write_text("file,label\n")
    return folder


def counted(run) -> dict[str, int]:
    names = ("files_listed", "videos_new", "duplicates", "quarantined", "unchanged", "deferred")
    return {name: run.counts[name] for name in names if run.counts[name]}


def test_what_two_runs_at_once_refuse_is_noted_once(lake, uploads, monkeypatch):
    """Given a rival that reads the same source after we have looked what is new, then each refusal is one row."""
    make, came = files._make_wave, []

    def wave(*arguments):
        if not came:
            came.append(None)
            came.append(counted(lake.job("ingest", source=str(uploads))))
        return make(*arguments)

    monkeypatch.setattr(files, "_make_wave", wave)
    mine = counted(lake.job("ingest", source=str(uploads)))
    assert came[1]["quarantined"] == 3 and mine == {"files_listed": 7, "unchanged": 7}
    assert len(lake.rows("quarantine")) == 3 == len({row["row_key"] for row in lake.rows("quarantine")})
    assert len(lake.rows("files")) == 7


def test_a_source_is_read_once_in_portions_and_a_changed_file_again(lake, uploads):
    first = lake.job("ingest", source=str(uploads), max_videos=2)
    assert counted(first)["deferred"] == 5 and first.deferred and len(lake.rows("files")) == 2
    rest = lake.job("ingest", source=str(uploads))
    assert counted(rest)["unchanged"] == 2 and counted(rest)["files_listed"] == 7 and not rest.deferred
    both = {name: first.counts[name] + rest.counts[name] for name in ("videos_new", "duplicates", "quarantined")}
    assert both == {"videos_new": 3, "duplicates": 1, "quarantined": 3}
    reasons = {row["row_key"].rpartition("/")[2]: row["reason"] for row in lake.rows("quarantine")}
    assert reasons == {"broken.mp4": "unreadable", "text.mp4": "not_a_video", "empty.mp4": "empty_file"}
    names = {row["external_id"]: row["video_id"] for row in lake.rows("files") if row["status"] == "ok"}
    assert names.keys() == {"-a b", "_c%20#1", "d", "again"} and names["again"] == names["-a b"]
    assert names["d"] == hashlib.sha256((uploads / "deep" / "d.mp4").read_bytes()).hexdigest()

    shutil.copyfile(uploads / "deep" / "d.mp4", uploads / "broken.mp4")
    os.utime(uploads / "text.mp4", (1, 1))
    again = lake.job("ingest", source=str(uploads))
    assert counted(again) == {"files_listed": 7, "duplicates": 1, "quarantined": 1, "unchanged": 5}
    assert len(lake.rows("videos")) == 3


def test_an_empty_folder_is_nothing_to_do(lake, tmp_path):
    (tmp_path / "empty").mkdir()
    run = lake.job("ingest", source=str(tmp_path / "empty"))
    assert run.counts["files_listed"] == 0 and lake.rows("files") == []


def test_links_and_strange_names_are_files_like_others(lake, uploads):
    (uploads / "link.mp4").symlink_to(uploads / "-a b.mp4")
    shutil.copyfile(uploads / "-a b.mp4", uploads / os.fsdecode(b"caf\xe9.mp4"))
    run = lake.job("ingest", source=str(uploads))
    assert counted(run) == {"files_listed": 9, "videos_new": 3, "duplicates": 2, "quarantined": 4}
    assert "bad_name" in {row["reason"] for row in lake.rows("quarantine")}


def test_a_file_that_vanished_after_the_listing_is_left_for_another_time(lake, uploads, monkeypatch):
    vanished = uploads / "vanished.mp4"

    def listing(source):
        shutil.copyfile(uploads / "text.mp4", vanished)
        entries = list(walk(source))
        vanished.unlink()
        return iter(entries)

    monkeypatch.setattr(files, "walk", listing)
    run = lake.job("ingest", source=str(uploads))
    assert counted(run) == {"files_listed": 8, "videos_new": 3, "duplicates": 1, "quarantined": 3, "deferred": 1}
    assert run.deferred and str(vanished) not in {row["uri"] for row in lake.rows("files")}


def test_after_the_deadline_everything_is_left_for_another_time(lake, uploads):
    run = lake.job("ingest", source=str(uploads), ends_at=datetime.now(UTC) - timedelta(seconds=1))
    assert counted(run) == {"files_listed": 7, "deferred": 7} and run.deferred
    assert lake.rows("files") == lake.rows("videos") == []


def test_many_files_are_read_in_waves_of_neighbours(lake, uploads, monkeypatch):
    """A content that comes in two of them is one video; that `maintain` runs beside it changes nothing."""
    publish = waves.publish

    def compacting(lake, wave, audited):
        landed = publish(lake, wave, audited)
        upkeep(FILES, lake.root, "maintain", 128 << 20, 24)
        return landed

    monkeypatch.setattr(waves, "publish", compacting)
    shutil.copyfile(uploads / "-a b.mp4", uploads / "zz twin.mp4")
    monkeypatch.setattr(files, "FILES_PER_WAVE", 4)
    monkeypatch.setattr(files, "_FILES_PER_CHUNK", 3)
    run = lake.job("ingest", source=str(uploads))
    assert counted(run) == {"files_listed": 8, "videos_new": 3, "duplicates": 2, "quarantined": 3}
    rows = sorted(lake.rows("files"), key=lambda row: row["uri"])
    ids = [row["wave_id"] for row in rows]
    assert len(rows) == 8 and len(set(ids)) == 2 and ids == sorted(ids)
    assert rows[0]["video_id"] == rows[-1]["video_id"] and ids[0] != ids[-1]
    assert len({row["video_id"] for row in lake.rows("videos")}) == len(lake.rows("videos")) == 3
    written = {wave_of(name.name) for name in (lake.root / "tables" / "files").glob("*.parquet")}
    assert written == {*ids, wave_id("maintain", 0)}


def as_csv(path, entries) -> None:
    """Names alone."""
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["uri"])
        rows.writerows([entry.uri] for entry in entries)


def as_parquet(path, entries) -> None:
    """All that a listing says, and columns of the store's own."""
    columns = {name: [getattr(entry, name) for entry in entries] for name in LISTED_COLUMNS.names}
    columns["etag"][1] = columns["size"][2] = None  # not known of every file
    table = pa.table(columns, LISTED_COLUMNS).append_column("storage_class", pa.array(["cold"] * len(entries)))
    pq.write_table(table, path)


@pytest.mark.parametrize(("name", "write"), [("LIST.CSV", as_csv), ("list.parquet", as_parquet)])
def test_an_inventory_is_as_good_as_a_listing(lake, uploads, tmp_path, name, write):
    (uploads / "-a b.mp4").rename(uploads / 'say "a, b" \\ #.mp4')
    entries = list(walk(str(uploads)))
    write(tmp_path / name, [*entries, entries[0]])  # one is named twice, and one is no video
    run = lake.job("ingest", source=str(tmp_path / name))
    assert counted(run) == {"files_listed": 7, "videos_new": 3, "duplicates": 1, "quarantined": 3}
    columns = ("uri", "etag", "size", "modified_at")
    found = [tuple(row[column] for column in columns) for row in lake.rows("files")]
    videos = [entry for entry in entries if not entry.uri.endswith(".csv")]
    listed = [tuple(getattr(entry, column) for column in columns) for entry in videos]
    untold = {entries[2].uri} if name == "list.parquet" else set()
    assert sorted(row for row in found if row[0] not in untold) == sorted(row for row in listed if row[0] not in untold)
    assert len(found) == len(listed)
    listed = lake.job("ingest", source=str(uploads))
    assert counted(listed) == {"files_listed": 7, "unchanged": 7}


def test_what_an_inventory_names_and_nobody_has_is_left_for_another_time(lake, uploads, tmp_path):
    clip = uploads / "deep" / "d.mp4"
    (tmp_path / "list.csv").write_text(f"uri,owner\n{clip},x\n{uploads}/gone.mp4,x\n,x\n")
    run = lake.job("ingest", source=str(tmp_path / "list.csv"))
    assert counted(run) == {"files_listed": 2, "videos_new": 1, "deferred": 1} and run.deferred
    shutil.copyfile(uploads / "empty.mp4", uploads / "gone.mp4")
    again = lake.job("ingest", source=str(tmp_path / "list.csv"))
    assert counted(again) == {"files_listed": 2, "unchanged": 1, "quarantined": 1}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "no such inventory file"),
        ("", "expected an inventory with a column uri .*, found no columns"),
        ("file,size\na.mp4,1\n", "expected an inventory with a column uri .*, found file, size"),
        ("uri\n/clips/a.mp4\nclips/b.mp4\n", "expected whole URIs or absolute paths, found 'clips/b.mp4'"),
    ],
)
def test_an_inventory_that_will_not_do_is_refused_with_what_is_expected(lake, tmp_path, text, said):
    path = tmp_path / "list.csv"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UsageError, match=f"--source {path}: {said}"):
        lake.job("ingest", source=str(path))


def test_real_clips_are_new_duplicate_or_quarantined(spark, shared, tmp_path):
    lake = Lake(tmp_path / "lake")
    run = lake.job("ingest", source=str(shared / "clips"))
    assert counted(run) == {"files_listed": 29, "videos_new": 24, "duplicates": 1, "quarantined": 4}
    reasons = {row["row_key"].rpartition("/")[2]: row["reason"] for row in lake.rows("quarantine")}
    assert reasons == {
        "made_zero_bytes.mp4": "empty_file",
        "made_text_not_video.mp4": "not_a_video",
        "made_truncated_half_moov_at_end.mp4": "unreadable",
        "made_audio_only.mkv": "no_video_stream",
    }
    assert len({row["video_id"] for row in lake.rows("videos")}) == 24
