"""Runs the rollout job in a process of its own and, at one named point of the second wave, kills everything it started.

    python doomed.py LAKE POINT

SIGKILL to the whole process group: driver, JVM and workers go at once, as when a machine loses power. Nothing in the
product knows of this; the points are the product's own functions, wrapped here.
"""

import os
import signal
import sys
import threading
import time
from pathlib import Path

from benchmarks import null_engine
from jobs.runtime import cli
from jobs.steps import rollouts
from lake import lease, storage, waves
from lake.staging import Wave, run_folder
from udfs import progress

SETTINGS = ("engine.per_cluster=2", "waves.seconds=1", "waves.first_rate=8", f"engine.kind={null_engine.KIND}")
# Before which function of the product each point is.
POINTS = {
    "unsealed": (Wave, "seal"),
    "sealed": (waves, "audit_output"),
    "audited": (waves, "publish"),
    "published": (waves, "record"),
    "recorded": (Wave, "remove"),
}


def die() -> None:
    os.killpg(0, signal.SIGKILL)


def stand_still() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def before(where, name: str, then=die) -> None:
    """Let the function be fatal when it is called for the second wave of this run."""
    function = getattr(where, name)

    def wrapped(*arguments, **named):
        (wave,) = [argument for argument in arguments if isinstance(argument, Wave)]
        if wave.run_id in THIS and wave.name == "w00002":
            then()
        return function(*arguments, **named)

    setattr(where, name, wrapped)


THIS: set[str] = set()  # the id of the run that is to die, once it has one


def removing() -> None:
    """Die once the first file of the second wave's folder is gone."""
    delete = storage.delete

    def wrapped(uri):
        delete(uri)
        if uri.endswith("w00002/manifest.json") and uri.split("/")[-3] in THIS:
            die()

    storage.delete = wrapped


def watch(root: str, point: str) -> None:
    """Die once the first video of the second wave is done, or the first of its files is in the table's folder."""
    traces = Path(root, "tables/traces")
    while True:
        time.sleep(0.005)
        for run_id in tuple(THIS):
            folder = storage.join(run_folder(root, run_id), "w00002", "progress")
            if point == "mid_decode" and progress.total(folder)["videos"] >= 1:
                die()
            if point == "between_files" and any(traces.rglob(f"{run_id}.w00002-*.parquet")):
                die()


def main() -> None:
    root, point = sys.argv[1:]
    os.setpgid(0, 0)
    progress._INTERVAL_S = 0.0
    rollouts.measured_rate = lambda run, recipe_id: None  # waves of two videos, whatever this machine's speed
    begin = waves.Waves.__init__

    def noting(self, lake, mine, *arguments, **named):
        THIS.add(mine.run_id)
        begin(self, lake, mine, *arguments, **named)

    waves.Waves.__init__ = noting
    if point in POINTS:
        before(*POINTS[point])
    elif point == "removing":
        removing()
    elif point == "stopped":  # as a run of another host: here its process would tell that it lives
        lease.socket.gethostname = lambda: "elsewhere"
        before(Wave, "seal", then=stand_still)
    else:
        threading.Thread(target=watch, args=(root, point), daemon=True).start()
    settings = [word for setting in (f"lake.root={root}", *SETTINGS) for word in ("--set", setting)]
    sys.exit(cli.main(["rollout", "--conf", "conf/local.yaml", "--quiet", *settings]))


if __name__ == "__main__":
    main()
