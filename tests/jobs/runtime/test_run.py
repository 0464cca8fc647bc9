"""A run: what it makes of a lake's root, the rows it leaves of itself, and what is gone when it ends."""

from __future__ import annotations

import pytest
from support import Lake

from jobs.runtime.budget import Budget
from jobs.runtime.errors import UsageError
from jobs.runtime.run import Run
from lake import storage
from lake.commit import note_once
from lake.table import LakeError
from lake.waves import Held
from schemas.recipes import RECIPES


@pytest.fixture
def lake(tmp_path):
    """A lake that no test here needs Spark for."""
    made = Lake(tmp_path / "lake")
    with run_of(made, "ingest"):
        pass
    return made


def run_of(lake: Lake, job: str = "rollout", quiet: bool = True, **budget) -> Run:
    return Run(job, lake.settings(), Budget(**budget), quiet=quiet)


def events(lake: Lake, run: Run) -> dict[str, dict]:
    """A run's rows by event."""
    return {row["event"]: row for row in lake.rows("runs") if row["run_id"] == run.record.run_id}


def test_nothing_is_made_before_a_run_is_entered(tmp_path):
    run = run_of(Lake(tmp_path / "lake"), "ingest", max_videos=3)
    assert run.budget.max_videos == 3 and run.record.run_id.startswith("ingest-")
    assert run_of(Lake(tmp_path / "lake"), "ingest").record.run_id != run.record.run_id
    assert list(tmp_path.iterdir()) == []


def test_counts_add_up(tmp_path):
    record = run_of(Lake(tmp_path)).record
    record.add({"videos": 2, "engines": 0})
    record.add({"videos": 3})
    assert record.counts == {"videos": 5, "engines": 0}


def test_only_what_brings_files_in_makes_a_lake(tmp_path):
    with pytest.raises(LakeError, match=r"expected a lake, found no lake\.json; is lake.root right\?"):
        run_of(Lake(tmp_path / "mistyped")).__enter__()
    assert not (tmp_path / "mistyped").exists()


def test_a_finished_run_leaves_two_rows_and_no_folder(lake):
    with run_of(lake) as run:
        run.record.add({"videos": 7})
        run.record.versions["recipe_id"] = "r"
        storage.write(run.path("plan/part.parquet"), b"scratch")
        assert events(lake, run).keys() == {"started"}
    found = events(lake, run)
    assert found.keys() == {"started", "finished"}
    assert dict(found["finished"]["counts"]) == {"videos": 7}
    assert dict(found["finished"]["versions"]) == {"recipe_id": "r"} and found["finished"]["message"] is None
    assert storage.children(storage.join(str(lake.root), "staging")) == []


def test_waves_are_numbered_and_each_is_a_row(lake):
    begun = []

    def write(wave):
        begun.append(wave.id)
        return [], {"videos": len(begun)}

    with run_of(lake) as run:
        settled = [run.waves.make(write, {"recipe_id": "r"}) for _ in range(2)]
    assert begun == [f"{run.record.run_id}.w00001", f"{run.record.run_id}.w00002"]
    assert [wave.wave_id for wave in settled] == begun
    found = events(lake, run)
    assert [dict(found[f"wave w0000{n}"]["counts"])["videos"] for n in (1, 2)] == [1, 2]


def test_work_left_by_the_budget_is_deferred(lake):
    with run_of(lake) as run:
        run.record.deferred = True
    assert events(lake, run).keys() == {"started", "deferred"}


@pytest.mark.parametrize(
    ("error", "event", "message"),
    [
        (UsageError("expected a\nfolder"), "failed", "expected a"),
        (storage.StoreError("s3://b/x: cannot be read: it is away"), "failed", "s3://b/x: cannot be read: it is away"),
        (Held("wave w is held: too many"), "held", "wave w is held: too many"),
        (KeyError("lost"), "failed", "crashed: KeyError: 'lost'"),
        (
            KeyboardInterrupt(),
            "failed",
            "stopped; what is staged is published by the next run, the rest is pending again",
        ),
    ],
)
def test_a_run_that_fails_says_why_in_one_line_and_cleans_up(lake, error, event, message):
    with pytest.raises(type(error)), run_of(lake) as run:
        storage.write(run.path("plan"), b"scratch")
        raise error
    assert events(lake, run)[event]["message"] == message
    assert storage.children(storage.join(str(lake.root), "staging")) == []


def test_who_else_is_at_work_is_said(lake, capsys):
    with run_of(lake) as first, run_of(lake, "nightly", quiet=False):
        said = capsys.readouterr().err
    assert said.startswith(f"[nightly] also at work on this lake: {first.record.run_id}; ")


def test_what_an_id_stands_for_is_noted_once(lake):
    for _ in range(2):
        with run_of(lake) as run:
            run.register(RECIPES, "0123456789abcdef", {"b": 1, "a": 2})
    (row,) = lake.rows("recipes")
    # Marks expire after 30 days, what an id stands for does not: known under any other mark it is not noted again.
    again = row | {"recipe_id": "fedcba9876543210"}
    note_once(RECIPES, str(lake.root), [again], "an expired mark", "early.w00000")
    with run_of(lake) as run:
        run.register(RECIPES, "fedcba9876543210", {})
    assert len(lake.rows("recipes")) == 2
    assert (row["recipe_id"], row["task"], row["json"]) == ("0123456789abcdef", "handwriting", '{"a":2,"b":1}')
