"""The pool with real children: some crash, hang or run out of memory, the others answer."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import av
import numpy as np
import pytest

from models.video.frames import FrameSpec, Limits, MediaError
from models.video.pool import DecodePool, DecodeSettings, read_video, sample_video

QUICK = DecodeSettings(workers=2, timeout_s=5.0, memory_bytes=2 * 1024**3, ahead=2)


def misbehave(what):
    """Runs in the child."""
    if what == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if what == "hang":
        time.sleep(600)
    if what == "gorge":
        return bytearray(8 * 1024**3)
    if what == "refuse":
        raise MediaError("no_frames", "nothing in it")
    if what == "bug":
        raise KeyError("oops")
    if what == "modules":
        return sorted({"torch", "pandas", "pyspark", "transformers", "boto3"} & set(sys.modules))
    return what


def write_clip(path, frames=12, size=64):
    with av.open(str(path), "w") as out:
        stream = out.add_stream("mpeg4", rate=6)
        stream.width = stream.height = size
        for i in range(frames):
            picture = np.full((size, size, 3), 20 * i, np.uint8)
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        out.mux(stream.encode())
    return str(path)


def test_a_lost_child_costs_one_item():
    items = ["a", "crash", "b", "hang", "gorge", "refuse", "bug", *"cdefg"]
    with DecodePool(misbehave, QUICK) as pool:
        found = dict(pool.map(items))
    assert len(found) == len(items)
    reasons = {item: result.reason for item, result in found.items() if isinstance(result, MediaError)}
    assert reasons == {
        "crash": "decoder_crashed",
        "hang": "decoder_timeout",
        "gorge": "decoder_memory",
        "refuse": "no_frames",
        "bug": "decode_error",
    }
    assert str(found["bug"]) == "KeyError: 'oops'"
    assert "exit code -11" in str(found["crash"])
    assert all(found[item] == item for item in "abcdefg")


def test_children_load_nothing_heavy():
    with DecodePool(misbehave, QUICK) as pool:
        assert list(pool.map(["modules"])) == [("modules", [])]


def test_real_clips_come_back_as_frames_or_reasons(tmp_path):
    good = write_clip(tmp_path / "good.mp4")
    text = tmp_path / "text.mp4"
    text.write_text("this is no video")
    uris = [good, Path(good).as_uri(), str(text), str(tmp_path / "absent.mp4")]
    limits = Limits()
    with DecodePool(partial(_sample, limits=limits), QUICK) as pool:
        found = dict(pool.map(uris))
    assert found[good].shape == (4, 28, 28, 3) and found[good].dtype == np.uint8
    assert np.array_equal(found[good], found[uris[1]])
    assert found[str(tmp_path / "absent.mp4")].reason == "not_found"
    assert isinstance(found[str(text)], MediaError)
    with DecodePool(partial(_sample, limits=Limits(max_bytes=100)), QUICK) as pool:
        assert next(pool.map([good]))[1].reason == "too_large"
    with DecodePool(partial(_sample, limits=limits), QUICK) as pool:
        assert next(pool.map([{"uri": good}], argument=lambda row: row["uri"]))[1].shape == (4, 28, 28, 3)


def test_other_bytes_than_those_ingested_are_refused(tmp_path):
    path = Path(write_clip(tmp_path / "clip.mp4"))
    video_id = hashlib.sha256(path.read_bytes()).hexdigest()
    assert read_video(str(path), video_id, Limits()) == path.read_bytes()
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(MediaError) as refused:
        read_video(str(path), video_id, Limits())
    assert refused.value.reason == "changed"


def _sample(uri, limits):
    return sample_video(uri, "ext:none", FrameSpec(count=4, size=28), limits)


def test_the_source_is_pulled_only_so_far_ahead():
    pulled = []

    def source():
        for i in range(40):
            pulled.append(i)
            yield str(i)

    with DecodePool(misbehave, QUICK) as pool:
        for taken, _ in enumerate(pool.map(source())):
            assert len(pulled) - taken <= QUICK.workers + QUICK.ahead + 1
    assert len(pulled) == 40


def test_an_error_of_the_source_is_raised():
    def source():
        yield "a"
        raise OSError("gone")

    with DecodePool(misbehave, QUICK) as pool, pytest.raises(OSError, match="gone"):
        list(pool.map(source()))


OWNER = """
import os, sys, time
from models.video.pool import DecodePool, DecodeSettings
from tests.models.test_decode_pool import misbehave
if __name__ == "__main__":
    results = DecodePool(misbehave, DecodeSettings(workers=2, timeout_s=60)).map(["a", "hang", "b", "hang"])
    print(next(results)[0], flush=True)
    {end}
"""


@pytest.mark.parametrize("end", ["os._exit(1)", "os.kill(os.getpid(), 9)", "sys.exit()"])
def test_no_child_outlives_its_owner(tmp_path, end):
    script = tmp_path / "owner.py"
    script.write_text(OWNER.format(end=end))
    root = Path(__file__).parents[2]
    token = f"owner-{os.getpid()}-{time.monotonic_ns()}"
    environment = os.environ | {"PYTHONPATH": str(root), "POOL_OWNER": token}
    owner = subprocess.run([sys.executable, str(script)], env=environment, capture_output=True, text=True, timeout=60)
    assert owner.stdout.strip() in ("a", "b"), owner.stderr
    deadline = time.monotonic() + 10
    while left := _processes_with(token):
        assert time.monotonic() < deadline, f"decoders outlived their owner: {left}"
        time.sleep(0.2)


def _processes_with(token):
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if token.encode() in (folder / "environ").read_bytes():
                found.append(int(folder.name))
        except OSError:
            continue
    return found
