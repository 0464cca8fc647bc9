"""Frames of real files, encoded here: what is sampled is what was on screen at the target times."""

from __future__ import annotations

import csv
import io
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from encoded import encode, grey, shown
from in_memory import sample_array

from models.video import container
from models.video.container import Limits, MediaError
from models.video.frames import FrameSpec, probe, sample

SPEC = FrameSpec(count=8, max_pixels=32 * 32, fps=1000.0, cell=8)  # so many a second: always eight
LIMITS = Limits()
SHARED_CLIPS = Path(__file__).parents[4] / "shared" / "clips"


def test_uniform_times_at_a_constant_rate():
    data = encode([40 * k for k in range(50)])
    assert shown(sample(data, SPEC, LIMITS)) == [3, 9, 15, 21, 28, 34, 40, 46]
    measured = probe(data, LIMITS)
    assert (measured.codec, measured.width, measured.height, measured.frames) == ("h264", 64, 48, 50)
    assert measured.fps == pytest.approx(25) and measured.duration_s == pytest.approx(2.0)
    assert measured.rotation == 0 and not measured.has_audio


def test_a_variable_rate_is_sampled_evenly_in_time():
    # ten frames in the first second, then one frame that stays for seven
    times = [100 * k for k in range(10)] + [1000, 8000]
    data = encode(times, fmt="matroska")
    chosen = shown(sample(data, SPEC, LIMITS))
    assert chosen[0] == 5 and set(chosen[1:]) == {10}


def test_times_are_those_of_the_pictures_at_any_rate_counted_from_the_first_frame():
    rng = np.random.default_rng(0)
    times = (3000 + np.cumsum(rng.integers(15, 400, 40))).tolist()  # the file's clock does not begin at zero
    data = encode(times, fmt="matroska")
    clip = sample(data, SPEC, LIMITS)
    true = [(times[k] - times[0]) / 1000 for k in shown(clip)]
    assert clip.times == pytest.approx(true, abs=1e-3)  # Matroska keeps milliseconds
    assert clip.times == sorted(clip.times) and len(set(clip.times)) == 8
    assert clip.duration == pytest.approx(probe(data, LIMITS).duration_s)
    for i, time in enumerate(clip.times):  # it came up before the target, and the next one after it
        target = (i + 0.5) * clip.duration / 8
        later = [(t - times[0]) / 1000 for t in times if (t - times[0]) / 1000 > time + 1e-3]
        assert time <= target + 1e-3 and (not later or target <= later[0] + 1e-3)


def test_a_clip_with_one_frame_is_one_picture_at_the_begin():
    clip = sample(encode([0]), replace(SPEC, fps=25.0), LIMITS)
    assert clip.pixels.shape == (1, 24, 32, 3) and clip.pixels.dtype == np.uint8
    assert clip.times == [0.0] and clip.duration == pytest.approx(0.04)
    assert sample(encode([0]), replace(SPEC, fps=0.1), LIMITS).times == [0.0]


@pytest.mark.parametrize(("frames_a_second", "count"), [(1000.0, 8), (4.0, 8), (2.0, 4), (1.1, 2), (0.01, 1)])
def test_a_short_clip_gives_no_more_frames_than_its_seconds_are_worth(frames_a_second, count):
    clip = sample(encode([40 * k for k in range(50)]), replace(SPEC, fps=frames_a_second), LIMITS)
    assert len(clip.pixels) == len(clip.times) == count
    assert clip.times == pytest.approx([40 * int((i + 0.5) * 50 / count) / 1000 for i in range(count)])


def test_a_clip_with_fewer_frames_than_asked_repeats_in_order_and_so_do_their_times():
    clip = sample(encode([0, 40, 80]), SPEC, LIMITS)
    assert shown(clip) == [0, 0, 0, 1, 1, 2, 2, 2]
    assert clip.times == pytest.approx([0, 0, 0, 0.04, 0.04, 0.08, 0.08, 0.08])


