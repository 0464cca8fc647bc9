"""What is no video, lies about itself or costs too much: refused with a reason, or taken as far as it goes."""

from __future__ import annotations

import io
import pickle

import av
import numpy as np
import pytest
from encoded import encode, shown

from models.video.container import Limits, MediaError
from models.video.frames import FrameSpec, probe, sample

SPEC = FrameSpec(count=8, max_pixels=32 * 32, fps=1000.0, cell=8)
LIMITS = Limits()


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


def test_a_media_error_survives_the_way_between_processes():
    error = pickle.loads(pickle.dumps(MediaError("too_long", "9 s, the limit is 8 s")))
    assert (error.reason, str(error)) == ("too_long", "9 s, the limit is 8 s")
    with pytest.raises(ValueError, match="unknown reason"):
        MediaError("bad", "no such reason")
