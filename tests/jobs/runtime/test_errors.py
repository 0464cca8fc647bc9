"""Failures as people meet them: one clear line that names file, cause and remedy, and the exit code of its kind."""

from __future__ import annotations

import hashlib
import os
import re
import signal
import subprocess
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from py4j.protocol import Py4JError, Py4JNetworkError
from pyspark import SparkContext
from support import Lake

from benchmarks import null_engine
from conf.settings import SettingsError
from jobs.runtime import cli, errors
from jobs.runtime.errors import SessionError, UsageError, explain, summary, trace, worker_lost
from lake import commit, waves
from lake.catalog import create_all
from lake.commit import Fenced
from lake.parquet import PartWriter
from lake.registry import Registry, RegistryError, Scored
from lake.storage import Damaged, StoreError
from lake.table import LakeError, arrow_schema
from lake.waves import Held, Superseded
from models.calibration.calibrator import manifest, weights
from models.calibration.features import FeatureSpec
from models.calibration.linear import LinearCalibrator
from schemas.recipes import RECIPES
from udfs.calibrator import open_calibrator


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (UsageError, 2),
        (SettingsError, 2),
        (SessionError, 2),
        (RegistryError, 2),
        (LakeError, 2),
        (Damaged, 2),
        (Held, 3),
        (StoreError, 1),
        (Superseded, 1),
        (Fenced, 1),
    ],
)
def test_a_foreseen_failure_says_its_own_words_and_exits_by_its_kind(kind, code):
    assert explain(kind("what happened and what to do")) == ("what happened and what to do", code)


def test_ctrl_c_is_neither_success_nor_a_crash():
    assert explain(KeyboardInterrupt())[1] == 130


@pytest.mark.parametrize("kind", [Py4JNetworkError, ConnectionRefusedError, ConnectionResetError, EOFError])
def test_whatever_python_says_of_a_jvm_that_is_gone_it_is_said_in_one_way(kind):
    message, code = explain(kind("[Errno 111] Connection refused"))
    assert message.startswith("Spark's JVM is gone") and code == 1 and "\n" not in message


@pytest.mark.parametrize(("jvm", "gone"), [("exit 1", True), ("exec sleep 60", False)])
def test_an_error_without_a_word_is_the_jvms_end_only_if_it_has_ended(jvm, gone, monkeypatch):
    """All that py4j says of a call under which the connection was reset."""
    monkeypatch.setattr(errors, "_DIES_WITHIN_S", 0.5)
    process = subprocess.Popen(["sh", "-c", jvm])
    monkeypatch.setattr(SparkContext, "_gateway", SimpleNamespace(proc=process))
    try:
        message, code = explain(Py4JError("An error occurred while calling o102.parquet"))
        assert message.startswith("Spark's JVM is gone" if gone else "crashed: Py4JError: ") and code == 1
    finally:
        process.kill()
        process.wait()


def test_an_unforeseen_failure_is_a_crash_with_its_kind_first_line_and_trace():
    try:
        raise ZeroDivisionError("first line\nsecond line")
    except ZeroDivisionError as error:
        assert explain(error) == ("crashed: ZeroDivisionError: first line", 1)
        assert "test_errors.py" in trace(error)
    assert summary(ValueError("x" * 1000)) == "ValueError: " + "x" * 488


# Spark's own failures


def ran(work) -> BaseException:
    """What came of a stage that must fail."""
    with pytest.raises(Exception) as raised:
        work()
    return raised.value


def through(spark, body):
    """A stage of two tasks whose workers do this with each batch."""

    def run(batches):
        for batch in batches:
            body()
            yield batch

    return lambda: spark.range(2).mapInArrow(run, "id long").collect()


@pytest.mark.parametrize(
    "body",
    [
        lambda: os._exit(70),
        lambda: os._exit(0),
        lambda: os.kill(os.getpid(), signal.SIGKILL),
    ],
    ids=["exits", "exits in peace", "is killed"],
)
def test_a_worker_that_vanishes_is_lost(spark, body):
    error = ran(through(spark, body))
    assert worker_lost(error)
    said, code = explain(error)
    assert code == 1 and "\n" not in said and said.startswith("Spark lost a task's worker process again and again")


def test_a_worker_that_raises_is_not_lost_and_its_own_words_are_told(spark):
    def fail():
        raise LookupError("no such\nengine: nowhere")

    error = ran(through(spark, fail))
    assert not worker_lost(error)
    assert explain(error) == ("crashed: PythonException: engine: nowhere", 1)


def test_neither_is_a_query_that_fails_nor_an_error_of_our_own(spark):
    assert not worker_lost(ran(lambda: spark.sql("SELECT 1 / (id - id) FROM range(3)").collect()))
    assert not worker_lost(ran(lambda: spark.sql("SELECT nothing FROM range(3)")))
    assert not worker_lost(EOFError("the end"))


