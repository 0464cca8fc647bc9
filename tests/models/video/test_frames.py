"""Frames of real files, encoded here: what is sampled is what was on screen at the target times."""

from __future__ import annotations

import csv
import io
import pickle
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from models.video import frames
from models.video.frames import FrameSpec, Limits, MediaError, probe, sample, sample_array

SPEC = FrameSpec(count=8, size=32)
LIMITS = Limits()
SHARED_CLIPS = Path(__file__).parents[4] / "shared" / "clips"


def encode(times, *, size=(64, 48), fmt="mp4", codec="libx264", gop=250, picture=None, clock=1000) -> bytes:
    """A file whose frame k is shown from times[k] (1/clock seconds) and is flat, of a grey that tells k modulo 49."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=fmt) as out:
        stream = out.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        stream.codec_context.time_base = Fraction(1, clock)
        stream.codec_context.gop_size = gop
        if codec == "libx264":
            stream.options = {"crf": "1", "bf": "2", "x264-params": "scenecut=0"}
        for k, time in enumerate(times):
            pixels = np.full((size[1], size[0], 3), grey(k), np.uint8) if picture is None else picture
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, clock)
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return buffer.getvalue()


def grey(k: int) -> int:
    return 10 + 5 * (k % 49)


def shown(sampled: np.ndarray) -> list[int]:
    """Which frame number each sampled picture is, read from the grey at its centre."""
    middle = sampled.shape[1] // 2
    return [round((int(picture[middle, middle, 0]) - 9) / 5) for picture in sampled]


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


def test_a_clip_with_one_frame_repeats_it():
    sampled = sample(encode([0]), SPEC, LIMITS)
    assert sampled.shape == (8, 32, 32, 3) and sampled.dtype == np.uint8
    assert shown(sampled) == [0] * 8


def test_a_clip_with_fewer_frames_than_asked_repeats_in_order():
    assert shown(sample(encode([0, 40, 80]), SPEC, LIMITS)) == [0, 0, 0, 1, 1, 2, 2, 2]


def test_the_letterbox_keeps_the_aspect():
    picture = sample(encode([0, 40], size=(64, 32), picture=np.full((32, 64, 3), 255, np.uint8)), SPEC, LIMITS)[0]
    assert picture[:8].max() == 0 and picture[24:].max() == 0 and picture[8:24].min() > 240


def test_memory_and_file_are_sampled_alike():
    video = np.stack([np.full((48, 64, 3), grey(k), np.uint8) for k in range(37)])
    from_file = sample(encode([40 * k for k in range(37)]), SPEC, LIMITS)
    in_memory = sample_array(video, SPEC)
    assert shown(in_memory) == shown(from_file)
    assert np.abs(in_memory.astype(int) - from_file).max() <= 3


@pytest.mark.parametrize("angle, corner", [(90, (0, 0)), (-90, (-1, -1)), (180, (-1, 0))])
def test_the_display_matrix_turns_frames_upright(angle, corner):
    """A white patch in the stored picture's top right corner lands where the rotation puts it."""
    stored = np.zeros((64, 64, 3), np.uint8)
    stored[:16, -16:] = 255
    data = rotated(encode([0, 40, 80], size=(64, 64), picture=stored), angle)
    picture = sample(data, SPEC, LIMITS)[0]
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
    original = frames._Clip._decode_packet
    monkeypatch.setattr(frames._Clip, "_decode_packet", lambda self, p: (count_decoded.append(1), original(self, p))[1])
    seeking = sample(data, SPEC, LIMITS)
    with_seeks = len(count_decoded)
    monkeypatch.setattr(frames, "_SEEK_GAP_S", 1e9)
    assert np.array_equal(seeking, sample(data, SPEC, LIMITS))
    assert with_seeks < 400 < 1300 < len(count_decoded) - with_seeks


def test_in_an_avi_that_stamps_reordered_frames_wrongly_time_never_runs_back():
    data = encode([40 * k for k in range(48)], fmt="avi", gop=12)
    with av.open(io.BytesIO(data)) as container:
        stamps = [frame.pts for frame in container.decode(video=0)]
    assert stamps != sorted(stamps)  # AVI keeps one clock, of decoding
    with frames._Clip(data, LIMITS) as clip:
        times = [time for time, _ in clip.frames_towards(clip.index.on_screen(48))]
    assert times == sorted(times) and len(times) >= 40
    dense = shown(sample(data, FrameSpec(count=48, size=32), LIMITS))
    assert dense == sorted(dense) and all(abs(number - k) <= 3 for k, number in enumerate(dense))


