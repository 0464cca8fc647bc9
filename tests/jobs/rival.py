"""One of two nightly drivers that run at once on one lake.

    python rival.py LAKE SOURCE

Both look at the counter of a compare-and-set before either appends: whoever comes second must collide.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path

from jobs.runtime.run import Run

from conf.settings import load
from jobs import nightly
from schemas import table

PATIENCE = 120.0  # seconds; a rival that has nothing to publish under a scope never comes

look = table.transaction_version


def meet(folder: Path) -> None:
    """Come once, and wait until the other one is there too."""
    folder.mkdir(parents=True, exist_ok=True)
    mine = folder / str(os.getpid())
    if mine.exists():
        return
    mine.touch()
    until = time.monotonic() + PATIENCE
    while len(list(folder.iterdir())) < 2 and time.monotonic() < until:
        time.sleep(0.05)


def main() -> None:
    root, source = sys.argv[1:]

    def look_and_meet(path: str, scope: str) -> int:
        version = look(path, scope)
        if scope.startswith(("traces/", "scores/", "files", "videos")):
            meet(Path(root).parent / "met" / scope)
        return version

    table.transaction_version = look_and_meet
    settings = load("conf/local.yaml", [f"lake.root={root}", "engine.per_cluster=1", "engine.kv_cache_mb=64"])
    with Run("nightly", settings, quiet=True) as run:
        print("READY", flush=True)
        nightly.run(run, argparse.Namespace(source=source))
    print(json.dumps(run.counts), flush=True)


if __name__ == "__main__":
    main()