def emptied(file: Path) -> None:
    file.write_bytes(b"")


def cut(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


@pytest.mark.parametrize("spoil", [Path.unlink, emptied, cut])
def test_a_data_file_that_is_gone_or_damaged_is_named(spark, tmp_path, spoil):
    folder = str(tmp_path / "table")
    spark.range(3, numPartitions=1).write.format("delta").save(folder)
    (file,) = Path(folder).glob("*.parquet")
    rows = spark.read.format("delta").load(folder).where("id >= 0")
    spoil(file)
    said, code = explain(ran(rows.collect))
    assert code == 2 and said.startswith(f"{file}: expected a data file of a table, found ") and "\n" not in said
    assert ("RESTORE" in said) == (spoil is Path.unlink)


def test_a_data_file_that_its_store_does_not_give_now_may_be_given_later(monkeypatch):
    """Nobody is told to restore a table for a store that was slow."""

    kind = SimpleNamespace(getSimpleName=lambda: "SparkException", getName=lambda: "org.apache.spark.SparkException")
    slow = SimpleNamespace(
        getClass=lambda: kind,
        getCondition=lambda: "FAILED_READ_FILE.NO_HINT",
        getMessageParameters=lambda: {"path": "s3a://b/lake/tables/traces/x.parquet"},
        getMessage=lambda: "503 SlowDown\nat java",
    )
    monkeypatch.setattr(errors, "java_causes", lambda error: [slow])
    told = explain(RuntimeError("pages of Java"))
    assert told == ("s3a://b/lake/tables/traces/x.parquet: cannot be read: 503 SlowDown", 1)


# A process that goes away


JVM_GONE = "Spark's JVM is gone (killed, perhaps for want of memory): "


def test_a_jvm_that_is_killed_in_a_query_is_one_line(asking):
    asking.kill_jvm()
    code, (line,) = asking.ended()
    assert code == 1 and line.startswith(f"deepintuit: {JVM_GONE}")


def test_a_jvm_that_stands_still_is_ended(impatient):
    impatient.stop_jvm()
    code, (warning, line) = impatient.ended()
    assert warning == "[spark] WARNING: the JVM has not answered for 3 s: it is ended"
    assert code == 1 and line.startswith(f"deepintuit: {JVM_GONE}")


def test_a_jvm_that_is_killed_in_a_wave_is_also_in_the_row_of_the_run(started, clip_factory, tmp_path):
    uploads = tmp_path / "uploads"
    uploads.mkdir()
    clip = next(clip_factory("test", 12).glob("*.mp4"))
    for number in range(200):
        (uploads / f"{number}.mp4").symlink_to(clip)
    ingest = started("ingest", "--conf", "conf/local.yaml", "--source", str(uploads), "--quiet")
    ingest.wait_for("lake/staging/*/w00001/progress/task-*.json")
    ingest.kill_jvm()
    code, (line,) = ingest.ended()
    assert code == 1 and line.startswith(f"deepintuit: {JVM_GONE}")
    assert messages(ingest.lake) == [line.removeprefix("deepintuit: ")]
    assert list((ingest.lake.root / "staging").iterdir()) == []


# Files and disks


def failed(capsys, lake: Lake, *words: str) -> tuple[int, str]:
    """Exit code and the one line of a command that could not go on."""
    capsys.readouterr()
    code = cli.main([*words, "--conf", "conf/local.yaml", "--set", f"lake.root={lake.root}"])
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert out == "" and len(lines) < 5
    (line,) = [line for line in lines if not line.startswith(f"[{words[0]}] ")]
    assert line.startswith("deepintuit: ")
    return code, line.removeprefix("deepintuit: ")


def messages(lake: Lake) -> list[str]:
    """What failed runs left in the lake."""
    return [row["message"] for row in lake.rows("runs") if row["event"] == "failed"]


def halve(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


@pytest.fixture
def lake(tmp_path):
    create_all(str(tmp_path / "lake"))
    return Lake(tmp_path / "lake")


def test_half_a_live_json_is_named(lake, capsys):
    lake.at_hand().registry.promote("handwriting", {"scorer_id": "s", "rule_id": "r", "calibrator_id": "c"})
    file = lake.root / "registry" / "handwriting" / "live.json"
    halve(file)
    code, line = failed(capsys, lake, "nightly")
    assert code == 2 and line.startswith(f"{file}: expected a JSON document, found ")
    assert line.endswith("`deepintuit promote` writes it anew")
    assert messages(lake) == [line]
    file.write_text("{}")
    code, line = failed(capsys, lake, "nightly")
    assert code == 2 and line.startswith(f"{file}: expected rule_id, scorer_id, found something else: ")


@pytest.mark.parametrize("name", ["calibrators/c/manifest.json", "promoted/s.r.json"])
def test_so_is_half_of_any_other_file_of_the_registry(lake, name):
    registry = lake.at_hand().registry
    registry.save("handwriting", {"calibrator_id": "c", "created_at": "2026-03-01"}, b"weights")
    for scorer_id in ("s", "t"):  # of the live one live.json says the same
        registry.promote("handwriting", {"scorer_id": scorer_id, "rule_id": "r", "calibrator_id": "c"})
    looks = {
        "calibrators/c/manifest.json": lambda: registry.calibrator("handwriting", "c"),
        "promoted/s.r.json": lambda: registry.promotions("handwriting"),
    }
    looks[name]()
    halve(lake.root / "registry" / "handwriting" / name)
    with pytest.raises(Damaged, match=f"{name}: expected a JSON document.* writes .*anew"):
        looks[name]()
    registry.save("handwriting", {"calibrator_id": "c", "created_at": "2026-03-01"}, b"weights")
    registry.promote("handwriting", {"scorer_id": "s", "rule_id": "r", "calibrator_id": "c"})
    looks[name]()


def test_half_a_note_of_how_far_a_night_came_costs_a_longer_look_and_no_more(lake):
    registry = lake.at_hand().registry
    registry.note_scored("handwriting", "earlier", 2, 5, ["2026-03-01"])
    registry.note_scored("handwriting", "later", 3, 7)
    assert registry.scored_up_to("handwriting", "earlier") == Scored(3, 5)  # it has not looked at the texts since
    halve(lake.root / "registry" / "handwriting" / "scored" / "later.json")
    assert registry.scored_up_to("handwriting", "earlier") == Scored(2, 5, ("2026-03-01",))
    assert registry.scored_up_to("handwriting", "later") == Scored(2, None, ("2026-03-01",))
    halve(lake.root / "registry" / "handwriting" / "scored" / "earlier.json")
    assert registry.scored_up_to("handwriting") == Scored()


def test_half_a_calibrators_weights_are_told_before_any_worker_starts(tmp_path):
    spec = FeatureSpec(("a", "b"), 0)
    one = np.ones(len(spec.names))
    made = LinearCalibrator(spec, one, one, np.ones((2, len(one))), np.ones(2))
    registry = Registry(str(tmp_path))
    registry.save("t", manifest(made, "r", 4) | {"created_at": "2026-03-01"}, weights(made))
    folder = registry.folder("t", manifest(made, "r", 4)["calibrator_id"])
    assert open_calibrator(folder).spec == spec
    halve(Path(folder, "weights.safetensors"))
    with pytest.raises(Damaged, match=r"weights.safetensors: expected the weights of a calibrator.* writes them anew"):
        open_calibrator(folder)
    registry.save("t", manifest(made, "r", 4) | {"created_at": "2026-03-02"}, weights(made))
    assert open_calibrator(folder).spec == spec


class Disk:
    """A file system of one megabyte."""

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir()
        tried = self._run("mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder))
        if tried.returncode:
            pytest.skip(f"this needs the right to mount a file system: {tried.stderr.strip()}")

    def fill(self, free: int = 0) -> None:
        """Leave so many bytes."""
        space = os.statvfs(self.folder)
        (self.folder / "filler").write_bytes(b"x" * (space.f_bavail * space.f_frsize - free))

    def make_read_only(self) -> None:
        assert self._run("mount", "-o", "remount,ro", str(self.folder)).returncode == 0

    def remove(self) -> None:
        self._run("umount", "--lazy", str(self.folder))  # Spark forgets to close what it could not write

    @staticmethod
    def _run(*words: str) -> subprocess.CompletedProcess:
        return subprocess.run(words, capture_output=True, text=True)


@pytest.fixture
def disk(tmp_path):
    made = Disk(tmp_path / "disk")
    try:
        yield made
    finally:
        made.remove()


FULL = "the disk is full: free space on it and run this again"
READ_ONLY = "the file system is read-only: mount it for writing, or point lake.root elsewhere"


@pytest.mark.parametrize(("spoil", "cause"), [(Disk.fill, FULL), (Disk.make_read_only, READ_ONLY)])
def test_a_disk_that_takes_no_new_lake(disk, tmp_path, capsys, spoil, cause):
    spoil(disk)
    code, line = failed(capsys, Lake(disk.folder / "lake"), "ingest", "--source", str(tmp_path))
    assert code == 1
    assert re.fullmatch(rf"{disk.folder}/lake/tables/\w+: cannot be made: {cause}", line)


@pytest.mark.parametrize("job", ["ingest", "nightly"])
@pytest.mark.parametrize(("spoil", "cause"), [(Disk.fill, FULL), (Disk.make_read_only, READ_ONLY)])
def test_a_disk_that_takes_nothing_more(disk, tmp_path, capsys, spoil, cause, job):
    create_all(str(disk.folder / "lake"))
    spoil(disk)
    code, line = failed(capsys, Lake(disk.folder / "lake"), job, "--source", str(tmp_path))
    assert code == 1
    assert re.fullmatch(rf"{disk.folder}/lake/staging/\S+/run.json: cannot be written: {cause}", line)


def test_a_log_that_takes_nothing_more(disk, monkeypatch):
    """The rows are written, and then there is no place for the entry that names them."""
    monkeypatch.setattr(commit, "_PAUSE_S", 0.0)
    root = str(disk.folder / "lake")
    create_all(root)
    with PartWriter(RECIPES, root, "r.w00001") as parts:
        parts.write(
            pa.Table.from_pylist([dict.fromkeys(column.name for column in RECIPES.columns)], arrow_schema(RECIPES))
        )
        files = parts.close()
    disk.fill()
    said = rf"{root}/tables/recipes: the log takes no entry, although nobody else writes there: {FULL}"
    with pytest.raises(StoreError, match=said):
        commit.append_once(RECIPES, root, files, "mark", "r.w00001")
    with pytest.raises(StoreError, match=said):
        commit.fence(RECIPES, root, "r")


def test_a_disk_that_fills_up_on_the_way_is_in_the_row_of_the_run(disk, tmp_path, capsys):
    """What was half written is gone again, and leaves the room to say so."""
    uploads = tmp_path / "uploads"
    uploads.mkdir()
    for number in range(3000):
        (uploads / f"{hashlib.sha256(bytes([number % 256, number // 256])).hexdigest()}.mp4").touch()
    lake = Lake(disk.folder / "lake")
    create_all(str(lake.root))
    disk.fill(free=100_000)
    code, line = failed(capsys, lake, "ingest", "--source", str(uploads))
    assert code == 1
    assert re.fullmatch(rf"{lake.root}/staging/ingest-\S+/listing/part-00001.parquet: cannot be written: {FULL}", line)
    assert messages(lake) == [line]
    assert list((lake.root / "staging").iterdir()) == []


def test_what_spark_could_not_write_is_named_too(spark, disk):
    rows = spark.range(100_000).selectExpr("sha2(cast(id AS string), 256) AS x")
    error = ran(lambda: rows.write.parquet(f"{disk.folder}/plan"))
    assert str(error).count("\n") > 100  # of which this is left:
    assert explain(error) == (f"{disk.folder}/plan: cannot be written: {FULL}", 1)
    assert not worker_lost(error)  # no video's fault


class Shelf:
    """A folder that can be unmounted and mounted again, with all that is in it."""

    def __init__(self, folder: Path):
        self.place, self._behind = folder / "mnt", folder / "behind"
        self.place.mkdir()
        self._behind.mkdir()
        self.put_back()

    def put_back(self) -> None:
        tried = subprocess.run(["mount", "--bind", str(self._behind), str(self.place)], capture_output=True, text=True)
        if tried.returncode:
            pytest.skip(f"this needs the right to mount a folder: {tried.stderr.strip()}")

    def take_away(self) -> None:
        subprocess.run(["umount", "--lazy", str(self.place)], check=True)


@pytest.fixture
def shelf(tmp_path):
    made = Shelf(tmp_path)
    yield made
    subprocess.run(["umount", "--lazy", str(made.place)], capture_output=True)


def test_a_lake_that_goes_away_in_a_wave_is_one_line_and_the_next_run_goes_on(
    spark, shelf, clip_factory, capsys, monkeypatch
):
    """Given a disk that is unmounted while a wave is settled, then nothing is written in its place, and nothing is lost."""
    lake = Lake(shelf.place / "lake", f"engine.kind={null_engine.KIND}")
    lake.job("ingest", source=str(clip_factory("test", 4)))
    for k, step in enumerate(("audit_output", "publish", "record"), 1):
        whole = getattr(waves, step)

        def without_it(*arguments, whole=whole):
            shelf.take_away()
            return whole(*arguments)

        with monkeypatch.context() as patched:
            patched.setattr(waves, step, without_it)
            settings = f"--set engine.kind={null_engine.KIND} --set rollout.n={k}"
            code, line = failed(capsys, lake, "rollout", *settings.split())
        assert code == 1 and line.startswith(f"{lake.root}: the lake went away in the middle of the run: bring it back")
        assert list(shelf.place.iterdir()) == []
        shelf.put_back()
    assert lake.job("rollout", "rollout.n=3").counts["rollouts"] == 0
    found = Counter((row["video_id"], row["rollout_index"]) for row in lake.rows("traces"))
    assert set(found.values()) == {1} and len(found) == 4 * 3