def test_the_duration_is_known_also_when_the_container_is_silent():
    live = encode([40 * k for k in range(50)], fmt="matroska")
    silent = live.replace(b"\x44\x89\x88", b"\xec\x89\x88", 1)  # the Duration element becomes a Void of the same length
    with av.open(io.BytesIO(silent)) as container:
        assert container.duration is None
    assert probe(silent, LIMITS).duration_s == pytest.approx(2.0)
    raw = encode([40 * k for k in range(50)], fmt="h264")
    assert probe(raw, LIMITS).duration_s == pytest.approx(2.0, rel=0.05)
    assert shown(sample(raw, SPEC, LIMITS))[0] < 6


def test_a_file_that_breaks_off_gives_what_is_there():
    data = encode([40 * k for k in range(200)], fmt="matroska", gop=25)
    half = data[: len(data) // 2]
    whole, cut = probe(data, LIMITS), probe(half, LIMITS)
    assert 0.2 * whole.duration_s < cut.duration_s < 0.8 * whole.duration_s
    assert len(set(shown(sample(half, SPEC, LIMITS)))) == 8


def audio_only() -> bytes:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="matroska") as out:
        stream = out.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return buffer.getvalue()


def picture_file() -> bytes:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="image2pipe") as out:
        stream = out.add_stream("png")
        stream.width, stream.height, stream.pix_fmt = 8, 8, "rgb24"
        out.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((8, 8, 3), np.uint8), format="rgb24")))
        out.mux(stream.encode())
    return buffer.getvalue()


REFUSED = {
    "zero bytes": (lambda: b"", "empty_file"),
    "text": (lambda: b"rising,falling\n" * 90, "not_a_video"),
    "picture": (picture_file, "not_a_video"),
    "noise": (lambda: np.random.default_rng(0).bytes(5000), "unreadable"),
    "mp4 without its index": (lambda: encode([0, 40, 80])[:700], "unreadable"),
    "audio only": (audio_only, "no_video_stream"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_video_is_refused_with_a_reason(name):
    make, reason = REFUSED[name]
    for act in (lambda data: probe(data, LIMITS), lambda data: sample(data, SPEC, LIMITS)):
        with pytest.raises(MediaError) as refused:
            act(make())
        assert refused.value.reason == reason


def test_a_stream_of_rubbish_is_a_decode_error():
    data = bytearray(encode([40 * k for k in range(20)]))
    at = data.index(b"mdat") + 4
    size = int.from_bytes(data[at - 8 : at - 4], "big") - 8
    data[at : at + size] = bytes([255]) * size
    with pytest.raises(MediaError) as refused:
        sample(bytes(data), SPEC, LIMITS)
    assert refused.value.reason == "decode_error"


@pytest.mark.parametrize(
    "limits, reason",
    [
        (Limits(max_bytes=100), "too_large"),
        (Limits(max_pixels=64 * 48 - 1), "too_large"),
        (Limits(max_seconds=1.9), "too_long"),
        (Limits(max_frames=49), "too_long"),
    ],
)
def test_every_limit_is_held(limits, reason):
    data = encode([40 * k for k in range(50)])
    for act in (lambda: probe(data, limits), lambda: sample(data, SPEC, limits)):
        with pytest.raises(MediaError) as refused:
            act()
        assert refused.value.reason == reason


def test_what_no_camera_makes_is_told_before_a_contract_meets_it():
    """A clock of ten frames a millisecond, and a picture wider than any decoder should be asked for."""
    quick, steady = probe(encode(range(6), clock=10_000), LIMITS), probe(encode(range(6)), LIMITS)
    assert (quick.frames, quick.fps) == (6, None) and quick.duration_s < 0.001
    assert steady.fps == pytest.approx(1000)
    with pytest.raises(MediaError) as refused:
        probe(encode([0, 40], size=(33000, 16), codec="ffv1", fmt="avi"), LIMITS)
    assert refused.value.reason == "too_large"


def test_a_media_error_survives_the_way_between_processes():
    error = pickle.loads(pickle.dumps(MediaError("too_long", "9 s, the limit is 8 s")))
    assert (error.reason, str(error)) == ("too_long", "9 s, the limit is 8 s")
    with pytest.raises(ValueError, match="unknown reason"):
        MediaError("bad", "no such reason")


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
        assert sample(data, SPEC, LIMITS).std() > 0 or row["file"] == "torchcodec_testsrc2_mpeg4.mp4"
        seen += 1
    assert seen == 25
