"""A run's budget: what a deadline means, and what still fits before it."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import pytest

from jobs.runtime.budget import Budget, parse_deadline
from jobs.runtime.errors import UsageError

NOW = datetime(2026, 5, 4, 12, 30, 15, 123, tzinfo=UTC)


@pytest.fixture
def local_clock(monkeypatch):
    """local_clock(zone): the machine's own time zone."""
    yield lambda zone: (monkeypatch.setenv("TZ", zone), time.tzset())
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(("text", "seconds"), [("45s", 45), ("90m", 5400), ("2h", 7200), ("1.5h", 5400), ("0m", 0)])
def test_a_length_counts_from_now(text, seconds):
    assert parse_deadline(text, NOW) == NOW + timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("zone", "text", "wanted"),
    [
        ("UTC", "18:00", datetime(2026, 5, 4, 18, 0, tzinfo=UTC)),
        ("UTC", "06:30", datetime(2026, 5, 5, 6, 30, tzinfo=UTC)),
        ("UTC", "12:30", datetime(2026, 5, 5, 12, 30, tzinfo=UTC)),
        ("UTC", "12:31", datetime(2026, 5, 4, 12, 31, tzinfo=UTC)),
        ("UTC", "0:00", datetime(2026, 5, 5, tzinfo=UTC)),
        ("XYZ-2", "14:31", datetime(2026, 5, 4, 12, 31, tzinfo=UTC)),  # two hours east of Greenwich
        ("XYZ-2", "06:30", datetime(2026, 5, 5, 4, 30, tzinfo=UTC)),
    ],
)
def test_a_time_of_day_is_the_next_one_by_the_local_clock(local_clock, zone, text, wanted):
    local_clock(zone)
    assert parse_deadline(text, NOW) == wanted


def test_a_time_of_day_is_by_the_clock_also_across_a_change_of_the_clock(local_clock):
    local_clock("Europe/Berlin")  # 25 October 2026: 03:00 becomes 02:00
    before = datetime(2026, 10, 24, 20, 0, tzinfo=UTC)
    assert parse_deadline("06:30", before) == datetime(2026, 10, 25, 5, 30, tzinfo=UTC)


@pytest.mark.parametrize("text", ["", "soon", "90", "2d", "-5m", "25:00", "12:60", "6", "6:5", "1h30m", " 2h", "2h\n"])
def test_anything_else_is_refused_with_examples(text):
    with pytest.raises(UsageError, match="expected a length such as 90m, 2h or 45s, or a time of day such as 06:30"):
        parse_deadline(text, NOW)


def test_a_budget_allows_what_ends_before_its_deadline():
    soon = Budget(ends_at=datetime.now(UTC) + timedelta(seconds=60))
    assert soon.allows(0) and soon.allows(50) and not soon.allows(61)
    assert not Budget(ends_at=datetime.now(UTC) - timedelta(seconds=1)).allows(0)
    assert Budget().allows(1e9)


def test_the_seconds_left_end_at_none_and_there_are_none_to_count_without_a_deadline():
    assert 50 < Budget(ends_at=datetime.now(UTC) + timedelta(seconds=60)).seconds_left() <= 60
    assert Budget(ends_at=datetime.now(UTC) - timedelta(seconds=60)).seconds_left() == 0.0
    assert Budget(max_videos=1).seconds_left() is None
