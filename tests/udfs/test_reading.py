"""Bytes of videos in real decoder children: frames, or the reason why there are none."""

import hashlib
import subprocess
import sys
from functools import partial
from pathlib import Path

import av
import numpy as np
import pytest

from models.video.container import Limits, MediaError
from models.video.frames import FrameSpec
from models.video.pool import DecodePool, DecodeSettings
from udfs.reading import read_video, sample_video

QUICK = DecodeSettings(workers=2, timeout_s=5.0, memory_bytes=2 * 1024**3, ahead=2)


def write_clip(path, frames=12, size=64):
    with av.open(str(path), "w") as out:
        stream = out.add_stream("mpeg4", rate=6)
        stream.width = stream.height = size
        for i in range(frames):
            picture = np.full((size, size, 3), 20 * i, np.uint8)
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        out.mux(stream.encode())
    return str(path)


def test_real_clips_come_back_as_frames_or_reasons(tmp_path):
    good = write_clip(tmp_path / "good.mp4")
    text = tmp_path / "text.mp4"
    text.write_text("this is no video")
    uris = [good, Path(good).as_uri(), str(text), str(tmp_path / "absent.mp4")]
    limits = Limits()
    with DecodePool(partial(_sample, limits=limits), QUICK) as pool:
        found = dict(pool.map(uris))
    clip = found[good]
    assert clip.pixels.shape == (4, 28, 28, 3) and clip.pixels.dtype == np.uint8
    assert clip.times == pytest.approx([1 / 6, 4 / 6, 7 / 6, 10 / 6]) and clip.duration == pytest.approx(2.0)
    assert np.array_equal(clip.pixels, found[uris[1]].pixels)
    assert found[str(tmp_path / "absent.mp4")].reason == "not_found"
    assert isinstance(found[str(text)], MediaError)
    with DecodePool(partial(_sample, limits=Limits(max_bytes=100)), QUICK) as pool:
        assert next(pool.map([good]))[1].reason == "too_large"
    with DecodePool(partial(_sample, limits=limits), QUICK) as pool:
        assert next(pool.map([{"uri": good}], argument=lambda row: row["uri"]))[1].pixels.shape == (4, 28, 28, 3)


def test_other_bytes_than_those_ingested_are_refused(tmp_path):
    path = Path(write_clip(tmp_path / "clip.mp4"))
    video_id = hashlib.sha256(path.read_bytes()).hexdigest()
    assert read_video(str(path), video_id, Limits()) == path.read_bytes()
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(MediaError) as refused:
        read_video(str(path), video_id, Limits())
    assert refused.value.reason == "changed"


def _sample(uri, limits):
    return sample_video(uri, "ext:none", FrameSpec(count=4, max_pixels=28 * 28, fps=2.0, cell=14), limits)


def test_a_child_that_reads_loads_nothing_heavy():
    code = "import sys, udfs.reading; print({'torch', 'pyspark', 'pandas', 'boto3', 'deltalake'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"
