"""A wave as a whole: given good rows each, when together they are not what they were before, then the wave is held."""

from __future__ import annotations

import secrets
from dataclasses import replace
from datetime import UTC, date, datetime

import pytest
from sealed import LABELS, SILENCE, TASK, abandon, frame, of_wave, trace

from lake import rates, recovery
from lake.rates import Past, Seen
from lake.staging import Manifest, Wave
from lake.waves import Held, settle
from lake.write import stage
from schemas.decisions import DECISIONS
from schemas.files import FILES
from schemas.label_set import LabelSet
from schemas.quality import QUALITY
from schemas.rates import Mean, Rate
from schemas.traces import TRACES

VIDEOS_OF_A_WAVE, K = 60, 3
INDEPENDENT = LabelSet(LABELS.slugs, "independent")


def failed(status: str) -> dict:
    return {"status": status, "label": None, "labels": None, "observation": None, "think": None}


@pytest.fixture
def maker() -> str:
    """A recipe without a past."""
    return secrets.token_hex(8)


def wave_of(lake, maker: str, rows: list[dict], table=TRACES, labels: LabelSet = LABELS) -> Wave:
    """A sealed wave of a run that is gone, made by one recipe, scorer and rule; each brings videos of its own."""
    run_id = f"rollout-20260102T030405-{secrets.token_hex(3)}"
    wave = Wave(lake.root, run_id, "w00001")
    made = dict.fromkeys(("recipe_id", "scorer_id", "rule_id"), maker)
    rows = [row | made | {"video_id": f"{run_id}-{row['video_id']}"} for row in rows]
    staged = stage(wave, table, frame(lake, table, rows))
    abandon(lake, run_id)
    wave.seal(Manifest(wave.id, "rollout", TASK, labels, 0.05, (staged,), min_rows=50))
    return wave


def traces(videos: int = VIDEOS_OF_A_WAVE, **of) -> list[dict]:
    """of: what all are, or by a call of their number and index."""
    return [
        trace(video, index, **{name: value(video, index) if callable(value) else value for name, value in of.items()})
        for video in range(videos)
        for index in range(K)
    ]


POISONED = {
    "nothing can be read": (
        [trace(v, i, **failed("parse_error")) for v in range(60) for i in range(K)],
        "few_parse_error",
    ),
    "no file can be decoded": (
        [trace(v, i, tokens=0, **failed("decode_error")) for v in range(60) for i in range(K)],
        "few_decode_error",
    ),
    "one label alone": (traces(2400, label="rising", labels=["rising"]), "labels_differ"),
    "siblings that say the same": (traces(1500, text=lambda video, index: str(video)), "siblings_differ"),
}


@pytest.mark.parametrize("case", POISONED, ids=str)
def test_a_model_gone_wrong_stops_its_wave_without_any_past(lake, maker, case):
    rows, check = POISONED[case]
    wave = wave_of(lake, maker, rows)
    with pytest.raises(Held, match=check):
        settle(lake, wave)
    assert of_wave(lake, wave, TRACES) == []
    (told,) = [row for row in of_wave(lake, wave, QUALITY) if not row["success"]]
    assert (told["check"], told["about"], told["severity"]) == (check, maker, "stop")
    found = recovery.recover(lake, SILENCE)  # it stays, and keeps its table closed, until somebody decides
    assert ("traces", TASK) in found.held and wave.manifest() is not None
    assert settle(lake, wave, release=True).landed["traces"].rows == len(rows)


def test_against_its_own_past_a_smaller_change_is_enough(lake, maker):
    settle(lake, wave_of(lake, maker[::-1], traces(label="rising", labels=["rising"])))  # of 60 videos that may be so
    for _ in range(2):
        settle(lake, wave_of(lake, maker, traces()))
    with pytest.raises(
        Held, match=r"tokens of an answer: expected 10 to 40 \(before, 20\), found 4 \(720 / 180 of 60 videos\)"
    ):
        settle(lake, wave_of(lake, maker, traces(tokens=4)))
    some_fail = [row | (failed("parse_error") if row["video_id"][-1] in "123" else {}) for row in traces(200)]
    with pytest.raises(Held, match="few_parse_error"):
        settle(lake, wave_of(lake, maker, some_fail))


def test_another_recipe_has_a_past_of_its_own(lake, maker):
    settle(lake, wave_of(lake, maker, traces()))
    settle(lake, wave_of(lake, maker[::-1], traces(tokens=4)))


