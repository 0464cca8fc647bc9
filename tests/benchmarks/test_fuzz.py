"""Given files mutated at random, when decoders meet them, then each is sampled or refused with a reason."""

from __future__ import annotations

import pytest

from benchmarks import fuzz
from models.video.container import REASONS
from models.video.pool import LOST


@pytest.fixture(scope="module")
def told():
    return fuzz.run(400, seed=1, keep=None)


def test_every_case_is_answered_within_its_bounds(told):
    assert told["answered"] == 400 and not told["unexpected"]
    assert told["slowest_s"] < fuzz.BOUNDS.timeout_s and told["most_mb"] < fuzz.BOUNDS.memory_bytes >> 20


def test_each_codec_gives_damaged_pictures_and_most_of_them_refusals(told):
    taken = {"sampled", "sampled, marked as damaged"}
    for codec, counts in told["by_codec"].items():
        assert set(counts) <= {*taken, *REASONS, *LOST} and sum(counts.values()) > 20, codec
        assert counts.get("sampled, marked as damaged"), codec
    refusing = [codec for codec, counts in told["by_codec"].items() if set(counts) - taken]
    assert len(refusing) >= 6  # a transport stream survives nearly everything


def test_the_same_seed_makes_the_same_files():
    assert list(fuzz.cases(30, seed=7)) == list(fuzz.cases(30, seed=7)) != list(fuzz.cases(30, seed=8))


def test_a_stream_that_begins_in_the_middle_of_a_broken_container_ends_it_and_nothing_else():
    """Found by 10,000 cases of seed 0: PyAV looks for it among the streams that it knew when it opened the file."""
    broken = [case for case in fuzz.cases(10_000, seed=0) if case.codec == "mpeg2video" and case.mutation == "flip"]
    assert len(broken) > 100
    for case in broken:
        fuzz.answer(case.data)  # raises nothing but what it refuses by itself
