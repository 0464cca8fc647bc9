"""Given real sets as they come (a TSV, a CSV, classes as folders) and sites outside the project, then labels meet videos."""

from __future__ import annotations

import shutil

import pytest
from support import Lake, deepintuit

pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def clips(clip_factory):
    return sorted(clip_factory("test", 6).glob("*.mp4"))


def labelled(lake: Lake) -> dict[str, tuple[str, str]]:
    """Path below the source -> label and split, of videos that have come."""
    told = lake.at_hand().view("current_labels").select("video_id", "label").collect()
    labels = {row["video_id"]: row["label"] for row in told}
    splits = {row["video_id"]: row["split"] for row in lake.rows("splits")}
    videos = {row["uri"]: row["video_id"] for row in lake.rows("videos")}
    return {uri.partition("/videos/")[2]: (labels.get(video), splits.get(video)) for uri, video in videos.items()}


def test_folders_named_by_split_and_class_as_kinetics_has_them(spark, clips, tmp_path):
    """The same id may be in two of them."""
    placed = {
        "train/juggling soccer ball/ID_000010_000020.mp4": ("juggling_soccer_ball", "align"),
        "train/waving hand/ID_000010_000020.mp4": ("waving_hand", "align"),
        "val/playing guitar/OTHER_000000_000010.mp4": ("playing_guitar", "calibrate"),
        "test/waving hand/ID_000020_000030.mp4": ("waving_hand", "test"),
    }
    for clip, path in zip(clips, placed, strict=False):
        (tmp_path / "videos" / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(clip, tmp_path / "videos" / path)
    lake = Lake(tmp_path / "lake", conf="conf/kinetics.yaml")
    done = lake.job("ingest", source=str(tmp_path / "videos"))
    assert done.counts["splits_new"] == 4 and labelled(lake) == placed
    again = lake.job("ingest", source=str(tmp_path / "videos"))
    assert again.counts["unchanged"] == 4 and len(lake.rows("labels")) == 4


def test_the_csv_of_smarthome_bench(spark, clips, tmp_path):
    (tmp_path / "videos").mkdir()
    for number, clip in enumerate(clips[:3], 1):
        shutil.copy2(clip, tmp_path / "videos" / f"smartbench_{number:04}.mp4")
    (tmp_path / "Video_Annotation.csv").write_text(
        "Title,Category,Anomaly Tag,Description\n"
        'smartbench_0001,"Wildlife, Security",Abnormal,"A bear\nat the door."\n'
        "smartbench_0002,Other,Normal,\n"
        "smartbench_0003,Security,Vague Abnormal,x\n"
        "smartbench_0004,Other,Normal,not here yet\n"
    )
    lake = Lake(tmp_path / "lake", conf="conf/smarthome.yaml")
    lake.job(
        "ingest", source=str(tmp_path / "videos"), labels=str(tmp_path / "Video_Annotation.csv"), split="calibrate"
    )
    assert labelled(lake) == {
        "smartbench_0001.mp4": ("abnormal", "calibrate"),
        "smartbench_0002.mp4": ("normal", "calibrate"),
        "smartbench_0003.mp4": ("abnormal", "calibrate"),
    }
    facts = sorted((row["external_id"], row["name"], row["value"]) for row in lake.rows("facets"))
    assert facts == [
        ("smartbench_0001", "category", "Security"),
        ("smartbench_0001", "category", "Wildlife"),
        ("smartbench_0002", "category", "Other"),
        ("smartbench_0003", "category", "Security"),
        ("smartbench_0004", "category", "Other"),
    ]


def test_a_site_its_label_set_and_its_labels_may_lie_anywhere(clips, tmp_path):
    """Given nothing of a task inside the project, then the command line finds all of it; and files whose names
    come again, or differ by extension alone, are told apart by their paths."""
    site, videos = tmp_path / "site", tmp_path / "videos"
    (site / "sets").mkdir(parents=True)
    (site / "sets" / "pets.yaml").write_text("task: pets\nlabels:\n  cat: A cat.\n  dog: A dog.\n")
    (site / "site.yaml").write_text(f"task: sets/pets.yaml\nlake: {{root: {tmp_path / 'lake'}}}\n")
    for clip, path in zip(clips, ("a/0001.mp4", "b/0001.mp4", "x.mp4", "x.avi"), strict=False):
        (videos / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(clip, videos / path)
    (site / "labels.csv").write_text(
        "file,label,split\na/0001.mp4,cat,test\nb/0001,dog,test\nx.mp4,dog,test\nx.avi,cat,test\n"
    )
    ended = deepintuit(
        *("ingest", "--conf", str(site / "site.yaml"), "--source", str(videos), "--labels", str(site / "labels.csv"))
    )
    assert ended.returncode == 0, ended.stderr
    lake = Lake(tmp_path / "lake", conf=str(site / "site.yaml"))
    assert {path: label for path, (label, _) in labelled(lake).items()} == {
        "a/0001.mp4": "cat",
        "b/0001.mp4": "dog",
        "x.mp4": "dog",
        "x.avi": "cat",
    }
    assert {row["task"] for row in lake.rows("labels")} == {"pets"} and lake.rows("quarantine") == []