def test_few_videos_say_nothing_and_one_bad_one_in_many_stops_nothing(lake, maker):
    settle(lake, wave_of(lake, maker, [trace(v, i, **failed("parse_error")) for v in range(49) for i in range(K)]))
    settle(
        lake,
        wave_of(lake, maker, [row | (failed("parse_error") if row["video_id"] == "v0000" else {}) for row in traces()]),
    )


def test_a_trial_may_be_as_odd_as_it_likes(lake, maker):
    wave = wave_of(lake, maker, traces(label="rising", labels=["rising"], tokens=1))
    wave.seal(replace(wave.manifest(), min_rows=None))
    settle(lake, wave)
    assert {row["severity"] for row in of_wave(lake, wave, QUALITY)} == {"refuse"}


def test_what_somebody_released_is_right_from_then_on(lake, maker):
    bad = [trace(v, i, **failed("parse_error")) for v in range(60) for i in range(K)]
    for _ in range(2):
        settle(lake, wave_of(lake, maker, traces()))
    first = wave_of(lake, maker, bad)
    with pytest.raises(Held):
        settle(lake, first)
    discarded = wave_of(lake, maker, bad)
    with pytest.raises(Held):
        settle(lake, discarded)  # what is not published yet is no past
    discarded.remove()
    settle(lake, first, release=True)
    settle(lake, wave_of(lake, maker, bad))


def test_a_stream_that_is_less_balanced_than_what_came_before_is_a_warning(lake, maker):
    settle(lake, wave_of(lake, maker, traces()))
    settled = settle(lake, wave_of(lake, maker, traces(label="rising", labels=["rising"])))
    assert settled.landed["traces"].rows == VIDEOS_OF_A_WAVE * K
    assert [doubt.rpartition("(")[2] for doubt in settled.doubts] == ["labels_differ)"]


def test_a_wave_that_nobody_released_moves_no_limit(lake, maker):
    """Given a small wave that was published with a warning, when a large one is as bad, then it is stopped all the same."""
    settle(lake, wave_of(lake, maker, traces()))
    for _ in range(2):  # a second one is told as well
        assert settle(lake, wave_of(lake, maker, traces(label="rising", labels=["rising"]))).doubts
        settle(lake, wave_of(lake, maker, traces(300)))
    with pytest.raises(Held, match="labels_differ"):
        settle(lake, wave_of(lake, maker, traces(2400, label="rising", labels=["rising"])))


def test_what_is_tried_again_and_a_store_that_was_away_stop_nothing(lake, maker):
    away = [trace(v, i, **failed("generation_error")) for v in range(60) for i in range(K)]
    assert "few_generation_error" in settle(lake, wave_of(lake, maker, away)).doubts[0]
    again = [row | {"attempt": 1, "status": "decode_error", "tokens": 0} for row in away]
    assert settle(lake, wave_of(lake, maker, again)).doubts == ()


def test_rollouts_of_one_video_are_no_independent_ones():
    """Given 80 answers of ten videos among a hundred, then it is of ten that something is known."""
    rate = Rate("few", "", "", "share", most=0.5)
    assert rates._result("r", rate, Seen(64, 80, 10), Past(), 1)["success"]
    assert not rates._result("r", rate, Seen(64, 80, 80), Past(), 1)["success"]


def test_a_key_that_comes_twice_counts_as_a_broken_row(lake, maker):
    rows = traces()
    wave = wave_of(lake, maker, [*rows, *rows])
    with pytest.raises(Held, match="180 of 360 rows broke the contract"):
        settle(lake, wave)


def test_files_that_the_stage_refused_count(lake):
    """Given a hundred files that were read, when most of them are no videos, then their wave is held, whatever was kept."""
    run_id = f"ingest-20260102T030405-{secrets.token_hex(3)}"
    wave = Wave(lake.root, run_id, "w00001")
    rows = [
        {
            "uri": f"file:///{run_id}/{n}",
            "etag": "1",
            "source": run_id,
            "status": "refused" if n < 80 else "ok",
            "reason": "not_a_video" if n < 80 else None,
            "video_id": None if n < 80 else f"{n:064x}",
            "seen_at": datetime.now(UTC),
        }
        for n in range(100)
    ]
    staged = stage(wave, FILES, frame(lake, FILES, rows))
    abandon(lake, run_id)
    wave.seal(Manifest(wave.id, "ingest", TASK, LABELS, 0.05, (staged,), min_rows=50))
    with pytest.raises(Held, match=r"cannot be taken for a video: expected at most 0\.5, found 0\.8 \(80 / 100\)"):
        settle(lake, wave)


