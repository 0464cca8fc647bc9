"""Files of which a part is lost: how much, said when they come; refused beyond the limit; never filled up unsaid."""

from __future__ import annotations

import io
import tempfile
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from encoded import encode, shown

from models.video.container import Container, Limits, MediaError
from models.video.frames import FrameSpec, probe, sample

SPEC = FrameSpec(count=8, max_pixels=32 * 32, fps=1000.0, cell=8)
LIMITS = Limits()
TIMES = [40 * k for k in range(50)]


def noise(k: int) -> np.ndarray:
    return np.random.default_rng(k).integers(0, 255, (48, 64, 3), dtype=np.uint8)


def grey(k: int) -> np.ndarray:
    return np.full((48, 64, 3), 10 + k % 200, np.uint8)


def write(
    place, codec: str, frames: int, begins: int = 0, picture=noise, gop: int = 10, fmt=None, **options: str
) -> None:
    """A clip of 25 frames a second, whose clock begins so many frames late; before 0, frames are not shown."""
    flags = {"movflags": options.pop("movflags")} if "movflags" in options else {}
    with av.open(place, "w", format=fmt, options=flags) as out:
        stream = out.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.gop_size = gop
        for k in range(frames):
            frame = av.VideoFrame.from_ndarray(picture(k), format="rgb24")
            frame.pts, frame.time_base = k + begins, Fraction(1, 25)
            out.mux(stream.encode(frame))
        out.mux(stream.encode())


def index_first(before: int = 0) -> bytes:
    """An MP4 that tells its index before its pictures; before: frames that its edit list does not show."""
    with tempfile.TemporaryDirectory() as folder:  # the index is moved by reading the file again
        path = Path(folder) / "clip.mp4"
        write(str(path), "libx264", 50, -before, movflags="faststart", crf="1", bf="0")
        return path.read_bytes()


def avi() -> bytes:
    buffer = io.BytesIO()
    write(buffer, "mpeg4", 50, fmt="avi")
    return buffer.getvalue()


def moving(fmt: str, codec: str, frames: int, late: int = 0, **options: str) -> bytes:
    """A long clip, whose clock begins so many seconds late."""
    buffer = io.BytesIO()
    write(buffer, codec, frames, 25 * late, grey, 25, fmt, **options)
    return buffer.getvalue()


def joined(parts: int) -> bytes:
    """A transport stream whose clock begins anew, as a camera's that was switched off and on."""
    return moving("mpegts", "libx264", 100) * parts


LONG = {
    "raw stream": lambda: moving("h264", "libx264", 1000),
    "raw stream of h265": lambda: moving("hevc", "libx265", 300),
    "webm that begins late": lambda: moving("webm", "libvpx-vp9", 200, late=3),
    "matroska that begins very late": lambda: moving("matroska", "libx264", 200, late=40),
    "transport stream of mpeg2 with frames between": lambda: moving("mpegts", "mpeg2video", 400, bf="2"),
    "program stream of mpeg2 with frames between": lambda: moving("mpeg", "mpeg2video", 400, bf="2"),
    "transport stream": lambda: moving("mpegts", "libx264", 400, bf="2"),
    "avi of h264": lambda: moving("avi", "libx264", 400, bf="0"),
    "one keyframe": lambda: moving("mp4", "libx264", 400, g="1000"),
    "open groups": lambda: moving("mp4", "libx264", 400, **{"x264-params": "open-gop=1:keyint=25"}),
    "two segments": lambda: joined(2),
    "six segments": lambda: joined(6),
}


@pytest.mark.parametrize("name", LONG)
def test_a_long_sound_file_has_none_either(name):
    data = LONG[name]()
    found = probe(data, LIMITS)
    assert found.damage <= 0.02 and 90 <= found.frames_tried <= LIMITS.probe_frames  # not all stretches have a keyframe
    if "segments" not in name:  # there a time is not one picture's
        assert sample(data, SPEC, LIMITS).lost == 0


def cut(data: bytes, share: float) -> bytes:
    return data[: int(len(data) * share)]


