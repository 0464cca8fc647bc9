"""Given a video that kills every engine it meets, then it alone gets error rows and all others get their traces."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import av
import pytest
from support import Lake

from benchmarks import null_engine
from jobs.runtime.errors import EnginesDie
from jobs.steps import rollouts
from udfs import rollout as udf

pytestmark = pytest.mark.timeout(1800)


@pytest.fixture
def lake(spark, clip_factory, tmp_path):
    """Four videos to roll out. Every death costs the start of another engine: one that starts at once will do."""
    made = Lake(tmp_path / "lake", "engine.per_cluster=1", f"engine.kind={null_engine.KIND}")
    made.job("ingest", source=str(clip_factory("refine", 4)))
    return made


def deadly(poison: set[str]):
    """The udf of the rollouts, but for what its engine makes of some videos."""

    def rollout(plan):
        work = udf.rollout(plan)

        def run(batches):
            def look(batches):
                for batch in batches:
                    if poison & set(batch.column("video_id").to_pylist()):
                        plan.on_engine_start()  # it was up before this video came
                        os._exit(70)
                    yield batch

            yield from work(look(batches))

        return run

    return rollout


def test_the_culprit_is_found_by_halving(lake, monkeypatch):
    poison = sorted(row["video_id"] for row in lake.rows("videos"))[0]
    monkeypatch.setattr(rollouts, "rollout", deadly({poison}))
    run = lake.job("rollout")
    by_video: dict[str, list] = {}
    for row in lake.rows("traces"):
        by_video.setdefault(row["video_id"], []).append(row)
    assert len(by_video) == 4 and all(len(rows) == 4 for rows in by_video.values())
    assert {row["status"] for row in by_video.pop(poison)} == {"generation_error"}
    assert "generation_error" not in {row["status"] for rows in by_video.values() for row in rows}
    assert run.counts["traces"] == 16


def test_engines_that_die_over_everything_are_no_videos_fault(lake, monkeypatch):
    """Given a machine that kills its engines, then the run ends after the first few; all of it is tried again."""
    monkeypatch.setattr(rollouts, "_MOST_CULPRITS", 1)
    with monkeypatch.context() as patch:
        patch.setattr(rollouts, "rollout", deadly({row["video_id"] for row in lake.rows("videos")}))
        with pytest.raises(EnginesDie, match="look at the machines"):
            lake.job("rollout")
    assert [row["status"] for row in lake.rows("traces")] == ["generation_error"] * 4
    assert lake.job("rollout").counts["status_ok"] == 16


def test_where_the_first_name_is_gone_the_same_bytes_are_read_under_another(spark, clip_factory, tmp_path):
    """Given a video under two names, when the first of them vanishes, then the next try reads the second."""
    folder = tmp_path / "clips"
    shutil.copytree(clip_factory("refine", 2), folder)
    first = min(folder.glob("*.mp4"))
    twin = folder / "zz-twin.mp4"
    twin.write_bytes(first.read_bytes())
    lake = Lake(tmp_path / "lake", "engine.per_cluster=1", f"engine.kind={null_engine.KIND}", "rollout.n=2")
    assert lake.job("ingest", source=str(folder)).counts["duplicates"] == 1
    seen = {row["video_id"]: row["uri"] for row in lake.rows("videos")}
    (video,) = {row["video_id"] for row in lake.rows("files") if row["uri"].endswith(twin.name)}
    Path(seen[video].removeprefix("file://")).unlink()
    lake.job("rollout")
    assert {(row["status"], row["attempt"]) for row in lake.rows("traces") if row["video_id"] == video} == {
        ("generation_error", 0)
    }
    again = lake.job("rollout")
    assert again.counts["traces"] == 2
    by_attempt = {
        (row["attempt"], row["rollout_index"]): row["error"] for row in lake.rows("traces") if row["video_id"] == video
    }
    assert set(by_attempt) == {(0, 0), (0, 1), (1, 0), (1, 1)}
    assert "not_found" in by_attempt[0, 0] and by_attempt[1, 0] is None


def test_a_video_that_is_damaged_is_marked_and_so_are_its_traces(spark, clip_factory, tmp_path):
    folder = tmp_path / "clips"
    shutil.copytree(clip_factory("refine", 1), folder)
    (sound,) = folder.glob("*.mp4")
    data = bytearray(sound.read_bytes())
    with av.open(str(sound)) as container:
        packets = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    for packet in packets[len(packets) // 2 :]:
        at = data.index(packet)
        data[at : at + len(packet)] = bytes(len(packet))
    (folder / "damaged.mp4").write_bytes(bytes(data))
    lake = Lake(tmp_path / "lake", "engine.per_cluster=1", f"engine.kind={null_engine.KIND}", "rollout.n=1")
    lake.job("ingest", source=str(folder))
    damage = {Path(row["uri"]).name: row["damage"] for row in lake.rows("videos")}
    assert damage[sound.name] == 0 and 0.3 < damage["damaged.mp4"] < 0.7
    lake.job("rollout")
    names = {row["video_id"]: Path(row["uri"]).name for row in lake.rows("videos")}
    errors = {names[row["video_id"]]: row["error"] for row in lake.rows("traces")}
    assert errors[sound.name] is None and errors["damaged.mp4"].startswith("damaged: ")
    strict = Lake(tmp_path / "strict", "decode.max_damage=0.1")
    assert strict.job("ingest", source=str(folder)).counts["quarantined"] == 1
    (row,) = strict.rows("quarantine")
    assert row["reason"] == "damaged" and "is lost, the limit is 10%" in row["message"]
