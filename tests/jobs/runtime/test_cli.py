"""The command line: wrong usage ends with exit code 2 and one clear line, never with a traceback."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support import PROJECT, deepintuit, last_json

from jobs.runtime import cli
from lake import table
from lake.catalog import create_all


@pytest.fixture
def stopped(spark, tmp_path, capsys):
    """stopped(words) -> the one line with which the command was refused."""

    def command(*words: str) -> str:
        capsys.readouterr()
        root = f"lake.root={tmp_path / 'lake'}"
        code = cli.main([words[0], "--conf", "conf/local.yaml", "--set", root, "--quiet", *words[1:]])
        out, err = capsys.readouterr()
        assert code == 2 and out == "" and "Traceback" not in err
        (line,) = err.splitlines()
        assert line.startswith("deepintuit: ")
        return line.removeprefix("deepintuit: ")

    return command


@pytest.mark.parametrize("job", cli.JOBS)
def test_every_job_has_a_module_and_explains_itself(job, capsys):
    module = cli.module_of(job)
    assert callable(module.run) and callable(module.main) and cli.JOBS[job] and module.__doc__
    with pytest.raises(SystemExit) as done:
        cli.main([job, "--help"])
    assert done.value.code == 0 and module.__doc__.strip().splitlines()[0][:60] in capsys.readouterr().out


def test_no_job_is_forgotten():
    modules = {path.stem for path in (PROJECT / "jobs").glob("*.py") if "\ndef add_arguments(" in path.read_text()}
    assert {job.replace("-", "_") for job in cli.JOBS} == modules


def test_mistakes_in_settings_and_arguments(stopped, capsys):
    assert "nearest valid one is 'rollout.temperature'" in stopped("status", "--set", "rollout.temprature=1")
    assert "expected a length such as 90m" in stopped("rollout", "--deadline", "soon")
    for words in (["ingest", "--max-videos", "0"], ["fly"], [], ["ingest", "--split", "trial"]):
        with pytest.raises(SystemExit) as done:
            cli.main(words)
        (line,) = capsys.readouterr().err.splitlines()
        assert done.value.code == 2 and line.startswith("deepintuit: ")


def test_what_is_not_there(stopped, tmp_path):
    for job in ("rollout", "nightly", "promote", "evaluate"):
        assert "`deepintuit ingest` makes one" in stopped(job)  # a mistyped lake.root must not look like success
    create_all(str(tmp_path / "lake"))
    assert "no-model" in stopped("rollout", "--set", "model.path=no-model")
    assert "task handwriting has no live versions" in stopped("nightly")
    assert "has no calibrator 0123; registered: none" in stopped("promote", "--calibrator", "0123")
    assert "expected a folder, a glob or a file that exists" in stopped("ingest", "--source", str(tmp_path / "none"))
    assert "scheme 'gs' is not one of" in stopped("ingest", "--source", "gs://bucket/clips")
    assert "give --source, --labels, --texts or several of them" in stopped("ingest")


def test_a_label_outside_the_set_and_bad_sql(stopped, tmp_path):
    (tmp_path / "labels.csv").write_text("file,label\na,sideways\n")
    line = stopped("ingest", "--labels", str(tmp_path / "labels.csv"))
    assert "expected a label out of rising, falling, mixed, found 'sideways' (1 rows)" in line
    for data, said in (
        (b"", "found an empty file"),
        (b"\0\1\2", "found binary data"),
        ("file,label\n\u00fc,rising\n".encode("latin-1"), "expected UTF-8 text"),
    ):
        (tmp_path / "labels.csv").write_bytes(data)
        assert said in stopped("ingest", "--labels", str(tmp_path / "labels.csv"))
    assert "found a folder" in stopped("ingest", "--labels", str(tmp_path))
    (tmp_path / "labels.csv").write_text("file,label\na,sideways\n")  # told before any video is read
    assert "found 'sideways'" in stopped(
        "ingest", "--labels", str(tmp_path / "labels.csv"), "--source", str(tmp_path / "x")
    )
    assert "no such file" in stopped("ingest", "--source", str(tmp_path), "--labels", str(tmp_path / "none.csv"))
    assert "sql: " in stopped("sql", "SELECT nothing FROM videos")
    line = stopped("sql", "SELECT * FROM current_score")
    assert (
        "sql: expected a table or view of the lake, found current_score; there are current_facets, current_imports, "
        in line
    )
    assert "DIVIDE_BY_ZERO" in stopped("sql", "SELECT 1/0")
    for statement in ("DROP TABLE traces", "INSERT INTO files SELECT * FROM files", "SET a=b", "DELETE FROM files"):
        assert "sql: expected a query, found" in stopped("sql", statement)
    assert "expected a query" in stopped("sql", "WITH x AS (SELECT 1) INSERT INTO files SELECT * FROM x")
    assert "sql: " in stopped("sql", "SELEKT 1")


def test_a_query_that_names_a_strange_column_is_told_without_its_plan(stopped, tmp_path):
    create_all(str(tmp_path / "lake"))
    line = stopped("sql", "SELECT nope FROM current_texts")
    assert "name `nope` cannot be resolved. Did you mean" in line and "Project" not in line and len(line) < 400


def test_a_lake_of_another_version(stopped, tmp_path, monkeypatch):
    monkeypatch.setitem(table._PROPERTIES, table.VERSION_PROPERTY, "0")
    monkeypatch.setattr(table, "SCHEMA_VERSION", "0")
    create_all(str(tmp_path / "lake"))
    monkeypatch.undo()
    for words in (["status"], ["rollout"], ["maintain"], ["sql", "SELECT 1"]):
        assert f"expected schema version {table.SCHEMA_VERSION}, found 0" in stopped(*words)


def test_sql_prints_one_document_a_row(spark, tmp_path, capsys):
    words = ["sql", "SELECT 1 AS a UNION ALL SELECT 2 ORDER BY a;", "--json"]
    asked = [*words, "--conf", "conf/local.yaml", "--set", f"lake.root={tmp_path}", "--quiet"]
    assert cli.main(asked) == 2
    assert "expected a lake, found no lake.json" in capsys.readouterr().err
    create_all(str(tmp_path))
    assert cli.main(asked) == 0
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == [{"a": 1}, {"a": 2}]


def submit(*words) -> subprocess.CompletedProcess:
    """spark-submit as in a shell with the environment activated, from a folder of somebody else."""
    bin_folder = Path(sys.executable).parent
    path = f"{bin_folder}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        [bin_folder / "spark-submit", *words],
        cwd="/",
        env={**{key: value for key, value in os.environ.items() if key != "PYTHONPATH"}, "PATH": path},
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_spark_submit_runs_the_same_job(clip_factory, tmp_path):
    source = tmp_path / "clips"
    source.mkdir()
    shutil.copy(next(clip_factory("test", 12).glob("*.mp4")), source)
    words = ["--conf", PROJECT / "conf" / "local.yaml", "--set", f"lake.root={tmp_path / 'lake'}", "--source", source]
    ended = submit(PROJECT / "jobs" / "ingest.py", *words)
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert last_json(ended.stdout)["counts"]["videos_new"] == 1


def test_properties_given_to_spark_submit_win(tmp_path):
    create_all(str(tmp_path))
    ended = submit(
        "--conf", "spark.sql.ansi.enabled=false", PROJECT / "jobs" / "sql.py", "SELECT 1/0 IS NULL AS x", "--json",
        "--set", f"lake.root={tmp_path}",
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert last_json(ended.stdout) == {"x": True}


def test_a_command_prints_its_own_lines_and_nobody_elses(clip_factory, tmp_path):
    """No word of log4j, of modules that incubate, of engines: standard error is the job's, and the last line a document."""
    source = tmp_path / "clips"
    source.mkdir()
    shutil.copy(next(clip_factory("test", 12).glob("*.mp4")), source)
    words = ["--conf", "conf/local.yaml", "--set", f"lake.root={tmp_path / 'lake'}", "--source", str(source)]
    ended = deepintuit("ingest", *words)
    assert ended.returncode == 0, ended.stderr[-3000:]
    lines = ended.stderr.splitlines()
    assert lines and all(line.startswith("[ingest] ") for line in lines) and len(lines) < 10
    assert len(ended.stdout.splitlines()) == 1 and last_json(ended.stdout)["counts"]["videos_new"] == 1


def test_ctrl_c_is_one_line(asking):
    asking.press_ctrl_c()
    assert asking.ended() == (
        130,
        ["deepintuit: stopped; what is staged is published by the next run, the rest is pending again"],
    )


@pytest.mark.parametrize("place", ["deepintuit-*/logs/*.log", "deepintuit-*/scratch/*/blockmgr-*"])
def test_so_it_is_while_spark_starts(started, place):
    """The JVM comes up, then Spark's context, which brings a handler of its own."""
    command = started("sql", "SELECT 1")
    command.wait_for(place)
    command.press_ctrl_c()
    code, lines = command.ended()
    assert code == 130 and len(lines) == 1 and lines[0].startswith("deepintuit: stopped; ")