def test_another_mix_of_decisions_is_a_warning_and_no_stop(lake, maker):
    def decided(label: str) -> list[dict]:
        return [
            {
                "video_id": f"v{n:04}",
                "task": TASK,
                "input_digest": "0" * 16,
                "label": label,
                "labels": [label],
                "top_prob": 0.9,
                "prediction_set": [label],
                "abstain": False,
                "reason": "clear",
                "decided_at": datetime.now(UTC),
                "ingested_on": date(2026, 1, 2),
            }
            for n in range(100)
        ]

    assert settle(lake, wave_of(lake, maker, decided("rising"), DECISIONS)).doubts == ()
    settled = settle(lake, wave_of(lake, maker, decided("falling"), DECISIONS))
    assert settled.landed["decisions"].rows == 100 and len(settled.doubts) == 2
    assert "share of decisions with the label falling: expected at most 0.2 (before, 0), found 1" in settled.doubts[0]


@pytest.mark.parametrize(
    ("seen", "past", "holds"),
    [
        (Seen(30, 100, 100), None, True),  # at most one half, without a past
        (Seen(80, 100, 100), None, False),
        (Seen(80, 100, 3), None, True),  # many rows of three videos
        (Seen(30, 100, 100), Past(newest=0.0), False),
        (Seen(12, 100, 100), Past(newest=0.0), True),  # perhaps, not surely, above a tenth
        (Seen(4, 100, 100), Past(newest=0.0), True),
        (Seen(48, 100, 100), Past(newest=0.45), True),
        (Seen(80, 100, 100), Past(newest=0.45), False),  # its past allows no more than the limit
        (Seen(80, 100, 100), Past(newest=0.01, released=(0.75,)), True),  # but for one that was released
        (Seen(95, 100, 100), Past(newest=0.01, released=(0.75,)), False),
    ],
)
def test_limits_of_a_share(seen, past, holds):
    rate = Rate("few", "", "", "share", most=0.5, rise=0.1, floor=0.05)
    assert rates._result("r", rate, seen, past or Past(), 1)["success"] is holds


@pytest.mark.parametrize(("total", "holds"), [(999, False), (1001, True), (3999, True), (4001, False)])
def test_limits_of_a_mean(total, holds):
    assert (
        rates._result("r", Mean("usual", "", "", "mean"), Seen(total, 100, 100), Past(newest=20.0), 1)["success"]
        is holds
    )


def test_a_healthy_wave_is_seldom_held_by_chance():
    """Given waves of a tenth of failures and a past that says so, when ten thousand come, then at most 1 % are held."""
    import numpy as np

    draws = np.random.default_rng(0).binomial(100, 0.2, 10_000)
    rate = Rate("few", "", "", "share", most=1.0, rise=0.1, floor=0.05)
    held = sum(not rates._result("r", rate, Seen(int(n), 100, 100), Past(newest=0.1), 1)["success"] for n in draws)
    assert held / len(draws) <= 0.015  # at the very limit itself


def test_small_waves_are_judged_together(lake, maker):
    """Given waves of ten videos that cannot be read, one after the other, then the sixth is held; a good one is not."""
    bad = [trace(v, i, **failed("parse_error")) for v in range(10) for i in range(K)]
    for _ in range(4):
        assert settle(lake, wave_of(lake, maker, bad)).doubts == ()
    settle(lake, wave_of(lake, maker, traces(5)))
    with pytest.raises(Held, match=r"found 0.9091 \(150 / 165 of 55 videos, with the small waves before it\)"):
        settle(lake, wave_of(lake, maker, bad))
    settle(lake, wave_of(lake, maker, traces(10)))


def test_no_drift_is_too_slow():
    """Given answers that grow by a hundredth from wave to wave, when they are twice as long as once, then one is held."""
    rate, waves, length = Mean("length", "", "", "mean tokens of an answer"), list[dict](), 1000
    while length < 5000:
        result = rates._result("r", rate, Seen(length * 100, 100, 100), rates._past_of(waves, rate, 50), 50)
        if not result["success"]:
            break
        waves.insert(0, result)
        length = round(length * 1.01)
    mean = sum(wave["unexpected"] for wave in waves[-20:]) / 2000
    assert len(waves) > 60 and waves[0]["unexpected"] / 100 <= 2 * mean < length


