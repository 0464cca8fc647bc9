"""Given what the checks of some waves found, then what fails now is told first, with how it was before."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from support import Lake

from jobs.runtime import cli
from lake import commit
from lake.catalog import create_all
from schemas.quality import QUALITY
from schemas.recipes import RECIPES
from schemas.runs import RUNS
from schemas.scorers import SCORERS
from schemas.scores import SCORES
from schemas.traces import TRACES


def result(wave: int, check: str, unexpected: int, days_ago: float) -> dict:
    return {
        "wave_id": f"w{wave}",
        "table": "traces",
        "check": check,
        "about": "",
        "severity": "refuse",
        "success": unexpected == 0,
        "unexpected": unexpected,
        "rows": 100,
        "expected": f"{check} holds",
        "checked_at": datetime.now(UTC) - timedelta(days=days_ago),
    }


@pytest.fixture(scope="module")
def checked(spark, tmp_path_factory):
    """fails fails in the newest wave, mended failed before that, rises fails more than it did, old was long ago."""
    lake = Lake(tmp_path_factory.mktemp("quality") / "lake")
    found = {
        "fails": {1: 0, 2: 10, 3: 5},
        "mended": {1: 0, 2: 40, 3: 0},
        "rises": {1: 2, 2: 10, 3: 30},
        "fine": {1: 0, 2: 0, 3: 0},
    }
    days = {1: 10, 2: 3, 3: 1}
    rows = [result(wave, check, bad, days[wave]) for check, own in found.items() for wave, bad in own.items()]
    create_all(str(lake.root))
    noted = [*rows, result(0, "old", 100, 90)]
    commit.note_once(QUALITY, str(lake.root), noted, "checked", "ingest-20260102T030405-abcdef.w00001")
    return lake


def quality(lake, capsys, *arguments: str) -> tuple[int, dict, str]:
    code = cli.main(["quality", "--conf", "conf/local.yaml", "--set", f"lake.root={lake.root}", *arguments])
    said = capsys.readouterr()
    return code, json.loads(said.out), said.err


def own(found: list[dict]) -> list[tuple]:
    return [
        (row["check"], row["waves_failed"], row["share"], row["share_before"])
        for row in found
        if row["table"] == "traces"
    ]


def test_what_fails_now_comes_first_the_worst_before_the_others(checked, capsys):
    code, document, _ = quality(checked, capsys, "--days", "7")
    assert code == 0
    assert own(document["failing_now"]) == [("rises", 2, 0.2, 0.02), ("fails", 2, 0.075, 0.0)]
    assert own(document["failed_lately"]) == [("mended", 1, 0.2, 0.0)]
    assert document["failing_now"][0]["newest_wave"] == {"wave_id": "w3", "unexpected": 30, "rows": 100}
    assert document["failing_now"][0]["expected"] == "rises holds"


def test_of_days_without_a_wave_nothing_is_known(checked, capsys):
    _, document, _ = quality(checked, capsys, "--days", "30")
    assert own(document["failing_now"])[0] == ("rises", 3, pytest.approx(0.14), None)


def test_what_stops_a_wave_comes_before_what_refuses_rows(checked, capsys):
    rate = result(3, "rate", 1, 1) | {"severity": "stop", "about": "r"}
    commit.note_once(QUALITY, str(checked.root), [rate], "rate", "ingest-20260102T030405-abcdef.w00002")
    _, document, _ = quality(checked, capsys, "--days", "7")
    first = document["failing_now"][0]
    assert (first["check"], first["about"], first["severity"]) == ("rate", "r", "stop")


def test_rows_that_refer_to_nothing_are_counted(checked, capsys):
    def score(video: str, scorer: str, days_ago: float = 0) -> dict:
        day = datetime.now(UTC).date() - timedelta(days=days_ago)
        return {"video_id": video, "scorer_id": scorer, "input_digest": "0", "ingested_on": day}

    root, wave = str(checked.root), "score-20260102T030405-abcdef.w00001"
    commit.note_once(SCORERS, root, [{"scorer_id": "known"}], "scorer", wave)
    traced = {"video_id": "a", "input_digest": "0", "recipe_id": "r", "ingested_on": datetime.now(UTC).date()}
    commit.note_once(TRACES, root, [traced], "trace", wave)
    commit.note_once(RECIPES, root, [{"recipe_id": "r"}], "recipe", wave)
    scores = [score("a", "known"), score("b", "known"), score("c", "nobody"), score("d", "nobody", 100)]
    commit.note_once(SCORES, root, scores, "scores", wave)
    code, document, said = quality(checked, capsys, "--references", "--strict")
    assert [(row["table"], row["columns"], row["rows"]) for row in document["refer_to_nothing"]] == [
        ("traces", ["video_id"], 1),
        ("scores", ["video_id", "input_digest"], 2),
        ("scores", ["scorer_id"], 1),
    ]
    assert code == 3 and "2 rows of scores refer to nothing in traces, as of b" in said


def test_a_lake_where_nothing_arrives_is_told(checked, capsys):
    code, document, said = quality(checked, capsys, "--strict", "--max-age", "24")
    assert code == 3 and document["hours_since_a_wave"]["videos"] is None
    assert "expected videos of the last 24 hours, but none has ever come" in said


def test_ten_times_as_few_videos_as_usual_are_told(spark, tmp_path, capsys):
    """Given a week of a hundred videos a day, when eleven come, then that may be; when nine do, then a pipeline ends."""
    lake = Lake(tmp_path / "lake")
    create_all(str(lake.root))

    def came(days_ago: int, videos: int) -> None:
        at, name = datetime.now(UTC) - timedelta(days=days_ago), f"w{days_ago:05}-{videos}"
        wave = {"run_id": "r", "event": f"wave {name}", "at": at, "counts": [("videos_landed", videos)]}
        commit.note_once(RUNS, str(lake.root), [wave], name, "ingest-20260102T030405-abcdef.w00001")

    for days_ago in range(2, 9):
        came(days_ago, 100)
    came(1, 11)
    code, document, _ = quality(lake, capsys, "--strict")
    assert code == 0 and (document["landed"]["videos"]["rows"], document["landed"]["videos"]["usually"]) == (11, 100)
    assert document["landed"]["traces"] is None
    came(0, 9)
    code, _, said = quality(lake, capsys, "--strict")
    assert code == 3 and "expected about 100 new videos, as on most days, found 9 on" in said


def test_a_warning_ends_no_pipeline(spark, tmp_path, capsys):
    lake = Lake(tmp_path / "lake")
    create_all(str(lake.root))
    warned = result(3, "drift", 1, 1) | {"severity": "warn"}
    commit.note_once(QUALITY, str(lake.root), [warned], "rate", "ingest-20260102T030405-abcdef.w00002")
    code, document, _ = quality(lake, capsys, "--strict")
    assert code == 0 and document["failing_now"][0]["check"] == "drift"


def test_strict_ends_a_pipeline(checked, capsys):
    code, document, said = quality(checked, capsys, "--strict")
    assert code == 3 and len(document["failing_now"]) == 3
    (line,) = said.splitlines()
    assert line.startswith(
        "deepintuit: quality: 3 checks failed in the newest wave of their table (traces.rate of r, wave w3: rate holds; "
        "traces.rises: 30 of 100"
    )
