"""The pool with real children: some crash, hang or run out of memory, the others answer."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest

from models.video.frames import MediaError
from models.video.pool import DecodePool, DecodeSettings

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


def test_a_pool_that_breaks_is_made_anew_and_costs_no_item(monkeypatch):
    """As where a child is killed before it has told that it began: pebble then gives up all that it was given."""
    with DecodePool(misbehave, QUICK) as pool:
        whole, breaks = pool._schedule, [BrokenProcessPool("All workers expired")]

        def schedule(item, argument):
            future = whole(item, argument)
            if breaks and item == "c":
                future = Future()
                future.set_exception(breaks.pop())
            return future

        monkeypatch.setattr(pool, "_schedule", schedule)
        assert sorted(pool.map("abcdef")) == [(item, item) for item in "abcdef"]
        assert not breaks


def test_decoders_that_are_killed_again_and_again_are_an_error(monkeypatch):
    broken = Future()
    broken.set_exception(BrokenProcessPool("All workers expired"))
    with DecodePool(misbehave, QUICK) as pool:
        monkeypatch.setattr(pool, "_schedule", lambda item, argument: broken)
        with pytest.raises(RuntimeError, match="killed 3 times before they had begun"):
            list(pool.map("a"))


def test_children_load_nothing_heavy():
    with DecodePool(misbehave, QUICK) as pool:
        assert list(pool.map(["modules"])) == [("modules", [])]


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
from tests.models.video.test_pool import misbehave
if __name__ == "__main__":
    results = DecodePool(misbehave, DecodeSettings(workers=2, timeout_s=60)).map(["a", "hang", "b", "hang"])
    print(next(results)[0], flush=True)
    {end}
"""


@pytest.mark.parametrize("end", ["os._exit(1)", "os.kill(os.getpid(), 9)", "sys.exit()"])
def test_no_child_outlives_its_owner(tmp_path, end):
    script = tmp_path / "owner.py"
    script.write_text(OWNER.format(end=end))
    root = Path(__file__).parents[3]
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
