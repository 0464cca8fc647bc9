"""A night costs what is new: on a lake of 20,000 videos it reads what it reads on one of 1,000, whatever the clock says.

The lakes are those of benchmarks/bookkeeping.py, and so is the way in which bytes are counted.
"""

from __future__ import annotations

import shutil

import pytest

from benchmarks import archive, meters
from benchmarks.archive_night import ROLLOUTS
from models.handwriting import clips

pytestmark = [
    pytest.mark.timeout(1800),
    pytest.mark.skipif(
        shutil.which("cc") is None, reason="bytes read are counted by a library that needs a C compiler"
    ),
]

MADE = ("traces", "scores", "decisions")
SIZES = ("1k", "20k")
VIDEOS_A_NIGHT = 4000  # one night of 1,000 videos, five nights of 4,000


@pytest.fixture(scope="module")
def nights(tmp_path_factory):
    """For both sizes: what a night with nothing new costs, and then one with 5 new videos. All in one process.

    Before them, in a process that has not started Spark yet, an estimate of `backfill`.
    """
    folder = tmp_path_factory.mktemp("scale")
    clips.generate(folder / "new", "test", 5, seed=0)
    commands = []
    for size in SIZES:
        archive.make(folder / size, archive.count(size), workers=1, a_night=VIDEOS_A_NIGHT)
        settings = [word for value in archive.overrides_of(folder / size) for word in ("--set", value)]
        night = ["nightly", "--conf", "conf/local.yaml", "--set", "engine.per_cluster=1", *settings]
        commands += [night, [*night, "--source", str(folder / "new")]]
    estimate, *costs = meters.run(folder, [["backfill", *commands[0][1:]], *commands]).costs
    assert "estimated_videos" in estimate.document["counts"]
    return dict(zip(SIZES, zip(costs[::2], costs[1::2], strict=True), strict=True))


def opened(cost: meters.Cost, size: str) -> dict[str, int]:
    """Files opened of what the model and the calibrator made, by table."""
    return {table: cost.opened[f"{size}/{table}"] for table in MADE if f"{size}/{table}" in cost.opened}


def test_a_night_with_nothing_new_reads_no_file_of_what_was_made(nights):
    for size, (quiet, busy) in nights.items():
        assert opened(quiet, size) == {}
        assert quiet.spark_jobs == 0
        assert opened(busy, size).keys() == set(MADE)  # where they are read, the meter sees it


def test_what_a_night_reads_does_not_grow_with_the_archive(nights):
    for small, large in zip(*nights.values(), strict=True):
        assert large.bytes_read <= 1.5 * small.bytes_read


def test_of_what_was_made_only_the_partitions_of_what_is_new_are_read(nights):
    (_, small), (_, large) = nights.values()
    assert opened(large, "20k") == opened(small, "1k")


def test_every_new_video_is_decided_on_either_lake(nights):
    for _, busy in nights.values():
        counts = busy.document["counts"]
        assert (counts["videos_in_scope"], counts["videos_scored"], counts["decisions"]) == (5, 5, 5)
        assert counts["status_ok"] == 5 * ROLLOUTS