def test_where_the_end_does_not_decode_the_last_picture_stays_with_its_time():
    data = bytearray(encode([40 * k for k in range(50)], fmt="matroska", codec="mpeg4", gop=1))
    with av.open(io.BytesIO(bytes(data))) as container:
        packets = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    for packet in packets[30:]:
        at = data.index(packet)
        data[at : at + len(packet)] = bytes(len(packet))
    clip = sample(bytes(data), SPEC, LIMITS)
    assert clip.duration == pytest.approx(2.0)
    assert shown(clip)[-1] == 29 and clip.times[-3:] == pytest.approx([1.16] * 3)
    assert clip.lost == 3


SHAPES = {  # stored size, pixel aspect, degrees, the grid of 28 x 28 cells within 448 x 448 pixels: columns x rows
    "16:9": ((640, 360), None, 0, (21, 12)),
    "portrait": ((360, 640), None, 0, (12, 21)),
    "16:9 held upright": ((640, 360), None, 90, (12, 21)),
    "16:9 upside down": ((640, 360), None, 180, (21, 12)),
    "anamorphic PAL": ((720, 576), Fraction(64, 45), 0, (21, 12)),
    "anamorphic and turned": ((720, 576), Fraction(64, 45), -90, (12, 21)),
    "odd sides": ((321, 183), None, 0, (11, 7)),
    "smaller than allowed": ((128, 96), None, 0, (5, 3)),
    "smaller than a cell": ((16, 8), None, 0, (1, 1)),
    "a ribbon": ((4096, 16), None, 0, (146, 1)),
    "a longer ribbon": ((32000, 16), None, 0, (256, 1)),
}


@pytest.mark.parametrize("name", SHAPES)
def test_a_picture_fills_whole_cells_in_the_shape_it_is_meant_to_have(name):
    size, pixel_aspect, degrees, grid = SHAPES[name]
    large = max(size) > 4096
    white = np.full((size[1], size[0], 3), 255, np.uint8)
    codec = {"codec": "ffv1", "fmt": "matroska"} if large or size[0] % 2 else {}
    data = encode([0, 40], size=size, picture=white, pixel_aspect=pixel_aspect, **codec)
    clip = sample(rotated(data, degrees) if degrees else data, replace(SPEC, max_pixels=448 * 448, cell=28), LIMITS)
    assert clip.pixels.shape[1:] == (28 * grid[1], 28 * grid[0], 3)
    assert clip.pixels.min() > 240  # no black


def test_a_16_to_9_clip_in_a_square_spends_44_percent_of_its_tokens_on_black(capsys):
    data = encode([0, 40], size=(640, 360), picture=np.full((360, 640, 3), 255, np.uint8))
    for fit in ("square", "aspect"):
        picture = sample(data, replace(SPEC, max_pixels=448 * 448, cell=28, fit=fit), LIMITS).pixels[0]
        tokens = picture.shape[0] * picture.shape[1] // 28**2
        print(f"{fit}: {tokens} tokens a picture, {(picture.max(-1) < 16).mean():.1%} of them black")
    told = capsys.readouterr().out
    print(told)  # for those who read docs/engine.md
    assert told.splitlines() == [
        "square: 256 tokens a picture, 43.8% of them black",
        "aspect: 252 tokens a picture, 0.0% of them black",
    ]


def test_the_letterbox_keeps_the_aspect():
    data = encode([0, 40], size=(64, 32), picture=np.full((32, 64, 3), 255, np.uint8))
    clip = sample(data, replace(SPEC, fit="square", max_pixels=39 * 39), LIMITS)  # four cells a side, and no fifth
    assert clip.pixels.shape == (8, 32, 32, 3)
    picture = clip.pixels[0]
    assert picture[:8].max() == 0 and picture[24:].max() == 0 and picture[8:24].min() > 240


def test_what_a_spec_cannot_mean_is_refused_with_its_field():
    with pytest.raises(ValueError, match=r"max_pixels: expected at least 784, .* 28 x 28 .* found 783"):
        FrameSpec(8, 783, 2.0, cell=28)
    with pytest.raises(ValueError, match="fit: expected one of aspect, square, found 'crop'"):
        replace(SPEC, fit="crop")
    with pytest.raises(ValueError, match="sampling: expected one of uniform, scene, found 'random'"):
        replace(SPEC, sampling="random")
    with pytest.raises(ValueError, match="must be positive"):
        replace(SPEC, fps=0.0)