def without_keyframes(data: bytes) -> bytes:
    """All keyframes but the first are zeros."""
    whole = bytearray(data)
    with av.open(io.BytesIO(data)) as container:
        keys = [bytes(packet) for packet in container.demux(video=0) if packet.size and packet.is_keyframe]
    for key in keys[1:]:
        at = whole.index(key)
        whole[at : at + len(key)] = bytes(len(key))
    return bytes(whole)


SOUND = {
    "mp4": lambda: encode(TIMES, gop=10),
    "avi": avi,
    "mp4, index first": index_first,
    "mp4 with an edit list": lambda: index_first(before=10),
    "avi that counts ticks": lambda: encode(TIMES, fmt="avi", codec="mpeg4", gop=10),
    "matroska": lambda: encode(TIMES, fmt="matroska", gop=10),
    "webm": lambda: encode(TIMES, fmt="webm", codec="libvpx", gop=10),
    "transport stream": lambda: encode(TIMES, fmt="mpegts", gop=10),
    "raw stream": lambda: encode(TIMES, fmt="h264", gop=10),
    "long": lambda: encode([40 * k for k in range(1000)], gop=25),
}


@pytest.mark.parametrize("name", SOUND)
def test_a_sound_file_has_no_damage(name):
    found = probe(SOUND[name](), LIMITS)
    assert found.damage == 0 and found.frames_tried == found.frames_decoded
    assert found.frames_promised == found.frames == {"long": 1000, "mp4 with an edit list": 40}.get(name, 50)
    assert found.frames_tried == found.frames or 90 <= found.frames_tried <= LIMITS.probe_frames
    assert sample(SOUND[name](), SPEC, LIMITS).lost == 0


DAMAGED = {
    "mp4 cut with its index first": (lambda: cut(index_first(), 0.6), (0.35, 0.65)),
    "avi cut in half": (lambda: cut(avi(), 0.5), (0.25, 0.75)),
    "matroska cut in half": (lambda: cut(encode(TIMES, fmt="matroska", gop=10, picture=noise), 0.5), (0.4, 0.7)),
    "mp4 without its keyframes": (lambda: without_keyframes(index_first()), (0.05, 1.0)),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_how_much_is_lost_is_known_when_a_file_comes(name):
    make, (low, high) = DAMAGED[name]
    data = make()
    found = probe(data, Limits(max_damage=1.0))
    assert low <= found.damage <= high
    strict = Limits(max_damage=found.damage - 0.01)
    with pytest.raises(MediaError, match=r"is lost, the limit is \d+%") as refused:
        probe(data, strict)
    assert refused.value.reason == "damaged"
    assert sample(data, SPEC, LIMITS).pixels.shape[0] == 8  # as far as it goes


def test_damage_in_the_middle_of_a_long_file_is_found():
    data = bytearray(encode([40 * k for k in range(1000)], gop=25, picture=noise))
    rng = np.random.default_rng(0)
    third = len(data) // 3
    for at in rng.integers(third, 2 * third, 4000):
        data[at] ^= 0xFF
    found = probe(bytes(data), LIMITS)
    assert found.frames_tried > 90 and 0.1 < found.damage < 0.8


def test_no_picture_of_a_transport_stream_is_lost_to_a_seek():
    data = SOUND["transport stream"]()
    with Container(data, LIMITS) as clip:
        assert sum(1 for _ in clip.decode()) == 50
        assert next(clip.decode(1.0)).time - next(clip.decode(0.0)).time <= 1.0
    assert shown(sample(data, SPEC, LIMITS)) == pytest.approx([3, 9, 15, 21, 28, 34, 40, 46], abs=1)


def test_a_header_that_promises_too_much_is_not_believed_beyond_the_limits():
    data = avi()
    at = data.index(b"strh") + 8 + 32  # dwLength of the stream's header
    assert int.from_bytes(data[at : at + 4], "little") == 50
    lying = data[:at] + (0xFFFFFFF).to_bytes(4, "little") + data[at + 4 :]
    found = probe(lying, Limits(max_damage=1.0, max_frames=100))
    assert found.frames_promised <= 100 and found.frames == 50