def test_where_labels_exclude_nothing_naming_none_any_more_or_always_one_is_seen(lake, maker):
    """Given a task of independent labels of which few videos have any, when a model names none, or names one of all."""
    names = list(LABELS.slugs[:2])

    def rows(*, rare: int) -> list[dict]:
        return traces(
            800, label=None, labels=lambda video, index: [names[video // rare % 2]] if video % rare == 0 else []
        )

    for _ in range(2):
        settle(lake, wave_of(lake, maker, rows(rare=5), labels=INDEPENDENT))
    with pytest.raises(Held, match="labels_are_named"):
        settle(lake, wave_of(lake, maker, traces(800, label=None, labels=[]), labels=INDEPENDENT))
    settle(lake, wave_of(lake, maker, rows(rare=5), labels=INDEPENDENT))
    always = settle(lake, wave_of(lake, maker, traces(800, label=None, labels=names[:1]), labels=INDEPENDENT)).doubts
    assert [doubt.rpartition("(")[2] for doubt in always] == ["labels_differ)", "labels_are_named)"]


@pytest.mark.parametrize(
    ("past", "told"),
    [
        (Past(), "at most 0.5"),
        (Past(newest=0.2), "at most 0.3"),
        (Past(newest=0.2, first=0.1), "at most 0.2"),  # what has crept up does not count
        (Past(newest=0.2, released=(0.4,)), "at most 0.4"),
    ],
)
def test_the_past_is_the_newest_waves_and_the_first_ones(past, told):
    rate = Rate("few", "", "", "share", most=0.5, rise=0.1, floor=0.05)
    assert f"expected {told}" in rates._result("r", rate, Seen(1, 100, 100), past, 50)["expected"]


def row(part: int, whole: int = 100, stopped: bool = False) -> dict:
    return {"unexpected": part, "rows": whole, "units": whole, "success": not stopped, "severity": "stop"}


FEW = Rate("few", "", "", "share", most=0.5, rise=0.1, floor=0.05)


def test_what_a_release_has_accepted_is_where_the_past_begins_anew():
    """Given twenty waves, one that was released, and twenty more like it, then it is from that one on that drift is told."""
    old, released, later = [row(1)] * 20, row(40, stopped=True), [row(39)] * 20
    past = rates._past_of([*later, released, *old], FEW, 50)
    assert (past.newest, past.first, past.released) == (0.39, (40 + 19 * 39) / 2000, (0.4, 0.4))


@pytest.mark.parametrize("videos", [10, 100])
def test_one_release_is_enough(videos):
    """Given good nights, large or small, and then a model that can no longer be read, when somebody has released a wave of
    it, then none is held again, in three hundred nights."""
    nights, held = [row(0, videos)] * 30, []
    for night in range(300):
        result = rates._result("r", FEW, Seen(videos, videos, videos), rates._past_of(nights, FEW, 50), 50)
        held += [] if result["success"] else [night]
        nights.insert(0, result)
    assert len(held) == 1 and held[0] <= 5


@pytest.mark.parametrize("videos", [20, 60, 2000])
def test_one_label_alone_is_held_once_enough_say_so(videos):
    """Given waves of any size that have one label alone, when 2,301 videos have come, then the next is held."""
    rate = Rate("differ", "", "", "share", most=0.998, rise=0.2, floor=0.9, of_past="warn", least=10)
    waves: list[dict] = []
    while len(waves) * videos < 5000:
        result = rates._result("r", rate, Seen(videos, videos, videos), rates._past_of(waves, rate, 50), 50)
        if not result["success"] and result["severity"] == "stop":
            break
        waves.insert(0, result)
    assert 2301 <= (len(waves) + 1) * videos < 2301 + 2 * videos


def test_of_waves_of_one_video_none_says_that_one_label_is_alone():
    rate = Rate("differ", "", "", "share", most=0.998, rise=0.2, floor=0.9, least=10)
    assert rates._past_of([row(1, 1)] * 5000, rate, 50) == Past()


def test_small_waves_between_large_ones_are_judged():
    """Given a night of twenty videos that cannot be read after each large wave of an archive, then the third is held."""
    waves, held = [], []
    for night in range(6):
        waves.insert(0, row(10, 2000))
        result = rates._result("r", FEW, Seen(20, 20, 20), rates._past_of(waves, FEW, 50), 50)
        held += [] if result["success"] else [night]
        waves.insert(0, result | {"success": True})
    assert held == [2, 3, 4, 5]


def test_a_share_that_vanishes_is_held_and_one_that_falls_is_a_warning():
    rate = Rate("named", "", "", "share", rise=0.5, both_ways=True, of_past="warn")
    enriched = rates._past_of([row(90)] * 20, rate, 50)
    fallen = rates._result("r", rate, Seen(20, 100, 100), enriched, 50)
    assert (fallen["success"], fallen["severity"]) == (False, "warn")
    rare = rates._past_of([row(5)] * 20, rate, 50)
    assert rates._result("r", rate, Seen(0, 300, 300), rare, 50)["success"]  # by chance, perhaps
    gone = rates._result("r", rate, Seen(0, 1000, 1000), rare, 50)
    assert (gone["success"], gone["severity"]) == (False, "stop")
