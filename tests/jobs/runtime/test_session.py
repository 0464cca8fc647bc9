"""Starting Spark: properties files, jars, what a GPU executor must look like, and what killed runs leave on a host."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time

import pytest
from pyspark import SparkConf

from jobs.runtime import session
from jobs.runtime.errors import SessionError
from jobs.runtime.session import check_slots, jars, properties, remove_leftovers
from lake.lease import start_ticks


def conf(**changed: str) -> SparkConf:
    """prod.conf with some properties changed."""
    made = SparkConf(loadDefaults=False)
    for key, value in {**properties("spark/prod.conf"), **changed}.items():
        made.set(key, value)
    return made


def test_the_production_properties_give_one_engine_an_executor():
    check_slots(conf(), 1)
    four = {f"spark.{who}.resource.gpu.amount": "4" for who in ("executor", "task")}
    check_slots(conf(**four), 4)


@pytest.mark.parametrize(
    ("key", "value", "found"),
    [
        ("spark.executor.resource.gpu.amount", "2", "found 2 per executor and 1 per task"),
        ("spark.task.resource.gpu.amount", "0.25", "0.25 per task"),
    ],
)
def test_two_engines_on_one_gpu_are_refused(key, value, found):
    with pytest.raises(SessionError, match=found):
        check_slots(conf(**{key: value}), 1)


def test_without_gpus_any_number_of_slots_will_do(spark):
    check_slots(spark.sparkContext.getConf(), 1)


def test_properties_are_read_as_spark_submit_reads_them(tmp_path):
    path = tmp_path / "site.conf"
    path.write_text("# a comment\n\nspark.a   x y \nspark.b\t2\nspark.empty\n")
    assert properties(str(path)) == {"spark.a": "x y", "spark.b": "2", "spark.empty": ""}
    with pytest.raises(SessionError, match="expected a file of Spark properties, found none"):
        properties("spark/none.conf")


def test_a_folder_without_delta_is_refused_and_no_folder_asks_maven(tmp_path):
    with pytest.raises(SessionError, match="expected Delta's jars"):
        jars(str(tmp_path))
    assert set(jars(None)) == {"spark.jars.packages"}


def test_a_jvm_that_does_not_start_is_told_with_the_place_where_it_says_why(tmp_path, monkeypatch):
    java = tmp_path / "bin" / "java"
    java.parent.mkdir()
    java.write_text("#!/bin/sh\necho no memory >&2\nexit 1\n")
    java.chmod(0o755)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    log = tmp_path / "logs" / "jvm.log"
    with pytest.raises(SessionError, match=rf"Spark's JVM did not start; it says why in {log}"):
        session.launch(SparkConf(loadDefaults=False), log)
    assert "no memory" in log.read_text()


@pytest.fixture
def host(tmp_path, monkeypatch):
    """A folder of our own in the place of the machine's temporary one."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return session.folder()


@pytest.fixture
def dead():
    """The name of what belonged to a process that is gone."""
    ended = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    name = f"{ended.pid}-{start_ticks(ended.pid)}-{session._here()}"
    ended.communicate()
    return name


LIVING = f"{os.getpid()}-{start_ticks(os.getpid())}-{session._here()}"
REBORN = f"{os.getpid()}-{start_ticks(os.getpid()) - 1}-{session._here()}"  # somebody else had this process's id before
ELSEWHERE = f"{os.getpid()}-{start_ticks(os.getpid()) - 1}-0a1b2c3d"  # a container that shares this folder


def leave(place, name: str, count: int) -> None:
    (place / name / "blockmgr").mkdir(parents=True)
    (place / name / "blockmgr" / "shuffle.data").write_bytes(b"x" * count)


@pytest.mark.parametrize("site", [False, True], ids=["the user's folder", "spark.local.dir of a site"])
def test_scratch_space_of_the_dead_is_removed_and_of_the_living_never(host, dead, tmp_path, site):
    place = tmp_path / "site" if site else host / "scratch"
    for name, count in ((dead, 100), (REBORN, 20), (LIVING, 3)):
        leave(place, name, count)
    leave(place, "blockmgr-of-others", 4)  # a site's folder is not ours alone
    assert remove_leftovers(str(place) if site else None, 1.0) == 120
    assert sorted(path.name for path in place.iterdir()) == sorted([LIVING, "blockmgr-of-others"])
    assert remove_leftovers(str(place) if site else None, 1.0) == 0


def test_what_is_left_of_another_container_goes_once_it_has_not_changed_for_long(host):
    leave(host / "scratch", ELSEWHERE, 7)
    assert remove_leftovers(None, 1.0) == 0
    long_ago = time.time() - 2 * 3600
    for path in (host / "scratch" / ELSEWHERE, *(host / "scratch" / ELSEWHERE).rglob("*")):
        os.utime(path, (long_ago, long_ago))
    assert remove_leftovers(None, 4.0) == 0 and remove_leftovers(None, 1.0) == 7


def test_links_in_scratch_space_are_not_followed(host, dead, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "precious").write_bytes(b"x" * 1000)
    leave(host / "scratch", dead, 1)
    (host / "scratch" / dead / "link").symlink_to(tmp_path / "elsewhere")
    (host / "scratch" / dead / "file").symlink_to(tmp_path / "elsewhere" / "precious")
    assert remove_leftovers(None, 1.0) == 1
    assert (tmp_path / "elsewhere" / "precious").exists() and not (host / "scratch" / dead).exists()


def test_logs_of_the_dead_stay_for_a_while_and_of_the_living_as_long_as_they_live(host, dead):
    (host / "logs").mkdir(parents=True)
    long_ago = time.time() - 3 * 3600
    for name, size, old in ((dead, 100, True), (REBORN, 20, False), (LIVING, 3, True)):
        log = host / "logs" / f"{name}.log"
        log.write_bytes(b"x" * size)
        if old:
            os.utime(log, (long_ago, long_ago))
    assert remove_leftovers(None, 4.0) == 0
    assert remove_leftovers(None, 2.0) == 100
    assert sorted(log.stem for log in (host / "logs").iterdir()) == sorted([REBORN, LIVING])


def test_a_host_without_leftovers_is_fine(host):
    assert remove_leftovers(None, 1.0) == 0 and remove_leftovers(str(host / "absent"), 1.0) == 0


def test_the_folders_of_this_process_are_the_ones_that_are_kept(host):
    assert session.log_file() == host / "logs" / f"{LIVING}.log"
    assert session._own_scratch(None) == host / "scratch" / LIVING
    assert remove_leftovers(None, 0.0) == 0 and (host / "scratch" / LIVING).is_dir()
