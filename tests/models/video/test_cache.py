import os
from dataclasses import replace

import numpy as np
import pytest

from models.handwriting import clips
from models.video.cache import FrameCache
from models.video.container import Limits
from models.video.frames import FrameSpec, sample

SPEC, LIMITS = FrameSpec(count=4, max_pixels=28 * 28, fps=100.0, cell=14, fit="square"), Limits()
ONE = 4 * 28 * 28 * 3 + 1300  # bytes of one entry: pictures, four times and the .npz headers


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    paths = clips.generate(tmp_path_factory.mktemp("clips"), "align", 5, seed=0)
    return {path.stem: path.read_bytes() for path in paths}


def put(cache, name, data):
    clip = sample(data, SPEC, LIMITS)
    cache.put(name, clip)
    return clip


def test_a_clip_is_decoded_once_and_comes_back_lossless(tmp_path, files):
    name, data = next(iter(files.items()))
    assert FrameCache(tmp_path, SPEC, 10 * ONE).get(name) is None
    first = put(FrameCache(tmp_path, SPEC, 10 * ONE), name, data)
    assert same(first, FrameCache(tmp_path, SPEC, 10 * ONE).get(name))


def same(a, b):
    return np.array_equal(a.pixels, b.pixels) and (list(a.times), a.duration) == (list(b.times), b.duration)


def test_another_sampling_is_another_entry(tmp_path, files):
    name, data = next(iter(files.items()))
    put(FrameCache(tmp_path, SPEC, 10 * ONE), name, data)
    assert FrameCache(tmp_path, replace(SPEC, count=2), 10 * ONE).get(name) is None


def test_the_cap_holds_and_the_least_recently_used_goes(tmp_path, files):
    cache = FrameCache(tmp_path, SPEC, 3 * ONE)
    names = list(files)
    for n, name in enumerate(names[:3]):
        put(cache, name, files[name])
        stamp(tmp_path, name, n)
    assert cache.get(names[0])  # now names[1] is the oldest
    put(cache, names[3], files[names[3]])
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
def test_a_damaged_entry_is_none(tmp_path, files, damage):
    name, data = next(iter(files.items()))
    cache = FrameCache(tmp_path, SPEC, 10 * ONE)
    whole = put(cache, name, data)
    entry = next(tmp_path.glob("*.npz"))
    entry.write_bytes(damage(entry.read_bytes()))
    assert cache.get(name) is None
    cache.put(name, whole)
    assert same(cache.get(name), whole)
