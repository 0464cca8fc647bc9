"""One Spark session for a test process, real clips, and a way to run jobs on a lake of one's own."""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: two test processes on two cores; threads beside them spin

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as searches
from support import PROJECT, SHARED, Lake

_LONGEST_FIRST = ("test_demo.py", "test_refine.py", "test_kill.py", "test_night.py")


def pytest_addoption(parser):
    parser.addoption(
        "--soak",
        action="store_true",
        help="also the tests marked soak: kill a run at every point, race and look for bad input for longer",
    )


def pytest_configure(config):
    """Searches by hypothesis: the same cases each time, or with --soak ever new ones, and many."""
    once = [HealthCheck.function_scoped_fixture]
    if config.getoption("--soak"):
        searches.register_profile("ours", max_examples=5000, deadline=None, suppress_health_check=once)
    else:
        searches.register_profile("ours", derandomize=True, deadline=None, suppress_health_check=once, database=None)
    searches.load_profile("ours")


def pytest_collection_modifyitems(config, items):
    """Long files start first; a file's tests stay together (--dist loadfile). What is marked soak is for --soak."""
    if not config.getoption("--soak"):
        deep = [item for item in items if item.get_closest_marker("soak")]
        config.hook.pytest_deselected(items=deep)
        items[:] = [item for item in items if item not in deep]
    place = {name: number for number, name in enumerate(_LONGEST_FIRST)}
    items.sort(key=lambda item: place.get(item.path.name, len(place)))


@pytest.fixture(scope="session")
def spark():
    from conf.settings import load
    from jobs.runtime import session

    # Workers unpickle functions that tests pass in, so they need the tests' folders too.
    folders = [str(PROJECT), *(str(PROJECT / "tests" / room) for room in (".", "jobs", "udfs", "lake"))]
    os.environ["PYTHONPATH"] = os.pathsep.join(folders)
    started = session.start("tests", load("conf/local.yaml").spark)
    started.sparkContext.setLogLevel("OFF")
    yield started
    started.stop()


@pytest.fixture(scope="session")
def clip_factory(tmp_path_factory):
    """make(subset, count) -> folder with that many real H.264 clips of the benchmark and their labels.csv."""
    from models.handwriting import clips

    made: dict[tuple[str, int], Path] = {}

    def make(subset: str, count: int) -> Path:
        if (subset, count) not in made:
            made[subset, count] = tmp_path_factory.mktemp(f"{subset}-{count}")
            clips.generate(made[subset, count], subset, count, seed=0)
        return made[subset, count]

    return make


@pytest.fixture(scope="session")
def shared():
    """The folder shared/ beside the project; tests that need it skip where it is absent."""
    if not SHARED.is_dir():
        pytest.skip(f"no {SHARED}: this test looks at real files that are not part of the project")
    return SHARED


@pytest.fixture
def lake(spark, tmp_path):
    return Lake(tmp_path / "lake")
