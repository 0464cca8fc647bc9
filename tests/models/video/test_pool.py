"""The pool with real children: some crash, hang or run out of memory, the others answer."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from models.video.container import MediaError
from models.video.pool import DecodePool, DecodeSettings

QUICK = DecodeSettings(workers=2, timeout_s=5.0, memory_bytes=2 * 1024**3, ahead=2)


def misbehave(what):
    """Runs in the child."""
    if what == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if what == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if isinstance(what, Path):  # killed by a host that is out of memory, but not again
        if not what.exists():
            what.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return multiprocessing.current_process().name
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


def test_a_child_killed_from_outside_says_nothing_of_its_file_until_it_dies_alone(tmp_path):
    items = [tmp_path / "a", "killed", tmp_path / "b", *"cdefgh"]
    with DecodePool(misbehave, QUICK) as pool:
        order = [item for item, result in pool.map(items)]
        found = dict(pool.map(items))
    assert sorted(map(str, order)) == sorted(map(str, items)) and set(order[:6]) == set("cdefgh")
    assert found["killed"].reason == "decoder_crashed" and "exit code -9" in str(found["killed"])
    assert not isinstance(found[tmp_path / "a"], MediaError) and not isinstance(found[tmp_path / "b"], MediaError)


@pytest.mark.parametrize("noticed", [False, True])
def test_children_killed_while_they_had_nothing_to_do_cost_no_item(noticed):
    """noticed: whether pebble has seen it before the next item comes; from then on it takes nothing more."""
    with DecodePool(misbehave, QUICK) as pool:
        assert sorted(pool.map("ab")) == [("a", "a"), ("b", "b")]
        _kill_children()
        deadline = time.monotonic() + 30
        while noticed and pool._pool.active:
            assert time.monotonic() < deadline, "pebble never saw it"
            time.sleep(0.01)
        assert sorted(pool.map("cdef")) == [(item, item) for item in "cdef"]


def test_children_killed_as_soon_as_they_start_are_an_error():
    with DecodePool(misbehave, QUICK) as pool:
        ended = threading.Event()
        killer = threading.Thread(target=_kill_until, args=(ended,))
        killer.start()
        try:
            with pytest.raises(RuntimeError, match="killed 3 times before they had begun"):
                list(pool.map("abc"))
        finally:
            ended.set()
            killer.join()


def _kill_until(ended):
    while not ended.wait(0.02):
        _kill_children()


def _kill_children():
    for child in multiprocessing.active_children():
        with suppress(ProcessLookupError):
            os.kill(child.pid, signal.SIGKILL)


def test_children_load_nothing_heavy():
    with DecodePool(misbehave, QUICK) as pool:
        assert list(pool.map(["modules"])) == [("modules", [])]


def test_what_the_main_script_takes_is_not_taken_from_decoding(tmp_path):
    """A child begins with the main script of its parent: here one that maps more than a child is allowed."""
    script = tmp_path / "heavy.py"
    script.write_text(
        "import mmap\n"
        "from models.video.pool import DecodePool, DecodeSettings\n"
        "held = mmap.mmap(-1, 3 << 30)\n"
        "if __name__ == '__main__':\n"
        "    with DecodePool(bytearray, DecodeSettings(memory_bytes=1 << 30)) as pool:\n"
        "        print(sorted((size >> 20, type(found).__name__) for size, found in pool.map([100 << 20, 2 << 30])))\n"
    )
    done = subprocess.run(
        [sys.executable, str(script)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout.strip() == "[(100, 'bytearray'), (2048, 'DecoderLost')]", done.stderr


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
