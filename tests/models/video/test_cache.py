import os

import numpy as np
import pytest

from models.handwriting import clips
from models.video.cache import FrameCache
from models.video.frames import FrameSpec, Limits, sample

SPEC, LIMITS = FrameSpec(count=4, size=28), Limits()
ONE = 4 * 28 * 28 * 3 + 128  # bytes of one entry: frames and the .npy header


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    paths = clips.generate(tmp_path_factory.mktemp("clips"), "align", 5, seed=0)
    return {path.stem: path.read_bytes() for path in paths}


def unread():
    raise AssertionError("a hit must not read the video")


def test_a_clip_is_decoded_once_and_comes_back_lossless(tmp_path, files):
    name, data = next(iter(files.items()))
    first = FrameCache(tmp_path, SPEC, LIMITS, 10 * ONE).load(name, lambda: data)
    again = FrameCache(tmp_path, SPEC, LIMITS, 10 * ONE).load(name, unread)
    assert np.array_equal(first, sample(data, SPEC, LIMITS)) and np.array_equal(first, again)


def test_another_sampling_is_another_entry(tmp_path, files):
    name, data = next(iter(files.items()))
    FrameCache(tmp_path, SPEC, LIMITS, 10 * ONE).load(name, lambda: data)
    other = FrameCache(tmp_path, FrameSpec(count=2, size=28), LIMITS, 10 * ONE)
    assert other.load(name, lambda: data).shape == (2, 28, 28, 3)


def test_the_cap_holds_and_the_least_recently_used_goes(tmp_path, files):
    cache = FrameCache(tmp_path, SPEC, LIMITS, 3 * ONE)
    names = list(files)
    for n, name in enumerate(names[:3]):
        cache.load(name, lambda name=name: files[name])
        stamp(tmp_path, name, n)
    cache.load(names[0], unread)  # now names[1] is the oldest
    cache.load(names[3], lambda: files[names[3]])
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 3 * ONE
    held = {path.name.rsplit("-", 1)[0] for path in tmp_path.glob("*.npy")}
    assert held == {names[0], names[3]}


def stamp(folder, name, second):
    for path in folder.glob(f"{name}-*.npy"):
        os.utime(path, (second, second))


def test_a_damaged_entry_is_decoded_again(tmp_path, files):
    name, data = next(iter(files.items()))
    cache = FrameCache(tmp_path, SPEC, LIMITS, 10 * ONE)
    whole = cache.load(name, lambda: data)
    next(tmp_path.glob("*.npy")).write_bytes(b"half")
    assert np.array_equal(cache.load(name, lambda: data), whole)
