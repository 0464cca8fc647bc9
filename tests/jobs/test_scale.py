"""A night costs what is new: on a lake of 20,000 videos it reads what it reads on one of 1,000, whatever the clock says.

The lakes are those of benchmarks/bookkeeping.py, and so is the way in which bytes are counted.
"""

from __future__ import annotations

import shutil

import pytest

from benchmarks import archive, meters
from models.handwriting import clips

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        shutil.which("cc") is None, reason="bytes read are counted by a library that needs a C compiler"
    ),
]

OF_THE_ARCHIVE = ("traces", "scores", "decisions")
SIZES = ("1k", "20k")


@pytest.fixture(scope="module")
def nights(tmp_path_factory):
    """For both sizes: what a night with nothing new costs, and then one with 5 new videos."""
    folder = tmp_path_factory.mktemp("scale")
    clips.generate(folder / "new", "test", 5, seed=0)
    costs = {}
    for size in SIZES:
        lake = folder / size
        archive.make(lake, archive.count(size), workers=1)
        settings = [word for value in archive.overrides_of(lake) for word in ("--set", value)]
        night = ["nightly", "--conf", "conf/local.yaml", *settings]
        costs[size] = [meters.run(lake, *night), meters.run(lake, *night, "--source", str(folder / "new"))]
    return costs


def test_a_night_with_nothing_new_reads_no_file_of_what_was_made(nights):
    for quiet, busy in nights.values():
        assert not set(OF_THE_ARCHIVE) & quiet.opened.keys()
        assert quiet.spark_jobs == 0
        # The meter sees them where they are read.
        assert set(OF_THE_ARCHIVE) <= busy.opened.keys()


def test_what_a_night_reads_does_not_grow_with_the_archive(nights):
    for small, large in zip(nights["1k"], nights["20k"], strict=True):
        assert large.bytes_read <= 1.5 * small.bytes_read


def test_every_new_video_is_decided_on_either_lake(nights):
    for _, busy in nights.values():
        counts = busy.document["counts"]
        assert (counts["videos_in_scope"], counts["videos_scored"], counts["decisions"]) == (5, 5, 5)
        assert counts["status_ok"] == 5 * archive.ROLLOUTS


def test_on_the_large_lake_only_the_partitions_of_what_is_new_are_read(nights):
    small, large = nights["1k"][1], nights["20k"][1]
    for table in OF_THE_ARCHIVE:
        assert large.opened[table] == small.opened[table]
