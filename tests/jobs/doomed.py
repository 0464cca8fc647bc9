"""Runs the rollout job in a process of its own and, at one named point of the second wave, kills everything it started.

    python doomed.py LAKE POINT     POINT: mid_decode | unsealed | sealed | audited | published | recorded

SIGKILL to the whole process group: driver, JVM and workers go at once, as when a machine loses power. Nothing in the
product knows of this; the points are the product's own functions, wrapped here.
"""

import argparse
import os
import signal
import sys
import threading
import time

from jobs.runtime.run import Run

from conf.settings import load
from jobs import rollout, staging
from lake import storage
from udfs import progress

SETTINGS = ("engine.per_cluster=1", "waves.seconds=1", "waves.first_rate=8", "engine.kv_cache_mb=64")


def die(*_: object, **__: object) -> None:
    os.killpg(0, signal.SIGKILL)


def at_second_wave(function, wave_of):
    """The function, but fatal when it is called for the second wave of this run."""

    def wrapped(*arguments, **named):
        if wave_of(*arguments).name == "w00002" and wave_of(*arguments).run_id.startswith(THIS["run_id"]):
            die()
        return function(*arguments, **named)

    return wrapped


THIS = {"run_id": "?"}


def arm(point: str, root: str) -> None:
    second = {
        "sealed": "audit_wave",
        "audited": "publish_wave",
        "published": "record_wave",
    }
    if point in second:
        name = second[point]
        setattr(staging, name, at_second_wave(getattr(staging, name), lambda spark, wave, *_: wave))
    elif point == "unsealed":
        staging.seal = at_second_wave(staging.seal, lambda wave, *_: wave)
    elif point == "recorded":
        staging.remove_wave = at_second_wave(staging.remove_wave, lambda wave: wave)
    elif point == "mid_decode":
        threading.Thread(target=when_first_video_is_done, args=(root,), daemon=True).start()


def when_first_video_is_done(root: str) -> None:
    while True:
        time.sleep(0.02)
        folder = storage.join(staging.run_folder(root, THIS["run_id"]), "w00002", "progress")
        if progress.total(folder)["videos"] >= 1:
            die()


def main() -> None:
    root, point = sys.argv[1:]
    os.setpgid(0, 0)
    progress._INTERVAL_S = 0.0
    rollout.measured_rate = lambda run, recipe_id: None  # waves of two videos, whatever this machine's speed
    arm(point, root)
    job = Run("rollout", load("conf/local.yaml", [f"lake.root={root}", *SETTINGS]), quiet=True)
    THIS["run_id"] = job.run_id
    with job as run:
        rollout.run(run, argparse.Namespace(split=None))
    print(run.counts)


if __name__ == "__main__":
    main()