def flash(k: int) -> np.ndarray:
    """Frame k of a dark clip that is white for four frames, between two targets of uniform sampling."""
    return np.full((48, 64, 3), 255 if 52 <= k < 56 else 20, np.uint8)


def test_scene_sampling_finds_a_cut_that_uniform_sampling_misses():
    data = encode([40 * k for k in range(200)], picture=flash)
    seen = {way: sample(data, replace(SPEC, sampling=way), LIMITS) for way in ("uniform", "scene")}
    bright = {way: clip.pixels.max((1, 2, 3)) > 200 for way, clip in seen.items()}
    assert not bright["uniform"].any() and bright["scene"].sum() == 1
    (at,) = np.flatnonzero(bright["scene"])
    assert 52 <= 25 * seen["scene"].times[at] < 56  # times travel along
    assert seen["scene"].times == sorted(set(seen["scene"].times)) and len(seen["scene"].times) == 8
    assert sample(data, replace(SPEC, sampling="scene"), LIMITS).times == seen["scene"].times


def test_a_still_clip_has_the_same_frames_by_scenes_as_evenly():
    rng = np.random.default_rng(0)
    data = encode([40 * k for k in range(200)], picture=rng.integers(0, 255, (48, 64, 3), np.uint8))
    even, scenes = (sample(data, replace(SPEC, sampling=way), LIMITS) for way in ("uniform", "scene"))
    assert scenes.times == even.times
    video = np.full((90, 48, 64, 3), 7, np.uint8)
    assert sample_array(video, 30.0, replace(SPEC, sampling="scene")).times == sample_array(video, 30.0, SPEC).times


def test_memory_and_file_are_sampled_alike():
    video = np.stack([np.full((48, 64, 3), grey(k), np.uint8) for k in range(37)])
    from_file = sample(encode([40 * k for k in range(37)]), SPEC, LIMITS)
    in_memory = sample_array(video, 25.0, SPEC)
    assert shown(in_memory) == shown(from_file)
    assert in_memory.times == pytest.approx(from_file.times) and in_memory.duration == pytest.approx(from_file.duration)
    assert np.abs(in_memory.pixels.astype(int) - from_file.pixels).max() <= 3
    cut = np.stack([flash(k) for k in range(200)])
    scene = replace(SPEC, sampling="scene")
    from_file = sample(encode([40 * k for k in range(200)], picture=flash), scene, LIMITS)
    assert sample_array(cut, 25.0, scene).times == pytest.approx(from_file.times)


@pytest.mark.parametrize("angle, corner", [(90, (0, 0)), (-90, (-1, -1)), (180, (-1, 0))])
def test_the_display_matrix_turns_frames_upright(angle, corner):
    """A white patch in the stored picture's top right corner lands where the rotation puts it."""
    stored = np.zeros((64, 64, 3), np.uint8)
    stored[:16, -16:] = 255
    data = rotated(encode([0, 40, 80], size=(64, 64), picture=stored), angle)
    picture = sample(data, SPEC, LIMITS).pixels[0]
    bright = {(r, c): picture[r, c].mean() > 128 for r in (0, -1) for c in (0, -1)}
    assert [place for place, is_bright in bright.items() if is_bright] == [corner]
    assert probe(data, LIMITS).rotation == angle % 360


def rotated(data: bytes, degrees: int) -> bytes:
    """Write a display matrix into the header of a one-track MP4; degrees counter-clockwise."""
    turn = {90: (0, -1, 1, 0), -90: (0, 1, -1, 0), 180: (-1, 0, 0, -1)}[degrees]
    a, b, c, d = (int(value * 65536).to_bytes(4, "big", signed=True) for value in turn)
    zero, one = bytes(4), (1 << 30).to_bytes(4, "big")
    unit = (65536).to_bytes(4, "big")
    plain = unit + zero + zero + zero + unit + zero + zero + zero + one
    header = data.index(b"tkhd")
    at = data.index(plain, header)
    return data[:at] + a + b + zero + c + d + zero + zero + zero + one + data[at + 36 :]


