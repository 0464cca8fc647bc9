"""Clips of a batch: cached or decoded; a broken file costs itself, and only broken files cost the training."""

from __future__ import annotations

import numpy as np
import pytest

from models.training.clips import Clips, NothingDecodes, StoreSilent
from models.training.lessons import Lesson
from models.video.cache import FrameCache
from models.video.clip import Clip
from models.video.container import MediaError
from models.video.frames import FrameSpec
from models.video.pool import DecodeSettings

SPEC = FrameSpec(count=2, max_pixels=14 * 14, fps=2.0, cell=14)


def decode(what):
    uri, video_id = what
    if "away" in uri:
        raise MediaError("unreachable", f"{uri}: timed out")
    if "broken" in uri:
        raise MediaError("decode_error", f"not a video: {uri}")
    return Clip.even(np.full((2, 14, 14, 3), int(video_id), np.uint8), 2.0)


def lesson(number: int, kind: str = "fine") -> Lesson:
    return Lesson(str(number), f"/{kind}/{number}", "", "", ())


@pytest.fixture
def clips(tmp_path):
    with Clips(FrameCache(tmp_path, SPEC, 1 << 20), decode, DecodeSettings()) as made:
        yield made


def test_each_comes_in_its_place_and_a_broken_file_costs_itself_and_is_named_once(clips, capsys):
    due = [lesson(1), lesson(2, "broken"), lesson(3)]
    for _ in range(2):
        one, two, three = clips.of(due)
        assert one.pixels.max() == 1 and three.pixels.max() == 3 and two.reason == "decode_error"
    assert capsys.readouterr().err.splitlines() == [
        "left out of the training: /broken/2: decode_error: not a video: /broken/2"
    ]


def test_what_was_decoded_once_is_read_from_the_cache(clips):
    clips.of([lesson(1)])
    (again,) = clips.of([lesson(1, "broken")])  # the file has gone bad since
    assert again.pixels.max() == 1


def test_where_nothing_decodes_that_is_no_files_fault(clips):
    clips.of([lesson(n, "broken") for n in range(7)])
    with pytest.raises(NothingDecodes, match=r"expected frames of some of the first 8 videos, found none; .*/broken/7"):
        clips.of([lesson(7, "broken")])


def test_after_one_that_decoded_any_number_may_be_broken(clips):
    clips.of([lesson(1)])
    assert len(clips.of([lesson(n, "broken") for n in range(20)])) == 20


def test_a_store_that_does_not_answer_is_no_files_fault_however_much_decoded_before(clips):
    clips.of([lesson(n) for n in range(3)])
    clips.of([lesson(n, "away") for n in range(10, 17)])
    clips.of([lesson(3)])  # it was a pause
    clips.of([lesson(n, "away") for n in range(20, 27)])
    with pytest.raises(
        StoreSilent, match=r"8 videos in a row cannot be reached; the last of them, /away/30: timed out"
    ):
        clips.of([lesson(30, "away")])
