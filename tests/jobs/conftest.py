"""One whole night, run once, for all tests that look at it."""

import shutil

import pytest
from support import Lake


@pytest.fixture(scope="session")
def night(spark, clip_factory, tmp_path_factory):
    lake = Lake(tmp_path_factory.mktemp("night") / "lake", "engine.per_cluster=1")  # starting one takes longest
    history, uploads = clip_factory("calibrate", 36), lake.root.parent / "uploads"
    shutil.copytree(clip_factory("test", 12), uploads)
    first = sorted(uploads.glob("*.mp4"))[0]
    (uploads / "broken.mp4").write_bytes(first.read_bytes()[1000:])
    (uploads / "nothing.mp4").write_bytes(b"")
    shutil.copyfile(first, uploads / "again.mp4")
    lake.uploads, lake.runs = uploads, {}
    runs = lake.runs
    runs["history"] = lake.job("ingest", source=str(history), labels=str(history / "labels.csv"))
    runs["rollout"] = lake.job("rollout", split="calibrate")
    runs["calibrate"] = lake.job("calibrate")
    runs["promote"] = lake.job("promote", force=True)  # of so few videos nothing is known to be better
    runs["nightly"] = lake.job("nightly", source=str(uploads))
    runs["labels"] = lake.job("ingest", labels=str(uploads / "labels.csv"))
    runs["evaluate"] = lake.job("evaluate", diagnostics=True)
    return lake
