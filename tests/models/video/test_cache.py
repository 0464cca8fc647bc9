import os
from dataclasses import replace

import numpy as np
import pytest

from models.handwriting import clips
from models.video.cache import FrameCache
from models.video.container import Limits
from models.video.frames import FrameSpec, sample

SPEC, LIMITS = FrameSpec(count=4, max_pixels=28 * 28, fps=100.0, cell=14, fit="square"), Limits()
ONE = 4 * 28 * 28 * 3 + 1024  # bytes of one entry: pictures, four times and the .npz headers


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
    assert same(first, sample(data, SPEC, LIMITS)) and same(first, again)


def same(a, b):
    return np.array_equal(a.pixels, b.pixels) and (list(a.times), a.duration) == (list(b.times), b.duration)


def test_another_sampling_is_another_entry(tmp_path, files):
    name, data = next(iter(files.items()))
    FrameCache(tmp_path, SPEC, LIMITS, 10 * ONE).load(name, lambda: data)
    other = FrameCache(tmp_path, replace(SPEC, count=2), LIMITS, 10 * ONE)
    assert other.load(name, lambda: data).pixels.shape == (2, 28, 28, 3)


def test_the_cap_holds_and_the_least_recently_used_goes(tmp_path, files):
    cache = FrameCache(tmp_path, SPEC, LIMITS, 3 * ONE)
    names = list(files)
    for n, name in enumerate(names[:3]):
        cache.load(name, lambda name=name: files[name])
        stamp(tmp_path, name, n)
    cache.load(names[0], unread)  # now names[1] is the oldest
    cache.load(names[3], lambda: files[names[3]])
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 3 * ONE
    held = {path.name.rsplit("-", 1)[0] for path in tmp_path.glob("*.npz")}
    assert held == {names[0], names[3]}


def stamp(folder, name, second):
    for path in folder.glob(f"{name}-*.npz"):
        os.utime(path, (second, second))


def flip(data):
    """One bit, in the middle of the pictures."""
    return data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 1]) + data[len(data) // 2 + 1 :]


@pytest.mark.parametrize("damage", [lambda data: b"half", lambda data: data[:-40], lambda data: b"", flip])
def test_a_damaged_entry_is_decoded_again(tmp_path, files, damage):
    name, data = next(iter(files.items()))
    cache = FrameCache(tmp_path, SPEC, LIMITS, 10 * ONE)
    whole = cache.load(name, lambda: data)
    entry = next(tmp_path.glob("*.npz"))
    entry.write_bytes(damage(entry.read_bytes()))
    assert same(cache.load(name, lambda: data), whole)
    assert same(cache.load(name, unread), whole)
