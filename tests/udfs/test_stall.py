"""A bound on the silence of an engine."""

import subprocess
import sys
import time

from models.engines.asking import Task
from models.engines.promise import EngineSpec, Sampling
from models.engines.rollouts import Plan, Rollouts
from models.language.label_scores import Choice
from models.video.container import MediaError
from models.video.frames import FrameSpec
from udfs.stall import Watchdog


def refuse_slowly(uri, video_id, frames, limits):
    """Runs in the decoder child."""
    time.sleep(1)
    raise MediaError("no_frames", "nothing in it")


def slow(pauses):
    for number, pause in enumerate(pauses):
        time.sleep(pause)
        yield number


def test_rows_pass_and_a_slow_consumer_is_no_stall():
    stalls = []
    seen = []
    for row in Watchdog(0.1, lambda: stalls.append(1)).watch(slow([0, 0, 0])):
        time.sleep(0.3)
        seen.append(row)
    assert seen == [0, 1, 2] and stalls == []


def test_a_row_that_takes_too_long_is_a_stall_said_once():
    stalls = []
    assert list(Watchdog(0.1, lambda: stalls.append(1)).watch(slow([0, 0.5, 0]))) == [0, 1, 2]
    assert stalls == [1]


def test_files_that_are_refused_one_after_another_are_signs_of_life(checkpoint):
    """Twelve files that take their decoder a second each are twelve seconds without a row, and nobody's engine."""
    from models.engines.transformers import TransformersEngine  # not above: decoder children import this module

    spec = EngineSpec("transformers", checkpoint, max_model_len=256)
    plan = Plan(
        engine=spec,
        sampling=Sampling(max_tokens=8),
        frames=FrameSpec(count=8, max_pixels=56 * 56, fps=4.0, cell=14),
        user_text="What is it?",
        scored=Choice(("yes", "no")),
        grammar="think_answer",
        decode=refuse_slowly,
    )
    stalls: list[int] = []
    watchdog = Watchdog(8.0, lambda: stalls.append(1))
    rollouts = Rollouts(plan, TransformersEngine(spec), on_decoded=watchdog.touch)
    tasks = [Task(f"ext:{number}", "/nowhere.mp4", (0,), 0) for number in range(12)]
    rows = list(watchdog.watch(rollouts.rows(tasks)))
    assert [row["status"] for row in rows] == ["decode_error"] * 12 and stalls == []


def test_a_stalled_engine_ends_its_worker():
    code = """
import time
from udfs.stall import Watchdog, stalled
def rows():
    yield 1
    time.sleep(60)
for row in Watchdog(0.2, stalled).watch(rows()):
    print("row", row, flush=True)
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert ended.returncode == 71 and ended.stdout == "row 1\n"
    assert "gave nothing" in ended.stderr and "time.sleep" not in ended.stdout and "in rows" in ended.stderr