def test_long_clips_are_entered_at_keyframes_with_the_same_result(monkeypatch):
    data = encode([40 * k for k in range(120)] + [40 * k for k in range(120, 1500)], gop=25)
    count_decoded = []
    original = container.Container._decode_packet
    monkeypatch.setattr(
        container.Container, "_decode_packet", lambda self, p: (count_decoded.append(1), original(self, p))[1]
    )
    seeking = sample(data, SPEC, LIMITS)
    with_seeks = len(count_decoded)
    monkeypatch.setattr(container, "_SEEK_GAP_S", 1e9)
    plain = sample(data, SPEC, LIMITS)
    assert np.array_equal(seeking.pixels, plain.pixels) and seeking.times == plain.times
    assert with_seeks < 400 < 1300 < len(count_decoded) - with_seeks


def test_in_an_avi_that_stamps_reordered_frames_wrongly_time_never_runs_back():
    data = encode([40 * k for k in range(48)], fmt="avi", gop=12)
    with av.open(io.BytesIO(data)) as opened:
        stamps = [frame.pts for frame in opened.decode(video=0)]
    assert stamps != sorted(stamps)  # AVI keeps one clock, of decoding
    with container.Container(data, LIMITS) as clip:
        times = [time for time, _ in clip.frames_towards(clip.index.on_screen(48))]
    assert times == sorted(times) and len(times) >= 40
    dense = shown(sample(data, replace(SPEC, count=48), LIMITS))
    assert dense == sorted(dense) and all(abs(number - k) <= 3 for k, number in enumerate(dense))


def test_what_no_camera_makes_is_told_before_a_contract_meets_it():
    """A clock of ten frames a millisecond, and a picture wider than any decoder should be asked for."""
    quick, steady = probe(encode(range(6), clock=10_000), LIMITS), probe(encode(range(6)), LIMITS)
    assert (quick.frames, quick.fps) == (6, None) and quick.duration_s < 0.001
    assert steady.fps == pytest.approx(1000)
    with pytest.raises(MediaError) as refused:
        probe(encode([0, 40], size=(33000, 16), codec="ffv1", fmt="avi"), LIMITS)
    assert refused.value.reason == "too_large"


def test_the_module_needs_no_torch():
    code = "import sys, models.video.frames; sys.exit('torch' in sys.modules or 'pyspark' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[3])


def test_real_clips_agree_with_their_manifest():
    if not SHARED_CLIPS.exists():
        pytest.skip(f"the real clips are not here: {SHARED_CLIPS}")
    seen = 0
    for row in csv.DictReader((SHARED_CLIPS / "manifest.csv").open()):
        data = (SHARED_CLIPS / row["file"]).read_bytes()
        if row["frames_decoded"] == "0":
            with pytest.raises(MediaError):
                probe(data, LIMITS)
            continue
        measured = probe(data, LIMITS)
        assert (measured.codec, measured.width, measured.height) == (row["codec"], int(row["w"]), int(row["h"]))
        assert abs(measured.frames - int(row["frames_decoded"])) <= 1  # two AVI files end in an undecodable packet
        assert measured.duration_s == pytest.approx(float(row["seconds"]), abs=0.05)
        assert measured.rotation == int(row["rotation"]) % 360
        assert measured.has_audio == (row["audio_streams"] != "0")
        assert sample(data, SPEC, LIMITS).pixels.std() > 0 or row["file"] == "torchcodec_testsrc2_mpeg4.mp4"
        seen += 1
    assert seen == 25


def test_shuffled_frames_are_the_same_pictures_in_another_order_at_the_times_as_they_were():
    data = encode([40 * k for k in range(50)])
    straight, mixed = sample(data, SPEC, LIMITS), sample(data, replace(SPEC, show="shuffled"), LIMITS)
    assert mixed.times == straight.times and mixed.duration == straight.duration
    assert sorted(shown(mixed)) == shown(straight) != shown(mixed)
    steps = [shown(mixed)[place : place + 2] for place in range(0, SPEC.count, 2)]
    assert sorted(steps) == [shown(straight)[place : place + 2] for place in range(0, SPEC.count, 2)]
    assert shown(sample(data, replace(SPEC, show="shuffled"), LIMITS)) == shown(mixed)  # the same way each time
    with pytest.raises(ValueError, match="show: expected one of all, shuffled, none, found 'some'"):
        replace(SPEC, show="some")
